//! PROXY protocol: who calls, as a load balancer tells it, and as the application is told.

use mesh_core::{
    config::WorkloadConfig,
    protocol::{Protocol, ProxyProtocol, ProxyVersion},
};
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    net::{PATIENCE, fresh_addr},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::mesh::{Pair, upstream};

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 4242 443\r\n";
/// The same ends, in version 2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x10\x92\x01\xbb";

const BOTH: ProxyProtocol = ProxyProtocol { accept: true, send: Some(ProxyVersion::V2) };

async fn pair(app: &TcpApp, headers: ProxyProtocol) -> Pair {
    let change = |client: &mut WorkloadConfig, server: &mut WorkloadConfig| {
        upstream(client, 17_000, "catalog:8080");
        server.inbound[0].proxy_protocol = headers;
    };
    Pair::with(Protocol::Opaque, app.address(), |_| (), change).await
}

/// What an application that sends everything back has got, when the caller has sent `bytes` and ended.
async fn sent(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    // Closed or reset.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap();
    got
}

#[tokio::test]
async fn what_a_load_balancer_says_reaches_the_application() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let old = ProxyProtocol { send: Some(ProxyVersion::V1), ..BOTH };
    for (headers, expected) in [(BOTH, V2), (old, V1)] {
        let pair = pair(&app, headers).await;
        for header in [V1, V2] {
            let stream = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
            let got = sent(stream, &[header, b"hello"].concat()).await;
            assert_eq!(got, [expected, b"hello"].concat(), "{}", got.escape_ascii());
        }
        // One byte at a time, and then silence: the application is connected to all the same.
        let mut drops = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
        for byte in V2 {
            drops.write_all(&[*byte]).await.unwrap();
        }
        let mut got = vec![0; expected.len()];
        timeout(PATIENCE, drops.read_exact(&mut got)).await.expect("the header comes").unwrap();
        assert_eq!(got, expected);
    }
}

/// A peer needs no header: its certificate says who it is.
#[tokio::test]
async fn the_application_learns_a_peers_identity() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = pair(&app, BOTH).await;
    let stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    let got = sent(stream, b"hello").await;
    let identity = pair.client.config.identity.as_str();
    assert_eq!(got[..14], V2[..14]);
    let extension = [&[0xe0, 0, identity.len() as u8], identity.as_bytes(), b"hello"].concat();
    assert!(got.ends_with(&extension), "{}", got.escape_ascii());
    // What a peer's application sends is its own affair.
    let stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    assert!(sent(stream, V1).await.ends_with(V1));
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn a_port_that_wants_headers_takes_nothing_else() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = pair(&app, BOTH).await;
    let cases: [&[u8]; 5] =
        [b"hello there, no header", b"PROXY TCP4 1 2 3 4\r\n", b"", &V2[..20], b"\x16\x03\x01\x00\x05\x02"];
    for (at, case) in cases.into_iter().enumerate() {
        let stream = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
        assert_eq!(sent(stream, case).await, b"", "{}", case.escape_ascii());
        let refused = || async {
            let count = pair.server.metric("mesh_refused_total", &["PROXY_HEADER_INVALID"]).await;
            (count > at as u64).then_some(())
        };
        mesh_testkit::net::eventually(PATIENCE, "the refusal is counted", refused).await;
    }
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn requests_follow_a_header() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    for protocol in [Protocol::Http1, Protocol::Undeclared] {
        let accept = |_: &mut WorkloadConfig, server: &mut WorkloadConfig| {
            server.inbound[0].proxy_protocol = ProxyProtocol { accept: true, send: None };
        };
        let pair = Pair::with(protocol, app.address(), |_| (), accept).await;
        let mut stream = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n";
        stream.write_all(&[V2, request].concat()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(pair.client.http1().await.get("/", "catalog").await.unwrap().status(), 200, "a peer");
    }
}
