//! Connecting: TCP, then mesh TLS where the other end has an identity. There is no way from the second to plaintext.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_core::reason::Reason;
use rustls::{ClientConfig, pki_types::ServerName};
use socket2::SockRef;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{
    Ahead, Dialled, Prefixed, Stream,
    own::{self, To},
    probe,
};
use crate::tls::handshake_reason;

/// How long connecting may take, TLS handshake included, unless configured.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
    // Only proxies speak mesh TLS.
    let to = if tls.is_some() { To::Proxy } else { To::Other };
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
    let Some(config) = tls else { return Ok(Stream::tcp(tcp)) };
    // An address as name: no SNI. Who the peer must be stands in the configuration's verifier.
    let name = ServerName::IpAddress(address.ip().into());
    let alpn = config.alpn_protocols.first().cloned();
    match TlsConnector::from(config).connect(name, Ahead::new(Prefixed::new(tcp, Bytes::new()))).await {
        Ok(stream) if stream.get_ref().1.alpn_protocol() == alpn.as_deref() => {
            Ok(Stream::Dialled(Box::new(Dialled::new(stream))))
        }
        Ok(_) => Err(Reason::TlsHandshakeFailed),
        Err(error) => {
            tracing::debug!(%address, %error, "TLS handshake failed");
            Err(handshake_reason(&error))
        }
    }
}
