//! Sockets that the proxy itself opens: how a firewall tells them from the application's, and how the proxy knows
//! them again when a firewall does not.
//!
//! What stands here is the process's, for so are its sockets: a mark that is set once, and a few words that workers
//! write and read without waiting for each other.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        LazyLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;

use super::original::unmap;

/// Places for recent connections; a later one may take the place of an earlier one.
const PLACES: usize = 1024;
/// How long a connection may take back to the proxy, in ticks of 64 ms.
const BACK: u64 = 16;
/// Bits of a place that hold its tick.
const TICK_BITS: u32 = 16;

static MARK: AtomicU32 = AtomicU32::new(0);
static RECENT: [AtomicU64; PLACES] = [const { AtomicU64::new(0) }; PLACES];
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Gives all sockets that are opened from now on a mark (SO_MARK).
///
/// # Errors
/// When the process may not: it needs the capability NET_ADMIN.
pub(crate) fn set_mark(mark: u32) -> io::Result<()> {
    let probe = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    probe.set_mark(mark)?;
    MARK.store(mark, Ordering::Relaxed);
    Ok(())
}

/// Whom a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// A proxy. When it is this one, the firewall must take the connection for one that comes in.
    Proxy,
    /// Somebody else: the application beside this proxy, or who is not in the mesh.
    Other,
}

/// Connects, as the proxy.
///
/// # Errors
/// What the kernel says.
pub(crate) async fn connect(address: SocketAddr, to: To) -> io::Result<TcpStream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    let mark = MARK.load(Ordering::Relaxed);
    if mark != 0 {
        socket.set_mark(mark)?;
    }
    if to == To::Proxy
        && let Some(source) = source_to_itself(address.ip())
    {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INPROGRESS) => {}
        Err(error) => return Err(error),
    }
    if let Some(local) = socket.local_addr()?.as_socket() {
        note(local, address);
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match SockRef::from(&stream).take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

/// Connects, as the proxy, to the first address of `HOST:PORT` that answers.
///
/// # Errors
/// When the host has no address, or none answers: the last error.
pub(crate) async fn connect_to(address: &str) -> io::Result<TcpStream> {
    let mut last = None;
    for address in tokio::net::lookup_host(address).await? {
        match connect(address, To::Other).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("the name has no address")))
}

/// Where a call to this host's own address comes from: loopback, by which the firewall knows it. None: it is another
/// host's address, or loopback itself, where nothing is redirected.
fn source_to_itself(address: IpAddr) -> Option<IpAddr> {
    if address.is_loopback() {
        return None;
    }
    let (any, loopback): (IpAddr, IpAddr) = match address {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()),
    };
    // No packet is sent: the kernel only looks the route up. It goes from an own address to itself.
    let probe = UdpSocket::bind((any, 0)).ok()?;
    probe.connect((address, 9)).ok()?;
    (probe.local_addr().ok()?.ip() == address).then_some(loopback)
}

/// Remembers a connection of this proxy for a while.
fn note(from: SocketAddr, to: SocketAddr) {
    let (place, key) = place(from, to);
    place.store(key | tick(), Ordering::Relaxed);
}

/// True if this proxy opened the connection from `from` to `to` just now: a firewall has led it back.
///
/// It may miss one, when others were opened at the same moment, but not the next ones of the same circle.
pub(crate) fn is_own(from: SocketAddr, to: SocketAddr) -> bool {
    let (place, key) = place(from, to);
    let found = place.load(Ordering::Relaxed);
    found >> TICK_BITS == key >> TICK_BITS && tick().wrapping_sub(found) % (1 << TICK_BITS) <= BACK
}

fn place(from: SocketAddr, to: SocketAddr) -> (&'static AtomicU64, u64) {
    let mut hasher = DefaultHasher::new();
    (unmap(from), unmap(to)).hash(&mut hasher);
    let hash = hasher.finish();
    let index = usize::try_from(hash % PLACES as u64).unwrap_or_default();
    // Never out of bounds; the first place is as good as any.
    let place = RECENT.get(index).unwrap_or(&RECENT[0]);
    (place, hash >> TICK_BITS << TICK_BITS)
}

/// The time in ticks of 64 ms, modulo what a place holds.
fn tick() -> u64 {
    let ticks = BEGIN.elapsed().as_millis() / 64 % (1 << TICK_BITS);
    u64::try_from(ticks).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_own_connections_are_known_and_others_are_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _own = connect(address, To::Other).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert!(is_own(peer, address));
        let _foreign = TcpStream::connect(address).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert!(!is_own(peer, address));
        assert!(!is_own(address, peer));
    }

    #[tokio::test]
    async fn what_refuses_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = connect(address, To::Proxy).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn only_own_addresses_are_called_from_loopback() {
        assert_eq!(source_to_itself("127.0.0.1".parse().unwrap()), None);
        assert_eq!(source_to_itself("::1".parse().unwrap()), None);
        assert_eq!(source_to_itself("192.0.2.77".parse().unwrap()), None);
    }
}
