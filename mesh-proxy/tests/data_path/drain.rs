//! A proxy that was asked to end: inbound finishes, outbound serves until the application is done with it.

use std::time::{Duration, Instant};

use http::{StatusCode, header::CONNECTION};
use mesh_core::protocol::Protocol;
use mesh_proxy::config::Options;
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    client::Connection,
    net::{PATIENCE, eventually, fresh_addr, until},
    tls,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::mesh::{Pair, reason, upstream};

/// What the health port of a proxy says.
async fn health(address: std::net::SocketAddr, path: &str) -> (StatusCode, String) {
    let mut connection = Connection::http1(TcpStream::connect(address).await.unwrap()).await;
    let response = connection.get(path, "localhost").await.unwrap();
    (response.status(), String::from_utf8_lossy(response.body()).into_owned())
}

async fn echoes(stream: &mut TcpStream) {
    let mut echoed = [0; 5];
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello");
}

#[tokio::test]
async fn outbound_serves_until_the_application_is_gone() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let web = HttpApp::start("catalog", fresh_addr(0)).await;
    let declare = |client: &mut _, _: &mut _| upstream(client, 17_000, "catalog:8080");
    let patient = |o: &mut Options| o.drain_timeout = "60s".to_owned();
    let bytes = Pair::with(Protocol::Opaque, app.address(), patient, declare).await;
    let web = Pair::start(Protocol::Http1, web.address(), patient).await;
    let (ip, at) = (bytes.client.ip(), web.client.proxy.addresses());
    let mut stream = TcpStream::connect((ip, 17_000)).await.unwrap();
    echoes(&mut stream).await;
    let mut kept = web.client.http1().await;
    assert_eq!(kept.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
    let ending = tokio::spawn(web.client.proxy.shutdown());
    let raw = tokio::spawn(bytes.client.proxy.shutdown());
    let draining = || async { (health(at.health, "/ready").await.0 == 503).then_some(()) };
    eventually(PATIENCE, "it is not ready any more", draining).await;
    assert_eq!(health(at.health, "/ready").await.1, "draining\n");
    assert_eq!(health(at.health, "/live").await.0, StatusCode::OK);
    // Longer than the time of quiet after which an application counts as gone.
    for _ in 0..15 {
        let response = kept.get("/", "catalog").await.unwrap();
        assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None));
        assert!(!response.headers().contains_key(CONNECTION), "{response:?}");
        let mut fresh = Connection::http1(TcpStream::connect(at.outbound).await.unwrap()).await;
        assert_eq!(fresh.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
        echoes(&mut stream).await;
        let mut another = TcpStream::connect((ip, 17_000)).await.unwrap();
        echoes(&mut another).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!ending.is_finished() && !raw.is_finished());
    drop((kept, stream));
    timeout(Duration::from_secs(20), ending).await.expect("ends when the application is gone").unwrap();
    timeout(Duration::from_secs(20), raw).await.expect("ends when the application is gone").unwrap();
    assert!(TcpStream::connect(at.outbound).await.is_err());
}

/// An application that never goes: it is told in time, and loses nothing.
#[tokio::test]
async fn an_application_that_stays_is_told_at_the_deadline() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |o| o.drain_timeout = "4s".to_owned()).await;
    let mut busy = pair.client.http1().await;
    let mut idle = pair.client.http1().await;
    assert_eq!(idle.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
    let begin = Instant::now();
    let ending = tokio::spawn(pair.client.proxy.shutdown());
    loop {
        let response = busy.get("/", "catalog").await.unwrap();
        assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None));
        if response.headers().get(CONNECTION).is_some_and(|value| value == "close") {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "it is not told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(begin.elapsed() > Duration::from_millis(2_900), "told after {:?}", begin.elapsed());
    timeout(PATIENCE, ending).await.expect("ends").unwrap();
    assert!(idle.get("/", "catalog").await.is_err(), "idle connections are closed");
}

/// Peers hear at once that they are to go, by HTTP/1 with the next response, by HTTP/2 with GOAWAY; nothing is lost.
#[tokio::test]
async fn peers_are_told_at_once() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let svid = pair.mesh.ca.svid("shop", "client");
    let to = (pair.server.ip(), 8080).into();
    let dial = async |alpn: &[u8]| {
        tls::connect(to, "server", tls::credulous_client(Some(&svid), &[alpn])).await.unwrap()
    };
    let mut http1 = Connection::http1(dial(b"mesh1-h1").await).await;
    let mut http2 = Connection::http2(dial(b"mesh1-h1h2").await).await;
    // Accepted, and silent so far: what it is about to say still counts.
    let silent = TcpStream::connect(to).await.unwrap();
    let mut first = http1.get("/", "catalog").await.unwrap();
    assert!(!first.headers().contains_key(CONNECTION));
    first = http2.get("/", "catalog").await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    let active = || async {
        (pair.server.metric("mesh_connections_active", &["direction=\"inbound\""]).await == 3).then_some(())
    };
    eventually(PATIENCE, "all are accepted", active).await;
    let begin = Instant::now();
    let health_at = pair.server.proxy.addresses().health;
    let running = tokio::spawn(async move { http1.get("/?delay_ms=1500", "catalog").await.unwrap() });
    until("the request has arrived", || app.requests() == 3).await;
    let ending = tokio::spawn(pair.server.proxy.shutdown());
    let draining = || async { (health(health_at, "/ready").await.0 == 503).then_some(()) };
    eventually(PATIENCE, "it drains", draining).await;
    let late = Connection::http1(silent).await.get("/", "catalog").await.unwrap();
    for last in [late, running.await.unwrap()] {
        assert_eq!(last.status(), StatusCode::OK);
        assert_eq!(last.headers().get(CONNECTION).unwrap(), "close");
    }
    let refused = || async { TcpStream::connect(to).await.is_err().then_some(()) };
    eventually(PATIENCE, "new connections are refused", refused).await;
    let until_closed = async { while http2.get("/", "catalog").await.is_ok() {} };
    timeout(PATIENCE, until_closed).await.expect("HTTP/2 is told to go");
    timeout(PATIENCE, ending).await.expect("ends").unwrap();
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

/// Bytes that come in are carried to their end.
#[tokio::test]
async fn opaque_connections_finish() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let declare = |client: &mut _, _: &mut _| upstream(client, 17_000, "catalog:8080");
    let pair = Pair::with(Protocol::Opaque, app.address(), |_| (), declare).await;
    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    echoes(&mut stream).await;
    let ending = tokio::spawn(pair.server.proxy.shutdown());
    let inbound = (pair.server.config.address.unwrap(), 8080);
    let refused = || async { TcpStream::connect(inbound).await.is_err().then_some(()) };
    eventually(PATIENCE, "new connections are refused", refused).await;
    echoes(&mut stream).await;
    assert!(!ending.is_finished());
    drop(stream);
    timeout(PATIENCE, ending).await.expect("ends with its last connection").unwrap();
    until("the application sees the end", || app.open_connections() == 0).await;
}
