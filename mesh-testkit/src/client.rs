//! HTTP and gRPC clients that do exactly one connection and no tricks.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};
use tonic::transport::{Channel, Endpoint};

/// A gRPC channel over TLS (see [`crate::tls::mesh_client`]; ALPN is `h2`).
///
/// # Errors
/// When the connection or the handshake fails.
pub async fn grpc(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_: http::Uri| {
        let config = Arc::clone(&config);
        async move { crate::tls::connect(address, "mesh", config).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://mesh").connect_with_connector(connector).await
}

/// A gRPC channel in plaintext.
///
/// # Errors
/// When the connection fails.
///
/// # Panics
/// Never: an address is a host of a URI.
pub async fn grpc_plaintext(address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}")).expect("a URI").connect().await
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// One HTTP connection over a stream that is already there. Dropping it closes the stream.
pub struct Connection {
    sender: Sender,
    driver: JoinHandle<()>,
}

impl Connection {
    /// HTTP/1.1.
    ///
    /// # Panics
    /// When the stream is broken already.
    pub async fn http1(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1 client");
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { sender: Sender::Http1(sender), driver }
    }

    /// HTTP/2 with prior knowledge.
    ///
    /// # Panics
    /// When the stream is broken already.
    pub async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2 client");
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { sender: Sender::Http2(sender), driver }
    }

    /// Sends one request and reads the whole response; trailers are put among the headers. HTTP/1.1 needs a `host`:
    /// "test" is sent where none is given.
    ///
    /// # Errors
    /// When the connection breaks before the response is complete.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Bytes>, hyper::Error> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                request.headers_mut().entry(header::HOST).or_insert(header::HeaderValue::from_static("test"));
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (mut head, body) = response.into_parts();
        let body = body.collect().await?;
        head.headers.extend(body.trailers().cloned().unwrap_or_default());
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    /// A GET of `uri`.
    ///
    /// # Errors
    /// As for [`Connection::send`].
    ///
    /// # Panics
    /// When `uri` is none.
    pub async fn get(&mut self, uri: &str, host: &str) -> Result<Response<Bytes>, hyper::Error> {
        let request = Request::builder().uri(uri);
        // HTTP/2 has the host in the URI (":authority").
        let request = match self.sender {
            Sender::Http1(_) => request.header(header::HOST, host),
            Sender::Http2(_) => request.uri(format!("http://{host}{uri}")),
        };
        self.send(request.body(Full::default()).expect("a request")).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;
    use crate::{app::HttpApp, net::fresh_addr};

    #[tokio::test]
    async fn hosts_are_sent_in_both_versions() {
        let app = HttpApp::start("one", fresh_addr(0)).await;
        let stream = || async { TcpStream::connect(app.address()).await.expect("connects") };
        let mut old = Connection::http1(stream().await).await;
        let mut new = Connection::http2(stream().await).await;
        for _ in 0..2 {
            assert_eq!(old.get("/a", "cart.shop").await.expect("answers").status(), 200);
            assert_eq!(new.get("/a", "cart.shop").await.expect("answers").status(), 200);
        }
        let seen = app.seen();
        assert_eq!(app.connections(), 2);
        assert_eq!(seen[0].headers[header::HOST], "cart.shop");
        assert_eq!(seen[1].uri.authority().map(http::uri::Authority::as_str), Some("cart.shop"));
    }
}
