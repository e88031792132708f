//! Byte streams: one type for every kind of connection, original destinations, dialling, copying.

pub(crate) mod copy;
pub(crate) mod dial;
mod lend;
pub(crate) mod original;
pub(crate) mod overtime;
pub(crate) mod own;
pub(crate) mod pieces;
pub(crate) mod spare;
mod stream;
mod tether;
mod through;
mod told;

use std::{
    io,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mesh_core::reason::Reason;
use socket2::{Socket, TcpKeepalive};

pub(crate) use self::{
    lend::Lend,
    stream::{Accepted, Dialled, Prefixed, Stream},
    tether::Tether,
    through::writes_through,
    told::{TAKEN, Told, refused},
};

/// Why a connection to a peer broke, where its error tells: it was cut, or the peer's proxy said why it refuses.
pub(crate) fn blame(error: &io::Error) -> Option<Reason> {
    tether::is_cut(error).then_some(Reason::PeerNotTrusted).or_else(|| told::refusal(error))
}

/// How long a peer may be silent before it is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(60);

/// For how long a peer on another host may leave unacknowledged, or not take, what is sent to it, in milliseconds; 0: for
/// as long as the kernel tries. One for the process, for so are its sockets.
static PEER_TIMEOUT: AtomicU64 = AtomicU64::new(0);

/// Sets how long a peer on another host may leave unacknowledged, or not take, what is sent to it, on sockets that are
/// opened from now on; zero: for as long as the kernel tries.
pub(crate) fn set_peer_timeout(timeout: Duration) {
    PEER_TIMEOUT.store(timeout.as_millis() as u64, Ordering::Relaxed);
}

/// Has the kernel notice a peer whose host is gone, however idle the connection is, and whatever is under way to it. A
/// listener hands that on to what it accepts. `own` is its address; `peer` is None for a listener.
///
/// # Errors
/// What the kernel says.
pub(crate) fn probe(socket: &Socket, own: IpAddr, peer: Option<IpAddr>) -> io::Result<()> {
    let keepalive =
        TcpKeepalive::new().with_time(SILENCE).with_interval(Duration::from_secs(15)).with_retries(4);
    socket.set_tcp_keepalive(&keepalive)?;
    // Nobody vanishes on this host. Whoever is stopped there for long, in a debugger say, and takes nothing, is not gone:
    // the kernel does not tell these two apart.
    let here = own.is_loopback() || peer == Some(own);
    let timeout = Duration::from_millis(PEER_TIMEOUT.load(Ordering::Relaxed));
    socket.set_tcp_user_timeout((!here).then_some(timeout))
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn who_vanishes_on_another_host_is_given_up() {
        // What every proxy of this process sets.
        let timeout = Duration::from_secs(120);
        set_peer_timeout(timeout);
        let of = |socket: &SockRef<'_>| socket.tcp_user_timeout().unwrap();
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let any = listener.local_addr().unwrap();
        probe(&SockRef::from(&listener), any.ip(), None).unwrap();
        let stream = TcpStream::connect(("127.0.0.1", any.port())).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert_eq!(of(&SockRef::from(&accepted)), Some(timeout), "what is accepted inherits it");
        let socket = SockRef::from(&stream);
        for (own, peer, expected) in [
            ("10.9.0.1", Some("10.9.0.2"), Some(timeout)),
            ("10.9.0.1", Some("10.9.0.1"), None),
            ("fd00::1", Some("fd00::2"), Some(timeout)),
            ("127.0.0.1", Some("127.0.0.2"), None),
            ("::1", None, None),
            ("::", None, Some(timeout)),
        ] {
            let ip = |text: &str| text.parse().unwrap();
            probe(&socket, ip(own), peer.map(ip)).unwrap();
            assert_eq!(of(&socket), expected, "{own} {peer:?}");
            assert!(socket.keepalive().unwrap());
        }
    }
}
