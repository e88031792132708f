//! Applications on real sockets that tell what they saw.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Empty, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use crate::{ca::Svid, serve::Served, tls::web_server};

/// How many requests [`HttpApp::seen`] remembers.
const MAX_SEEN: usize = 10_000;

/// A request as an application saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: http::Method,
    /// Path and query, or authority, as on the wire.
    pub uri: http::Uri,
    /// The version of HTTP.
    pub version: Version,
    /// The header fields.
    pub headers: HeaderMap,
}

#[derive(Debug)]
struct Shared {
    name: String,
    requests: AtomicU64,
    abandoned: AtomicU64,
    seen: Mutex<Vec<Seen>>,
}

/// An application that speaks HTTP/1.1, HTTP/2 in plaintext with prior knowledge, and gRPC; in plaintext or as an
/// ordinary HTTPS server.
///
/// It answers JSON: `{"app", "version", "method", "path", "headers": {name: [values]}, "body_bytes"}`. The query of a
/// request asks for something else: `status=503` (that status), `delay_ms=50` (waits before it answers), `bytes=1000`
/// (that many bytes instead of JSON), `reset` (breaks the connection), `echo` (the request's body, as it comes).
/// A gRPC request gets its own messages back as they come, and the status that `grpc=13` in the query asks for.
/// `Upgrade: echo` gets 101 and then its own bytes.
#[derive(Debug)]
pub struct HttpApp {
    shared: Arc<Shared>,
    served: Served,
}

type AppBody = BoxBody<Bytes, hyper::Error>;
type Answer = Result<Response<AppBody>, std::io::Error>;

impl HttpApp {
    /// Serves plaintext at `address`; `name` tells apps apart in the answers.
    pub async fn start(name: &str, address: SocketAddr) -> Self {
        Self::start_with(name, address, None).await
    }

    /// Serves HTTPS at `address` as an ordinary web server does (ALPN `h2` and `http/1.1`).
    pub async fn start_tls(name: &str, address: SocketAddr, certificate: &Svid) -> Self {
        Self::start_with(name, address, Some(web_server(certificate, &[b"h2", b"http/1.1"]).into())).await
    }

    async fn start_with(name: &str, address: SocketAddr, tls: Option<TlsAcceptor>) -> Self {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            requests: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            seen: Mutex::default(),
        });
        let for_connections = Arc::clone(&shared);
        let served = Served::start(address, move |stream, _| {
            let (shared, tls) = (Arc::clone(&for_connections), tls.clone());
            async move {
                match tls {
                    None => serve_http(stream, shared).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            serve_http(stream, shared).await;
                        }
                    }
                }
            }
        })
        .await;
        Self { shared, served }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Requests whose head has arrived so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Requests that their clients gave up before they were answered.
    #[must_use]
    pub fn abandoned(&self) -> u64 {
        self.shared.abandoned.load(Ordering::SeqCst)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.served.accepted()
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.served.open()
    }

    /// The first requests that arrived, in their order (at most 10,000).
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops listening and closes all connections.
    pub async fn stop(self) {
        self.served.stop().await;
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    let server = auto::Builder::new(TokioExecutor::new());
    // A client that goes away is no fault of this server.
    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Answer {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let seen = Seen {
        method: request.method().clone(),
        uri: request.uri().clone(),
        version: request.version(),
        headers: request.headers().clone(),
    };
    {
        let mut all = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MAX_SEEN {
            all.push(seen.clone());
        }
    }
    let wish = Wish::read(request.uri().query().unwrap_or_default());
    let mut waited = Waited { shared: &shared, over: false };
    tokio::time::sleep(wish.delay).await;
    waited.over = true;
    if wish.reset {
        return Err(std::io::Error::other("asked to break the connection"));
    }
    if request.headers().contains_key(header::UPGRADE) {
        return Ok(upgrade(request));
    }
    let mut response = Response::builder().status(wish.status);
    let grpc = |v: &HeaderValue| v.as_bytes().starts_with(b"application/grpc");
    if let Some(kind) = request.headers().get(header::CONTENT_TYPE).filter(|v| grpc(v)).cloned() {
        response = response.header(header::CONTENT_TYPE, kind);
        let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), wish.grpc.into())]);
        let body = request.into_body().with_trailers(async move { Some(Ok(trailers)) });
        return response.body(BoxBody::new(body)).map_err(std::io::Error::other);
    }
    let body = if wish.echo {
        BoxBody::new(request.into_body())
    } else {
        let length = drain(request.into_body()).await.map_err(std::io::Error::other)?;
        let bytes = match wish.bytes {
            Some(count) => Bytes::from(vec![b'x'; count]),
            None => {
                response = response.header(header::CONTENT_TYPE, "application/json");
                describe(&shared.name, &seen, length).to_string().into()
            }
        };
        BoxBody::new(Full::new(bytes).map_err(never))
    };
    response.body(body).map_err(std::io::Error::other)
}

/// Counts a request whose client went away while it waited.
struct Waited<'a> {
    shared: &'a Shared,
    over: bool,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.shared.abandoned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// What the query of a request asks for.
struct Wish {
    status: StatusCode,
    delay: Duration,
    bytes: Option<usize>,
    reset: bool,
    echo: bool,
    grpc: u16,
}

impl Wish {
    fn read(query: &str) -> Self {
        let mut wish = Self {
            status: StatusCode::OK,
            delay: Duration::ZERO,
            bytes: None,
            reset: false,
            echo: false,
            grpc: 0,
        };
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "status" => wish.status = value.parse().unwrap_or(StatusCode::BAD_REQUEST),
                "delay_ms" => wish.delay = Duration::from_millis(value.parse().unwrap_or_default()),
                "bytes" => wish.bytes = value.parse().ok(),
                "grpc" => wish.grpc = value.parse().unwrap_or_default(),
                "reset" => wish.reset = true,
                "echo" => wish.echo = true,
                _ => {}
            }
        }
        wish
    }
}

fn upgrade(request: Request<Incoming>) -> Response<AppBody> {
    let kind = request.headers().get(header::UPGRADE).cloned();
    tokio::spawn(async move {
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            echo(TokioIo::new(upgraded)).await;
        }
    });
    let mut response = Response::new(BoxBody::new(Empty::new().map_err(never)));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().extend(kind.map(|kind| (header::UPGRADE, kind)));
    response
}

/// Reads a body to its end; its length.
async fn drain(mut body: Incoming) -> Result<usize, hyper::Error> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(length)
}

fn describe(name: &str, seen: &Seen, body_bytes: usize) -> Value {
    let mut headers = serde_json::Map::new();
    for key in seen.headers.keys() {
        let values =
            seen.headers.get_all(key).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned());
        headers.insert(key.as_str().to_owned(), values.collect());
    }
    json!({
        "app": name,
        "version": format!("{:?}", seen.version),
        "method": seen.method.as_str(),
        "path": seen.uri.path_and_query().map(|path| path.as_str()),
        "headers": headers,
        "body_bytes": body_bytes,
    })
}

fn never(impossible: Infallible) -> hyper::Error {
    match impossible {}
}

/// An application that sends back what it gets; or that speaks first and then does so.
#[derive(Debug)]
pub struct TcpApp {
    served: Served,
}

impl TcpApp {
    /// Sends back what it gets.
    pub async fn start(address: SocketAddr) -> Self {
        Self::speaking_first(address, b"").await
    }

    /// Sends `greeting` at once, and then back what it gets.
    pub async fn speaking_first(address: SocketAddr, greeting: &'static [u8]) -> Self {
        let served = Served::start(address, move |mut stream, _| async move {
            if stream.write_all(greeting).await.is_ok() {
                echo(stream).await;
            }
        });
        Self { served: served.await }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.served.accepted()
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open_connections(&self) -> u64 {
        self.served.open()
    }

    /// Stops listening and closes all connections.
    pub async fn stop(self) {
        self.served.stop().await;
    }
}

/// Sends back what comes; passes the end of the stream on.
async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length) = stream.read(&mut buffer).await {
        if length == 0 || stream.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests;
