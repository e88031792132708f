//! What HTTP/1 can do, through both proxies, in both ways in which it travels between them.

use std::{net::SocketAddr, time::Duration};

use mesh_core::protocol::Protocol;
use mesh_proxy::config::Http1Transport;
use mesh_testkit::{
    app::HttpApp,
    net::{PATIENCE, fresh_addr},
    serve::Served,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    mesh::Pair,
    raw::{Backend, Message, send},
};

const TRANSPORTS: [Http1Transport; 2] = [Http1Transport::H1, Http1Transport::H1OverH2];

/// Name, what the caller sends, what the application answers, what it must have seen, what must be in the answer, and
/// what must not.
type Case = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Message) -> bool,
    &'static [&'static str],
    &'static [&'static str],
);

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

const CASES: &[Case] = &[
    (
        "HTTP/1.0",
        "GET /a HTTP/1.0\r\nHost: catalog\r\n\r\n",
        OK,
        |seen| seen.field("host") == Some("catalog"),
        &[" 200 OK\r\n", "\r\n\r\nok"],
        &["chunked"],
    ),
    (
        "HTTP/1.0 gets no chunks",
        "GET /a HTTP/1.0\r\nHost: catalog\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        |_| true,
        &[" 200 OK\r\n", "\r\n\r\nok"],
        &["chunked", "2\r\nok"],
    ),
    (
        "HTTP/1.0 with keep-alive",
        "GET /a HTTP/1.0\r\nHost: catalog\r\nConnection: keep-alive\r\n\r\n",
        OK,
        |seen| seen.field("connection").is_none(),
        &["connection: keep-alive", "\r\n\r\nok"],
        &[],
    ),
    (
        "Connection: close",
        "GET /a HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n",
        OK,
        |seen| seen.field("connection").is_none(),
        &["connection: close", "\r\n\r\nok"],
        &[],
    ),
    (
        "chunks and trailers of a request",
        "POST /a HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, mesh-client-id\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nmesh-client-id: evil\r\n\r\n",
        OK,
        |seen| seen.body == b"hello" && seen.trailers == [("x-sum".to_owned(), "1".to_owned())],
        &["\r\n\r\nok"],
        &[],
    ),
    (
        "chunks and trailers of a response",
        "GET /a HTTP/1.1\r\nHost: catalog\r\nTE: trailers\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, mesh-reason\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\nmesh-reason: AUTHZ_DENIED\r\n\r\n",
        |seen| seen.field("te") == Some("trailers"),
        &["transfer-encoding: chunked", "2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n"],
        &["AUTHZ_DENIED"],
    ),
    (
        "HEAD",
        "HEAD /a HTTP/1.1\r\nHost: catalog\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n",
        |seen| seen.method == "HEAD",
        &["content-length: 1000\r\n"],
        &["mesh-reason"],
    ),
    (
        "304 with a length",
        "GET /a HTTP/1.1\r\nHost: catalog\r\nIf-None-Match: x\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\netag: x\r\ncontent-length: 1000\r\n\r\n",
        |seen| seen.field("if-none-match") == Some("x"),
        &["HTTP/1.1 304 ", "etag: x"],
        &["mesh-reason"],
    ),
    (
        "204",
        "DELETE /a HTTP/1.1\r\nHost: catalog\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        |seen| seen.method == "DELETE",
        &["HTTP/1.1 204 "],
        &["mesh-reason"],
    ),
    (
        "OPTIONS *",
        "OPTIONS * HTTP/1.1\r\nHost: catalog\r\n\r\n",
        OK,
        |seen| seen.target == "*",
        &["\r\n\r\nok"],
        &[],
    ),
    (
        "interim responses before the last",
        "GET /a HTTP/1.1\r\nHost: catalog\r\n\r\n",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        |_| true,
        &["HTTP/1.1 200 OK\r\n", "\r\n\r\nok"],
        &["mesh-reason"],
    ),
    (
        "an expectation without a body",
        "GET /a HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\n\r\n",
        OK,
        |seen| seen.body.is_empty(),
        &["HTTP/1.1 200 OK\r\n"],
        &[],
    ),
    (
        "a refused expectation",
        "POST /a HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n",
        |_| true,
        &["HTTP/1.1 417 "],
        &["mesh-reason"],
    ),
];

#[tokio::test]
async fn everything_passes_through() {
    let mut failures = Vec::new();
    for transport in TRANSPORTS {
        for (name, request, answer, seen, has, lacks) in CASES {
            let backend = Backend::answering(answer).await;
            let pair =
                Pair::start(Protocol::Http1, backend.address(), |o| o.http1_transport = transport).await;
            let got = send(pair.client.proxy.addresses().outbound, request.as_bytes()).await;
            let arrived = backend.take();
            let good = matches!(&arrived[..], [Ok(message)] if seen(message))
                && has.iter().all(|part| got.contains(part))
                && !lacks.iter().any(|part| got.contains(part));
            if !good {
                failures.push(format!("{transport:?} {name}: {got:?} {arrived:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

async fn read_until(stream: &mut TcpStream, until: impl Fn(&str) -> bool) -> String {
    let mut got = Vec::new();
    while !until(&String::from_utf8_lossy(&got)) {
        let count = timeout(PATIENCE, stream.read_buf(&mut got)).await.unwrap().unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&got));
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// Requests that are sent at once are answered in their order, whatever each takes.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    for transport in TRANSPORTS {
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let pair = Pair::start(Protocol::Http1, app.address(), |o| o.http1_transport = transport).await;
        let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
        let mut all = String::new();
        for n in 0..6 {
            let delay = if n % 2 == 0 { 100 } else { 0 };
            let body = "x".repeat(n);
            all += &format!(
                "POST /{n}?delay_ms={delay} HTTP/1.1\r\nHost: catalog\r\nContent-Length: {n}\r\n\r\n{body}"
            );
        }
        stream.write_all(all.as_bytes()).await.unwrap();
        let got = read_until(&mut stream, |got| got.matches("\"body_bytes\":").count() == 6).await;
        let places: Vec<_> = (0..6).map(|n| got.find(&format!("\"path\":\"/{n}?"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{transport:?} {places:?}: {got}");
    }
}

/// Many requests, one after the other, on one connection of HTTP/1.0.
#[tokio::test]
async fn http_1_0_keeps_connections_that_ask_for_it() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
    for n in 0..3 {
        let head = format!("GET /{n} HTTP/1.0\r\nHost: catalog\r\nConnection: keep-alive\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        read_until(&mut stream, |got| got.contains(&format!("\"path\":\"/{n}\"")) && got.ends_with('}'))
            .await;
    }
    assert_eq!((app.requests(), app.connections()), (3, 1));
}

/// A WebSocket: the handshake passes with its fields, and then bytes do, both ways.
#[tokio::test]
async fn a_websocket_is_carried() {
    for transport in TRANSPORTS {
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let pair = Pair::start(Protocol::Http1, app.address(), |o| o.http1_transport = transport).await;
        let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
        let head = "GET /chat HTTP/1.1\r\nHost: catalog\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        // The first frame does not wait for the answer.
        stream.write_all(&[head.as_bytes(), b"\x81\x82\0\0\0\0hi"].concat()).await.unwrap();
        let got = read_until(&mut stream, |got| got.contains("\r\n\r\n") && got.ends_with("hi")).await;
        assert!(got.starts_with("HTTP/1.1 101 ") && got.contains("upgrade: websocket"), "{got}");
        let seen = &app.seen()[0];
        assert_eq!(seen.headers["sec-websocket-key"], "dGhlIHNhbXBsZSBub25jZQ==");
        for _ in 0..3 {
            stream.write_all(b"\x81\x82\0\0\0\0yo").await.unwrap();
            read_until(&mut stream, |got| got.ends_with("yo")).await;
        }
    }
}

/// An application that says these things: one to the head of a request, the other to its body of five bytes.
async fn says(to_head: &'static str, to_body: &'static str) -> Served {
    Served::start(fresh_addr(0), move |mut stream, _| async move {
        read_until(&mut stream, |got| got.contains("\r\n\r\n")).await;
        stream.write_all(to_head.as_bytes()).await.unwrap();
        if !to_body.is_empty() {
            read_until(&mut stream, |got| got.ends_with("hello")).await;
            stream.write_all(to_body.as_bytes()).await.unwrap();
        }
        let _ = stream.read(&mut [0]).await;
    })
    .await
}

/// The application decides whether it wants the body, and the caller is asked for it only then.
#[tokio::test]
async fn the_application_says_whether_it_wants_the_body() {
    let head = "POST /a HTTP/1.1\r\nHost: catalog\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    for transport in TRANSPORTS {
        let app = says("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n", "").await;
        let pair = Pair::start(Protocol::Http1, app.address(), |o| o.http1_transport = transport).await;
        let got = send(pair.client.proxy.addresses().outbound, head.as_bytes()).await;
        assert!(got.starts_with("HTTP/1.1 417 "), "{transport:?}: {got}");

        let app = says("HTTP/1.1 100 Continue\r\n\r\n", OK).await;
        let pair = Pair::start(Protocol::Http1, app.address(), |o| o.http1_transport = transport).await;
        let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let got = read_until(&mut stream, |got| got.ends_with("\r\n\r\n")).await;
        assert!(got.starts_with("HTTP/1.1 100 Continue\r\n"), "{transport:?}: {got}");
        stream.write_all(b"hello").await.unwrap();
        read_until(&mut stream, |got| got.starts_with("HTTP/1.1 200 ") && got.ends_with("ok")).await;
    }
}

async fn post(to: SocketAddr, pieces: &[&str], pause: Duration) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = "POST /a HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in pieces {
        if stream.write_all(piece.as_bytes()).await.is_err() {
            break;
        }
        tokio::time::sleep(pause).await;
    }
    String::from_utf8_lossy(&crate::raw::answer(&mut stream).await).into_owned()
}

/// A body may be slow, but not silent; once a response has begun it may be that too.
#[tokio::test]
async fn a_silent_body_ends() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let mesh = crate::mesh::Mesh::start().await;
    let service = mesh_core::name::ServicePort::new("shop", "catalog", 8080);
    let mut config = mesh.workload("server");
    crate::mesh::serves(&mut config, 8080, Protocol::Http1, app.address(), &service);
    let server = mesh.proxy(config, |o| o.body_idle = "1s".to_owned()).await;
    let inbound = (server.ip(), 8080).into();
    let chunk = "1\r\nx\r\n";
    let slow = post(inbound, &[chunk, chunk, chunk, chunk, "0\r\n\r\n"], Duration::from_millis(600)).await;
    assert!(slow.contains("\"body_bytes\":4"), "{slow}");
    let silent = post(inbound, &[chunk], Duration::ZERO).await;
    assert!(silent.starts_with("HTTP/1.1 408 "), "{silent}");
    server.counted(&["reason=\"REQUEST_STALLED\"", "status=\"4xx\""], 1).await;

    let mut stream = TcpStream::connect::<SocketAddr>(inbound).await.unwrap();
    let head = "POST /a?echo HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut stream, |got| got.contains("1\r\nx\r\n")).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    stream.write_all(b"1\r\ny\r\n0\r\n\r\n").await.unwrap();
    read_until(&mut stream, |got| got.ends_with("1\r\ny\r\n0\r\n\r\n")).await;
}
