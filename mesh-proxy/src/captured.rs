//! Sees, before the proxy starts, that firewall rules lead connections to it.
//!
//! Only who may change rules may read them. So a connection is made as the proxy makes one to its own workload: the
//! rules, and nothing else, lead it to the inbound port.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use mesh_core::ports;
use socket2::{Domain, Protocol, Socket, Type};

/// How long a connection within this host may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the proxy must not start.
#[derive(Debug, thiserror::Error)]
pub enum Uncaptured {
    /// There are no rules.
    #[error(
        "no firewall rules lead connections to this proxy ({0}): the pod was started without the CNI plugin mesh-cni, and what it sends and gets would pass by the mesh. Delete the pod, to have it made anew; the DaemonSet mesh-cni does that by itself if a controller owns the pod"
    )]
    NoRules(String),
    /// It is not known.
    #[error("cannot see whether firewall rules lead connections to this proxy: {0}")]
    Unknown(io::Error),
}

/// Flags of `mesh-proxy expect-rules`.
#[derive(Clone, Debug, clap::Args)]
pub struct Expect {
    /// The proxy's inbound port
    #[arg(long, value_name = "PORT", default_value_t = ports::INBOUND, value_parser = clap::value_parser!(u16).range(1..))]
    pub inbound_port: u16,
}

/// Looks whether connections are led to the inbound port, on which nobody may listen yet.
///
/// # Errors
/// [`Uncaptured`].
pub fn check(port: u16) -> Result<(), Uncaptured> {
    let own = own_address().map_err(Uncaptured::Unknown)?;
    let loopback: IpAddr =
        if own.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let listener = TcpListener::bind((loopback, port)).map_err(Uncaptured::Unknown)?;
    listener.set_nonblocking(true).map_err(Uncaptured::Unknown)?;
    let target = SocketAddr::new(own, port);
    let socket = connect(loopback, target).map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::TimedOut => Uncaptured::NoRules(format!(
            "a connection to {target} did not come to {loopback}:{port}: {error}"
        )),
        _ => Uncaptured::Unknown(error),
    })?;
    let from = socket.local_addr().map_err(Uncaptured::Unknown)?.as_socket();
    match listener.accept() {
        Ok((_, peer)) if Some(peer) == from => Ok(()),
        Ok((_, peer)) => Err(Uncaptured::NoRules(format!("{peer} came to {loopback}:{port} in place of it"))),
        Err(_) => Err(Uncaptured::NoRules(format!("a connection to {target} came to somebody else"))),
    }
}

/// Connects as `net::own` does to this host.
fn connect(from: IpAddr, to: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket)
}

/// An address of this host that others call. No packet is sent: the kernel only looks a route up, to addresses that
/// stand for others in documents.
fn own_address() -> io::Result<IpAddr> {
    let outside: [(IpAddr, SocketAddr); 2] = [
        (Ipv4Addr::UNSPECIFIED.into(), SocketAddr::from(([192, 0, 2, 1], 9))),
        (Ipv6Addr::UNSPECIFIED.into(), SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9))),
    ];
    let route = |(any, target): (IpAddr, SocketAddr)| {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(target)?;
        Ok(socket.local_addr()?.ip())
    };
    let [v4, v6] = outside.map(route);
    v4.or(v6).map_err(|error: io::Error| {
        io::Error::new(error.kind(), format!("this host has no route to others, and so no address: {error}"))
    })
}
