//! The relay passes bytes on, records them, and tells TLS from plaintext.

use std::time::Instant;

use super::*;
use crate::{
    app::{HttpApp, TcpApp},
    ca::TestCa,
    client::Connection,
    net::{fresh_addr, until},
    records::{X25519_MLKEM768, server_hello},
    tls,
};

async fn relay_to(target: SocketAddr) -> (Relay, TcpStream) {
    let relay = Relay::start(fresh_addr(0), target).await;
    let stream = TcpStream::connect(relay.address()).await.expect("connects");
    (relay, stream)
}

#[tokio::test]
async fn passes_and_records() {
    let app = TcpApp::speaking_first(fresh_addr(0), b"hi ").await;
    let (relay, mut stream) = relay_to(app.address()).await;
    stream.write_all(b"abc").await.expect("writes");
    stream.shutdown().await.expect("half closes");
    let mut all = String::new();
    stream.read_to_string(&mut all).await.expect("reads");
    assert_eq!(all, "hi abc");
    let tapes = relay.tapes();
    assert_eq!((tapes.len(), tapes[0].to_server.as_slice()), (1, b"abc".as_slice()));
    assert_eq!(tapes[0].to_client, b"hi abc");
}

#[tokio::test]
async fn misbehaves_as_told() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let (relay, mut stream) = relay_to(app.address()).await;
    relay.delay(Duration::from_millis(30));
    let begin = Instant::now();
    stream.write_all(b"a").await.expect("writes");
    assert_eq!(stream.read_u8().await.expect("reads"), b'a');
    assert!(begin.elapsed() >= Duration::from_millis(60), "held on both ways");
    relay.close_all();
    assert!(stream.read_u8().await.is_err());
    until("the app's side is closed too", || app.open_connections() == 0).await;
    relay.refuse(true);
    let mut stream = TcpStream::connect(relay.address()).await.expect("connects");
    assert!(stream.read_u8().await.is_err());
    relay.refuse(false);
    let other = TcpApp::speaking_first(fresh_addr(0), b"z").await;
    relay.retarget(other.address());
    let mut stream = TcpStream::connect(relay.address()).await.expect("connects");
    assert_eq!(stream.read_u8().await.expect("reads"), b'z');
}

#[tokio::test]
async fn tells_tls_from_plaintext() {
    let ca = TestCa::new("cluster.local");
    let app = HttpApp::start_tls("web", fresh_addr(0), &ca.web("app.example")).await;
    let relay = Relay::start(fresh_addr(0), app.address()).await;
    let config = tls::web_client(&ca, &[b"h2"]);
    let stream = tls::connect(relay.address(), "app.example", config).await.expect("shakes hands");
    Connection::http2(stream).await.get("/?bytes=100000", "app.example").await.expect("answers");
    relay.assert_only_tls13(X25519_MLKEM768);
    let hello = server_hello(&relay.tapes()[0].to_client).expect("a hello");
    assert_eq!((hello.version, hello.group), (Some(0x0304), Some(0x11ec)));
    let tape = &relay.tapes()[0];
    let wrong =
        crate::records::only_tls13(&tape.to_server, &tape.to_client, 0x001d).expect_err("another group");
    assert!(wrong.contains("0x1d"), "{wrong}");

    let plain = HttpApp::start("plain", fresh_addr(0)).await;
    let (relay, stream) = relay_to(plain.address()).await;
    Connection::http1(stream).await.get("/", "app").await.expect("answers");
    let tape = &relay.tapes()[0];
    let wrong = crate::records::only_tls13(&tape.to_server, &tape.to_client, 0x11ec).expect_err("plaintext");
    assert!(wrong.contains("from the client: byte 0"), "{wrong}");
}
