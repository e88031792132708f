//! Where the application believed it was connecting, before a firewall rule redirected it.

use std::{io, net::SocketAddr};

use mesh_core::{
    addr::{ListenAddr, OrigDst, PeerAddr},
    ports,
};
use socket2::SockRef;
use tokio::net::TcpStream;

use super::own;

/// Why a redirected connection is not carried.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OriginalError {
    /// The kernel does not tell.
    #[error("the original destination cannot be read: {0}")]
    Unknown(#[from] io::Error),
    /// It leads back to this proxy.
    #[error("the original destination {0} is the proxy itself: connect to the service instead")]
    Loop(SocketAddr),
    /// The proxy itself opened it.
    #[error(
        "the firewall leads this proxy's own connection to {0} back to it: tell `mesh-proxy init` how to know the proxy (--proxy-uid, --proxy-mark, ...)"
    )]
    Circle(SocketAddr),
}

/// Reads the original destination of an accepted connection. A connection that was not redirected has its own local
/// address as original destination.
///
/// # Errors
/// When the kernel does not tell, or when the destination is the proxy's own listener or another port of the mesh on
/// the address where this proxy took the connection.
pub(crate) fn original_destination(
    stream: &TcpStream,
    listener: ListenAddr,
) -> Result<OrigDst, OriginalError> {
    let local = unmap(stream.local_addr()?);
    let socket = SockRef::from(stream);
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    // ENOENT and friends: connection tracking does not know the connection, so nobody redirected it.
    let original = original.ok().and_then(|address| address.as_socket()).map_or(local, unmap);
    check(original, local, listener)
}

/// Reads where the application wanted to go.
///
/// # Errors
/// As [`original_destination`], and when it is not the application that opened the connection, but this proxy.
pub(crate) fn outbound_destination(
    stream: &TcpStream,
    peer: PeerAddr,
    listener: ListenAddr,
) -> Result<OrigDst, OriginalError> {
    let original = original_destination(stream, listener)?;
    if own::is_own(peer.0, original.0) { Err(OriginalError::Circle(original.0)) } else { Ok(original) }
}

fn check(original: SocketAddr, local: SocketAddr, listener: ListenAddr) -> Result<OrigDst, OriginalError> {
    let own_address =
        original.ip() == local.ip() || original.ip().is_loopback() || original.ip().is_unspecified();
    let own_port = ports::OWN.contains(&original.port()) || original.port() == listener.0.port();
    if original == local || (own_address && own_port) {
        return Err(OriginalError::Loop(original));
    }
    Ok(OrigDst(original))
}

/// An IPv4 address that came through a dual-stack socket, as IPv4.
pub(crate) fn unmap(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(original: &str, local: &str) -> bool {
        let listener = ListenAddr("0.0.0.0:15006".parse().unwrap());
        check(original.parse().unwrap(), local.parse().unwrap(), listener).is_ok()
    }

    #[test]
    fn loops_are_refused_and_the_rest_is_not() {
        assert!(verdict("10.0.0.7:8080", "10.0.0.7:15006"));
        assert!(verdict("10.0.0.9:15001", "10.0.0.7:15006"), "another host's port is not ours");
        assert!(!verdict("10.0.0.7:15006", "10.0.0.7:15006"));
        assert!(!verdict("10.0.0.7:15001", "10.0.0.7:15006"));
        assert!(!verdict("127.0.0.1:15000", "10.0.0.7:15006"));
        assert!(verdict("127.0.0.1:15020", "127.0.0.1:15006"), "health is skipped by the rules, not a loop");
    }

    #[tokio::test]
    async fn a_connection_that_nobody_redirected_is_a_loop() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let _client = client.unwrap();
        let outcome = original_destination(&accepted.unwrap().0, ListenAddr(address));
        assert!(matches!(outcome, Err(OriginalError::Loop(a)) if a == address), "{outcome:?}");
    }
}
