//! Garbage, half requests, large heads, and how a proxy ends.

use std::time::Duration;

use http::StatusCode;
use mesh_core::{name::ServicePort, protocol::Protocol, reason::Reason};
use mesh_proxy::config::Http1Transport;
use mesh_testkit::{
    app::HttpApp,
    net::{PATIENCE, eventually, fresh_addr, until},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::mesh::{Mesh, Pair, Side, endpoint, reason, serves};

async fn pair() -> (HttpApp, Pair) {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    (app, pair)
}

async fn send(to: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // It may be refused before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got).await;
    String::from_utf8_lossy(&got).into_owned()
}

async fn refused(side: &Side, labels: &[&str], count: u64) {
    let enough = || async { (side.metric("mesh_refused_total", labels).await >= count).then_some(()) };
    eventually(PATIENCE, &format!("refused {labels:?}"), enough).await;
}

#[tokio::test]
async fn garbage_is_refused_and_harms_nobody() {
    let (app, pair) = pair().await;
    let (inbound, outbound) = ((pair.server.ip(), 8080).into(), pair.client.proxy.addresses().outbound);
    let head = |fields: &str| format!("GET / HTTP/1.1\r\nHost: catalog\r\n{fields}\r\n\r\n").into_bytes();
    let large = head(&format!("x-large: {}", "y".repeat(100_000)));
    let many = head(&(0..500).map(|n| format!("x-{n}: 1")).collect::<Vec<_>>().join("\r\n"));
    let smuggled = head("Content-Length: 4\r\nTransfer-Encoding: chunked");
    let twice = head("Content-Length: 4\r\nContent-Length: 5");
    let folded = head("x-folded: a\r\n b");
    for to in [inbound, outbound] {
        for (name, bytes, status) in [
            ("noise", b"\x00\x01\x02\x03 nothing at all\r\n\r\n".as_slice(), "400"),
            ("large head", &large, "431"),
            ("many fields", &many, "431"),
            ("two lengths", &twice, "400"),
            ("folded field", &folded, "400"),
        ] {
            let got = send(to, bytes).await;
            assert!(
                got.is_empty() || got.starts_with(&format!("HTTP/1.1 {status}")),
                "{name} to {to}: {got}"
            );
        }
        for half in
            [b"GET / HT".as_slice(), b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage after"]
        {
            send(to, half).await;
        }
    }
    // Ambiguous framing is not forwarded as it is: the length is dropped, or the request is refused.
    send(outbound, &smuggled).await;
    for seen in app.seen() {
        assert!(!seen.headers.contains_key("content-length"), "{seen:?}");
    }
    refused(&pair.server, &["direction=\"inbound\"", "reason=\"BAD_REQUEST\""], 1).await;
    refused(&pair.client, &["direction=\"outbound\"", "reason=\"LIMIT_EXCEEDED\""], 1).await;
    assert_eq!(pair.client.http1().await.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_draining_proxy_finishes_what_runs() {
    let (_app, pair) = pair().await;
    let mut busy = pair.client.http1().await;
    let slow = tokio::spawn(async move { busy.get("/?delay_ms=400", "catalog").await.unwrap() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let outbound = pair.client.proxy.addresses().outbound;
    let begin = std::time::Instant::now();
    pair.client.proxy.shutdown().await;
    let response = slow.await.unwrap();
    assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None));
    assert!(begin.elapsed() < Duration::from_secs(3), "ended as soon as nothing ran: {:?}", begin.elapsed());
    assert!(TcpStream::connect(outbound).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_draining_server_loses_no_request() {
    let (app, pair) = pair().await;
    let mut connection = pair.client.http1().await;
    let slow = tokio::spawn(async move { connection.get("/?delay_ms=400", "catalog").await.unwrap() });
    until("the request has arrived", || app.requests() == 1).await;
    pair.server.proxy.shutdown().await;
    assert_eq!(slow.await.unwrap().status(), StatusCode::OK);
    let response = pair.client.http1().await.get("/", "catalog").await.unwrap();
    assert_eq!(reason(&response), Some(Reason::UpstreamConnectFailed));
}

#[tokio::test]
async fn a_caller_that_leaves_is_counted_on_both_sides() {
    let (app, pair) = pair().await;
    let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
    stream.write_all(b"GET /?delay_ms=5000 HTTP/1.1\r\nHost: catalog\r\n\r\n").await.unwrap();
    until("the request has arrived", || app.requests() == 1).await;
    drop(stream);
    pair.client.counted(&["reason=\"CLIENT_DISCONNECTED\""], 1).await;
    pair.server.counted(&["reason=\"CLIENT_DISCONNECTED\""], 1).await;
    until("the application sees the end", || app.open_connections() == 0).await;
}

/// An endpoint is taken away and its proxy ends, while requests run: none fails.
#[tokio::test]
async fn a_rolling_restart_loses_nothing() {
    for transport in [Http1Transport::H1, Http1Transport::H1OverH2] {
        let mesh = Mesh::start().await;
        let service = ServicePort::new("shop", "catalog", 8080);
        let (mut apps, mut sides) = (Vec::new(), Vec::new());
        for at in 0..2 {
            let app = HttpApp::start("catalog", fresh_addr(0)).await;
            let mut config = mesh.workload(&format!("catalog-{at}"));
            serves(&mut config, 8080, Protocol::Http1, app.address(), &service);
            sides.push(mesh.proxy(config, |_| ()).await);
            apps.push(app);
        }
        let of = |at: usize, sides: &[Side]| endpoint(&sides[at].config, 8080, Protocol::Http1);
        mesh.service(&service, Protocol::Http1, &[of(0, &sides), of(1, &sides)]);
        let client = mesh.proxy(mesh.workload("client"), |o| o.http1_transport = transport).await;
        let mut load = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let mut connection = client.http1().await;
            load.spawn(async move {
                for n in 0..400 {
                    let response = connection.get("/", "catalog").await.unwrap();
                    assert_eq!(response.status(), StatusCode::OK, "request {n}: {response:?}");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        until("both serve", || apps.iter().all(|app| app.requests() > 20)).await;
        mesh.endpoints(&service, &[of(1, &sides)]);
        sides.remove(0).proxy.shutdown().await;
        while let Some(task) = load.join_next().await {
            task.unwrap();
        }
        assert_eq!(apps.iter().map(HttpApp::requests).sum::<u64>(), 8 * 400);
    }
}
