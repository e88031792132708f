//! Connecting: TCP, then mesh TLS where the other end has an identity. There is no way from the second to plaintext.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_core::{protocol::MeshAlpn, reason::Reason};
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::SockRef;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Dialled, Prefixed, Stream, Told,
    own::{self, To},
    probe,
};
use crate::tls::{
    handshake_reason, is_plaintext,
    session::{self, Established},
};

/// How long connecting may take, TLS handshake included, unless configured.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes that are tried. Where a server may speak first and plaintext is let in, a peer's proxy cannot tell a caller whose
/// ClientHello is late, because its machine is busy, from one that waits for the server's greeting.
const HANDSHAKES: usize = 3;

/// Connects to `address`; with `tls`, does the handshake that this configuration demands.
///
/// # Errors
/// The reason to tell the caller.
pub(crate) async fn dial(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Result<Stream, Reason> {
    dial_within(address, tls, CONNECT_TIMEOUT).await
}

/// As [`dial`], in another time.
///
/// # Errors
/// The reason to tell the caller.
pub(crate) async fn dial_within(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    within: Duration,
) -> Result<Stream, Reason> {
    match timeout(within, connect(address, tls)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Reason::UpstreamConnectTimeout),
    }
}

async fn connect(address: SocketAddr, tls: Option<Arc<ClientConfig>>) -> Result<Stream, Reason> {
    let Some(config) = tls else { return Ok(Stream::tcp(reach(address, To::Other).await?)) };
    for _ in 1..HANDSHAKES {
        match shake_hands(address, &config).await {
            Err(Failed::Plaintext) => tracing::debug!(%address, "answered before it was asked"),
            Err(Failed::Because(reason)) => return Err(reason),
            Ok(stream) => return Ok(stream),
        }
    }
    shake_hands(address, &config).await.map_err(|failed| match failed {
        Failed::Plaintext => Reason::TlsHandshakeFailed,
        Failed::Because(reason) => reason,
    })
}

async fn reach(address: SocketAddr, to: To) -> Result<TcpStream, Reason> {
    let tcp = own::connect(address, to).await.map_err(|error| {
        tracing::debug!(%address, %error, "connecting failed");
        match error.kind() {
            io::ErrorKind::TimedOut => Reason::UpstreamConnectTimeout,
            _ => Reason::UpstreamConnectFailed,
        }
    })?;
    // Without it small requests wait for the acknowledgement of others; failing to set it harms nobody.
    let _ = tcp.set_nodelay(true);
    let _ = tcp.local_addr().and_then(|own| probe(&SockRef::from(&tcp), own.ip(), Some(address.ip())));
    Ok(tcp)
}

/// Why there is no mesh TLS.
enum Failed {
    /// What came is no TLS.
    Plaintext,
    Because(Reason),
}

async fn shake_hands(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Stream, Failed> {
    // Only proxies speak mesh TLS.
    let tcp = reach(address, To::Proxy).await.map_err(Failed::Because)?;
    // An address as name: no SNI. Who the peer must be stands in the configuration's verifier.
    let name = ServerName::IpAddress(address.ip().into());
    // In a box: a handshake's state is large and soon over.
    match Box::pin(session::connect(Arc::clone(config), name, Prefixed::new(tcp, Bytes::new()))).await {
        // One that was not offered is no handshake.
        Ok((session, Established { alpn: Some(alpn), chain })) => {
            let dialled = Dialled::new(session, chain);
            Ok(match alpn == MeshAlpn::TcpTold.as_bytes() {
                true => Stream::Told(Box::new(Told::new(dialled))),
                false => Stream::Dialled(Box::new(dialled)),
            })
        }
        Ok((_, Established { alpn: None, .. })) => Err(Failed::Because(Reason::TlsHandshakeFailed)),
        Err(error) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            Err(if is_plaintext(&error) {
                Failed::Plaintext
            } else {
                Failed::Because(handshake_reason(&error))
            })
        }
    }
}
