//! Peers that never read: what is for them stays where it comes from, and both proxies stay small.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on ends"
)]

mod common;

use std::{
    convert::Infallible,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use common::{Mesh, PATIENCE, Sidecar, eventually};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mesh_testkit::{net::fresh_ip, serve::Served};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// Peers that never read, of each kind.
const PEERS: usize = 200;
const PIECE: &[u8] = &[b'x'; 16 * 1024];
/// Says that this process has a network of its own, where the kernel's buffers are small: it is the proxies' that are to be
/// filled. Without root they are as large as they are, and take gigabytes.
const INSIDE: &str = "MESH_TEST_INSIDE";
/// Where the client's application finds the server's bytes.
const UPSTREAM: u16 = 17_000;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body without end. It counts what is taken of it.
fn endless(taken: &Arc<AtomicU64>) -> Body {
    let taken = Arc::clone(taken);
    let pieces = futures_util::stream::repeat_with(move || {
        taken.fetch_add(PIECE.len() as u64, Relaxed);
        Ok(Frame::data(Bytes::from_static(PIECE)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Answers a GET without end, reads nothing of a POST, and answers anything else at once.
async fn answer(request: Request<Incoming>, taken: Arc<AtomicU64>) -> Result<Response<Body>, Infallible> {
    match request.method().as_str() {
        "GET" => Ok(Response::new(endless(&taken))),
        "POST" => {
            std::future::pending::<()>().await;
            drop(request);
            unreachable!("nobody waits for it")
        }
        _ => Ok(Response::new(http_body_util::Full::new(Bytes::from_static(b"here")).boxed_unsync())),
    }
}

/// The server's applications: HTTP, and bytes, where the first one says what it does.
async fn applications(ip: IpAddr, taken: &Arc<AtomicU64>) -> (Served, Served) {
    let (of_http, of_bytes) = (Arc::clone(taken), Arc::clone(taken));
    let http = Served::start((ip, 9080).into(), move |stream, _| {
        let taken = Arc::clone(&of_http);
        async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&taken)));
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    let bytes = Served::start((ip, 9081).into(), move |mut stream, _| {
        let taken = Arc::clone(&of_bytes);
        async move {
            if stream.read_u8().await.ok() == Some(b'G') {
                return write_all(&mut stream, &taken).await;
            }
            std::future::pending::<()>().await;
        }
    });
    (http.await, bytes.await)
}

/// Writes until the connection ends, and counts what could be written.
async fn write_all(stream: &mut TcpStream, taken: &AtomicU64) {
    while stream.write_all(PIECE).await.is_ok() {
        taken.fetch_add(PIECE.len() as u64, Relaxed);
    }
}

/// What is carried, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http1,
    Http1OverH2,
    Http2,
    Bytes,
}

impl Kind {
    /// What one peer that does not read may cost a proxy, in bytes. Over HTTP/2 it is the window of a stream, 1 MiB, and as much
    /// that waits to be sent; else a few buffers. With room for what differs from machine to machine.
    fn bound(self) -> u64 {
        match self {
            Self::Http1 | Self::Bytes => 512 * 1024,
            Self::Http1OverH2 | Self::Http2 => 4 * 1024 * 1024,
        }
    }
}

/// Who does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deaf {
    /// The caller, of a response.
    Caller,
    /// The server, of an upload.
    Server,
}

/// One caller of its kind, with a connection of its own. It ends when it is dropped.
async fn call(to: SocketAddr, kind: Kind, deaf: Deaf, taken: Arc<AtomicU64>) {
    let stream = TcpStream::connect(to).await.expect("the proxy accepts");
    match (kind, deaf) {
        (Kind::Bytes, Deaf::Caller) => hold(stream, b"G").await,
        (Kind::Bytes, Deaf::Server) => {
            let mut stream = stream;
            stream.write_all(b"P").await.expect("one byte");
            write_all(&mut stream, &taken).await;
        }
        (Kind::Http1 | Kind::Http1OverH2, Deaf::Caller) => {
            hold(stream, b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n").await;
        }
        (Kind::Http2, Deaf::Caller) => hold(stream, &http2_get()).await,
        (_, Deaf::Server) => {
            let request = match kind {
                Kind::Http2 => Request::post("http://catalog:82/"),
                _ => Request::post("/").header("host", "catalog"),
            };
            let request = request.body(endless(&taken)).expect("a request");
            let io = TokioIo::new(stream);
            if kind == Kind::Http2 {
                let (mut sender, connection) =
                    http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
                let _ = tokio::join!(connection, sender.send_request(request));
            } else {
                let (mut sender, connection) = http1::handshake(io).await.expect("HTTP/1.1");
                let _ = tokio::join!(connection, sender.send_request(request));
            }
        }
    }
}

/// Says something and never reads.
async fn hold(mut stream: TcpStream, say: &[u8]) {
    stream.write_all(say).await.expect("a request is small");
    std::future::pending::<()>().await;
}

/// A request by HTTP/2 with windows as large as can be, so that it is the reading that lacks.
fn http2_get() -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream], payload].concat()
    };
    // GET, http, /: of the static table; the authority is a literal.
    let fields = [&[0x82, 0x86, 0x84, 0x01, 10], b"catalog:82".as_slice()].concat();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]),
        frame(8, 0, 0, &[0x7f, 0, 0, 0]),
        frame(1, 5, 1, &fields),
    ]
    .concat()
}

/// Bytes of memory that a process has.
fn memory(sidecar: &Sidecar) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", sidecar.process.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    let kilobytes = line.trim().strip_suffix(" kB").and_then(|number| number.parse::<u64>().ok());
    kilobytes.expect("a number") * 1024
}

/// A client and a server with their proxies.
struct Pair {
    _mesh: Mesh,
    client: Sidecar,
    server: Sidecar,
}

impl Pair {
    async fn start(client_ip: IpAddr, server_ip: IpAddr, transport: &str) -> Self {
        let yaml = include_str!("data/unread.yaml")
            .replace("CLIENT", &client_ip.to_string())
            .replace("SERVER", &server_ip.to_string());
        let mesh = Mesh::start(fresh_ip(), &yaml).await;
        let server = mesh.proxy("test/catalog", "catalog", server_ip).await;
        let mut command = mesh.proxy_command("test/client", "client", client_ip);
        command.args(["--http1-transport", transport]);
        let mut client = mesh.sidecar(command, "test/client", client_ip);
        client.await_ready().await;
        let pair = Self { _mesh: mesh, client, server };
        assert!(eventually(PATIENCE, async || pair.serves().await).await, "the server is reached");
        pair
    }

    /// Whether a request by HTTP/1 is answered.
    async fn serves(&self) -> bool {
        let stream = TcpStream::connect(self.client.outbound()).await.expect("the proxy accepts");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        let connection = tokio::spawn(connection);
        let request = Request::put("/").header("host", "catalog");
        let request = request.body(http_body_util::Empty::<Bytes>::new()).expect("a request");
        let body = async {
            let response = sender.send_request(request).await.ok()?;
            (response.status() == StatusCode::OK)
                .then_some(response.into_body().collect().await.ok()?.to_bytes())
        };
        let body = timeout(PATIENCE, body).await.ok().flatten();
        connection.abort();
        body.is_some_and(|body| *body == *b"here")
    }

    fn memory(&self) -> [u64; 2] {
        [memory(&self.client), memory(&self.server)]
    }
}

#[test]
fn memory_is_bounded_whoever_does_not_read() {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if std::env::var_os(INSIDE).is_some() {
        let lo = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(lo.is_ok_and(|status| status.success()), "ip(8) runs");
        for (which, sizes) in [("rmem", "4096 65536 131072"), ("wmem", "4096 16384 131072")] {
            fs::write(format!("/proc/sys/net/ipv4/tcp_{which}"), sizes).expect("root may say how large");
        }
    } else if root {
        let mut again = Command::new("unshare");
        again.args(["--net", "--kill-child", "--fork"]).arg(std::env::current_exe().expect("its own file"));
        again.args(["memory_is_bounded_whoever_does_not_read", "--exact", "--nocapture"]).env(INSIDE, "1");
        let again = again.output().expect("unshare(1) runs");
        let text = [again.stdout, again.stderr].concat();
        println!("{}", String::from_utf8_lossy(&text));
        assert!(again.status.success());
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(all_kinds());
}

async fn all_kinds() {
    for kind in [Kind::Http1, Kind::Http1OverH2, Kind::Http2, Kind::Bytes] {
        for deaf in [Deaf::Caller, Deaf::Server] {
            let (client_ip, server_ip, taken) = (fresh_ip(), fresh_ip(), Arc::<AtomicU64>::default());
            let _applications = applications(server_ip, &taken).await;
            let transport = if kind == Kind::Http1OverH2 { "h1h2" } else { "h1" };
            let pair = Pair::start(client_ip, server_ip, transport).await;
            let before = pair.memory();
            let port = if kind == Kind::Bytes { UPSTREAM } else { mesh_core::ports::OUTBOUND };
            let mut callers = JoinSet::new();
            for _ in 0..PEERS {
                callers.spawn(call((client_ip, port).into(), kind, deaf, Arc::clone(&taken)));
            }
            let (mut sent, mut still, mut most) = (0, 0, [0; 2]);
            // Until nothing more is sent for a second.
            while still < 4 {
                tokio::time::sleep(Duration::from_millis(250)).await;
                let now = taken.load(Relaxed);
                still = if now == sent && now > 0 { still + 1 } else { 0 };
                sent = now;
                for (most, (now, before)) in most.iter_mut().zip(pair.memory().into_iter().zip(before)) {
                    *most = now.saturating_sub(before).div_euclid(PEERS as u64).max(*most);
                    assert!(*most < kind.bound(), "{kind:?} {deaf:?}: {most} bytes a peer, {sent} sent");
                }
            }
            println!("{kind:?}, {deaf:?}: {sent} bytes sent, {most:?} bytes a peer");
            let ended = callers.try_join_next();
            assert!(ended.is_none(), "{kind:?} {deaf:?}: they are held, not cut: {ended:?}");
            assert!(pair.serves().await, "{kind:?} {deaf:?}: others are served");
        }
    }
}
