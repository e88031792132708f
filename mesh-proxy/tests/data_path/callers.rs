//! Callers of HTTP/1: what is said before an answer, what is not read, and how their connections end.

use std::{net::SocketAddr, time::Duration};

use mesh_core::{name::ServicePort, protocol::Protocol};
use mesh_testkit::{
    app::HttpApp,
    net::{PATIENCE, fresh_addr, until},
    serve::Served,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    mesh::{Mesh, Pair, Side, endpoint, serves},
    raw::Backend,
    redirect::redirected,
};

/// Sends bytes, and reads until the connection ends, or until the answer ends with `until`.
async fn ask(to: SocketAddr, bytes: &[u8], until: &str) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    read(&mut stream, until).await
}

async fn read(stream: &mut TcpStream, until: &str) -> String {
    let mut got = Vec::new();
    while until.is_empty() || !got.ends_with(until.as_bytes()) {
        match timeout(PATIENCE, stream.read_buf(&mut got)).await.unwrap() {
            Ok(count) if count > 0 => {}
            _ => break,
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// A server of the mesh whose proxy is asked directly.
async fn server(head_timeout: &str) -> (Mesh, Side, HttpApp) {
    let (mesh, app) = (Mesh::start().await, HttpApp::start("catalog", fresh_addr(0)).await);
    let mut config = mesh.workload("server");
    serves(&mut config, 8080, Protocol::Http1, app.address(), &ServicePort::new("shop", "catalog", 8080));
    let side = mesh.proxy(config, |o| o.head_timeout = head_timeout.to_owned()).await;
    (mesh, side, app)
}

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nmesh-reason: X\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n\
                     HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn what_is_said_before_an_answer_arrives() {
    let backend = Backend::answering(HINTS).await;
    let pair = Pair::start(Protocol::Http1, backend.address(), |_| ()).await;
    let outbound = pair.client.proxy.addresses().outbound;
    let got = ask(outbound, b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n", "ok").await;
    let (hints, answer) = got.split_once("\r\n\r\n").unwrap();
    assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a>");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{got}");
    let old = ask(outbound, b"GET / HTTP/1.0\r\nHost: catalog\r\n\r\n", "ok").await;
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n"), "{old}");
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_an_error() {
    let backend =
        Backend::answering("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
            .await;
    let pair = Pair::start(Protocol::Http1, backend.address(), |_| ()).await;
    let outbound = pair.client.proxy.addresses().outbound;
    let got = ask(outbound, b"GET / HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n", "").await;
    assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("UPSTREAM_PROTOCOL_ERROR"), "{got}");
}

/// Passed on without the field that names it, a coding would be taken for the content.
#[tokio::test]
async fn a_coding_that_is_not_undone_is_an_error() {
    let backend =
        Backend::answering("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            .await;
    let pair = Pair::start(Protocol::Http1, backend.address(), |_| ()).await;
    let outbound = pair.client.proxy.addresses().outbound;
    let got = ask(outbound, b"GET / HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n", "").await;
    assert!(got.starts_with("HTTP/1.1 502 ") && got.contains("UPSTREAM_PROTOCOL_ERROR"), "{got}");
}

#[tokio::test]
async fn a_head_that_stalls_is_named_and_idleness_is_not() {
    let (_mesh, server, _app) = server("1s").await;
    let to = (server.ip(), 8080).into();
    let got = ask(to, b"GET / HTTP/1.1\r\nHo", "").await;
    assert!(got.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{got}");
    assert_eq!(server.metric("mesh_refused_total", &["reason=\"REQUEST_STALLED\""]).await, 1);
    let mut idle = TcpStream::connect::<SocketAddr>(to).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n";
    for _ in 0..3 {
        idle.write_all(request).await.unwrap();
        assert!(read(&mut idle, "}").await.starts_with("HTTP/1.1 200 OK\r\n"));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(read(&mut idle, "").await, "", "it ends without a word");
    assert_eq!(server.metric("mesh_refused_total", &["reason=\"REQUEST_STALLED\""]).await, 1);
}

/// Closed with bytes unread, a connection can lose what was written to it last.
#[tokio::test]
async fn an_answer_survives_what_was_not_read() {
    let (_mesh, server, _app) = server("90s").await;
    let pair = Pair::start(Protocol::Http1, fresh_addr(1), |_| ()).await;
    for to in [pair.client.proxy.addresses().outbound, (server.ip(), 8080).into()] {
        let body = "x".repeat(150_000);
        let request = format!("POST / HTTP/1.1\r\nHost: no such\r\nContent-Length: 150000\r\n\r\n{body}");
        let got = ask(to, request.as_bytes(), "").await;
        assert!(got.starts_with("HTTP/1.1 400 Bad Request\r\n") && got.ends_with('\n'), "{got}");
    }
}

/// What has come of a body that nobody wants is passed over, and the next request is served.
#[tokio::test]
async fn a_small_body_that_nobody_wants_harms_nobody() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
    for framed in
        ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    {
        let refused = format!("POST / HTTP/1.1\r\nHost: nosuch.nowhere\r\n{framed}");
        stream.write_all(refused.as_bytes()).await.unwrap();
        let got = read(&mut stream, "\n").await;
        assert!(got.contains("mesh-reason: "), "{got}");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n").await.unwrap();
        assert!(read(&mut stream, "}").await.starts_with("HTTP/1.1 200 OK\r\n"), "{framed}");
    }
}

/// Who has its answer and never sends what it announced keeps neither its connection nor the application's.
#[tokio::test]
async fn a_body_that_never_comes_holds_nothing_once_it_is_answered() {
    let app = Served::start(fresh_addr(0), |mut stream, _| async move {
        let (mut head, answer) = (Vec::new(), b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno");
        while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|count| count > 0) {}
        let _ = stream.write_all(answer).await;
        let _ = stream.read_to_end(&mut head).await;
    })
    .await;
    let mesh = Mesh::start().await;
    let mut config = mesh.workload("server");
    serves(&mut config, 8080, Protocol::Http1, app.address(), &ServicePort::new("shop", "catalog", 8080));
    let server = mesh.proxy(config, |o| o.body_idle = "1s".to_owned()).await;
    let mut stream = TcpStream::connect((server.ip(), 8080)).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 10\r\n\r\n").await.unwrap();
    assert!(read(&mut stream, "no").await.starts_with("HTTP/1.1 413 "));
    // What comes puts it off.
    for byte in [b"a", b"b", b"c"] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.write_all(byte).await.unwrap();
    }
    assert_eq!(app.open(), 1);
    assert_eq!(read(&mut stream, "").await, "", "it ends");
    until("the application's ends too", || app.open() == 0).await;
}

/// Where the address says where a request goes, HTTP/1.0 needs no host; what is forwarded has one.
#[test]
fn http_1_0_needs_no_host_where_connections_are_redirected() {
    redirected("callers::http_1_0_needs_no_host_where_connections_are_redirected", || async {
        let (mesh, app) = (Mesh::start().await, HttpApp::start("catalog", fresh_addr(0)).await);
        let service = ServicePort::new("shop", "catalog", 8080);
        let mut config = mesh.workload("server");
        serves(&mut config, 8080, Protocol::Http1, app.address(), &service);
        let server = mesh.proxy(config, |_| ()).await;
        let _client = mesh.transparent(mesh.workload("client"), |_| ()).await;
        let address = SocketAddr::from(([10, 96, 0, 7], 8080));
        let endpoints = [endpoint(&server.config, 8080, Protocol::Http1)];
        mesh.service_at(address, &service, Protocol::Http1, &endpoints);
        let got = ask(address, b"GET / HTTP/1.0\r\n\r\n", "").await;
        assert!(got.starts_with("HTTP/1.0 200 OK\r\n"), "{got}");
        assert_eq!(app.seen()[0].headers["host"], "10.96.0.7:8080");
        let newer = ask(address, b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "").await;
        assert!(newer.starts_with("HTTP/1.1 400 "), "{newer}");
    });
}
