//! gRPC connections to the controller, over our own TLS.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::net::own::connect_to;

/// Time for TCP, TLS and HTTP/2 to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A PING goes out so often, also on an idle connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Without an answer to a PING for so long, the connection is lost.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Flow-control windows: the controller sends little.
const WINDOW: u32 = 256 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The address cannot be written as a URI.
    #[error("controller address {address:?}: {error}")]
    Address {
        /// What was configured.
        address: String,
        /// What is wrong.
        error: tonic::transport::Error,
    },
    /// TCP, TLS or HTTP/2 failed.
    #[error("controller at {address}: {}", chain(error))]
    Connect {
        /// Where it should be.
        address: String,
        /// What failed.
        error: tonic::transport::Error,
    },
    /// It took too long.
    #[error("controller at {address}: no connection within {CONNECT_TIMEOUT:?}")]
    Timeout {
        /// Where it should be.
        address: String,
    },
}

/// Connects to the controller at `address` (`HOST:PORT`).
///
/// # Errors
/// [`ConnectError`].
pub(crate) async fn connect(address: &str, tls: Arc<ClientConfig>) -> Result<Channel, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| ConnectError::Address { address: address.to_owned(), error })?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .buffer_size(16);
    let connector = Connector { tls: TlsConnector::from(tls), address: address.into() };
    match timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(ConnectError::Connect { address: address.to_owned(), error }),
        Err(_) => Err(ConnectError::Timeout { address: address.to_owned() }),
    }
}

/// An error with its causes: tonic's own text says only "transport error".
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    address: Arc<str>,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Connecting {
        let Self { tls, address } = self.clone();
        Box::pin(async move {
            let tcp = connect_to(&address).await?;
            tcp.set_nodelay(true)?;
            // The verifier looks at the SPIFFE ID, not at a host name.
            let name = ServerName::IpAddress(tcp.peer_addr()?.ip().into());
            Ok(TokioIo::new(tls.connect(name, tcp).await?))
        })
    }
}
