//! Admin, health and the socket of a running proxy that has no controller.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
    task::yield_now,
    time::timeout,
};

use super::room::MAX;

use crate::{Ask, Config, Proxy, app::tests::config};

/// Sends one request; returns status and body.
async fn ask(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> (u16, String) {
    let request = format!("{request} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    ask(TcpStream::connect(address).await.unwrap(), &format!("GET {path}")).await
}

#[tokio::test]
async fn a_proxy_without_controller_lives_is_not_ready_and_says_why() {
    let proxy = Proxy::start(config("127.66.2.1")).await.unwrap();
    let at = proxy.addresses();
    assert_eq!(get(at.health, "/live").await, (200, "live\n".to_owned()));
    let (status, body) = get(at.health, "/ready").await;
    assert_eq!(status, 503);
    assert!(body.contains("no certificate yet from the controller at 127.0.0.1:1"), "{body}");
    assert!(body.contains("no configuration yet for workload shop/cart"), "{body}");
    let (status, body) = get(at.health, "/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("mesh_discovery_connected 0.0"), "{body}");
    proxy.shutdown().await;
    assert!(TcpStream::connect(at.health).await.is_err());
}

#[tokio::test]
async fn admin_reads_and_never_changes() {
    let proxy = Proxy::start(config("127.66.2.2")).await.unwrap();
    let at = proxy.addresses().admin;
    for path in ["/config", "/destinations", "/endpoints", "/certificates", "/edges", "/status"] {
        let (status, body) = get(at, path).await;
        assert_eq!(status, 200, "{path}");
        serde_json::from_str::<serde_json::Value>(&body).unwrap();
    }
    let status: serde_json::Value = serde_json::from_str(&get(at, "/status").await.1).unwrap();
    assert_eq!(status["listeners"][0]["role"], "outbound-http");
    let connect = || async { TcpStream::connect(at).await.unwrap() };
    assert_eq!(ask(connect().await, "POST /drain").await.0, 405);
    assert_eq!(get(at, "/drain").await.0, 404);
    let mut rebound = connect().await;
    rebound
        .write_all(b"GET /config HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut text = String::new();
    rebound.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
    proxy.shutdown().await;
}

async fn on_socket(path: &Path, request: &str) -> (u16, String) {
    ask(UnixStream::connect(path).await.unwrap(), request).await
}

#[tokio::test]
async fn the_socket_changes_state_and_is_its_owners() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let config = Config { admin_socket: Some(path.clone()), ..config("127.66.2.3") };
    let proxy = Proxy::start(config).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(on_socket(&path, "PUT /access-log?on").await.0, 200);
    let (_, status) = get(proxy.addresses().admin, "/status").await;
    assert!(status.contains("\"access_log\": true"), "{status}");
    assert_eq!(on_socket(&path, "PUT /access-log?maybe").await.0, 400);
    assert_eq!(on_socket(&path, "PUT /log-level?level=loud").await.0, 400);
    assert_eq!(on_socket(&path, "GET /drain").await.0, 404);
    assert_eq!(on_socket(&path, "POST /drain").await.0, 202);
    assert_eq!(proxy.asked().await.unwrap(), Ask::Drain);
    assert_eq!(on_socket(&path, "POST /quit").await.0, 202);
    assert_eq!(on_socket(&path, "POST /drain").await.0, 202);
    assert_eq!(proxy.asked().await.unwrap(), Ask::Quit, "a drain that is asked for late takes nothing back");
    proxy.shutdown().await;
}

#[tokio::test]
async fn half_requests_and_garbage_do_no_harm() {
    let proxy = Proxy::start(config("127.66.2.4")).await.unwrap();
    let at = proxy.addresses();
    for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET /live", b"GET  HTTP/9\r\n\r\n", &[b'x'; 40_000]] {
        let mut stream = TcpStream::connect(at.admin).await.unwrap();
        let _written = stream.write_all(bytes).await;
        drop(stream);
    }
    assert_eq!(get(at.health, "/live").await.0, 200);
    proxy.shutdown().await;
}

async fn connect_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    let stream = socket.connect(to).await.unwrap();
    // The proxy is on this thread too.
    yield_now().await;
    stream
}

#[tokio::test]
async fn whoever_asks_nothing_keeps_nobody_out() {
    let proxy = Proxy::start(config("127.66.2.5")).await.unwrap();
    let at = proxy.addresses();
    for door in [at.health, at.admin] {
        let mut idle = Vec::new();
        for n in 0..2 * MAX {
            let mut stream = connect_from(Ipv4Addr::new(127, 66, 3, 1 + (n % 200) as u8), door).await;
            if n % 2 == 0 {
                stream.write_all(b"GET /live HTTP/1.1\r\n").await.unwrap();
            }
            idle.push(stream);
        }
        let path = if door == at.health { "/live" } else { "/status" };
        let asked = timeout(Duration::from_secs(3), get(door, path)).await;
        assert_eq!(asked.expect("it is answered").0, 200);
        let ended = timeout(Duration::from_secs(3), idle[0].read(&mut [0])).await;
        assert!(!matches!(ended.expect("the oldest has ended"), Ok(1..)));
    }
    proxy.shutdown().await;
}

#[tokio::test]
async fn one_address_ends_its_own_connections() {
    let proxy = Proxy::start(config("127.66.2.6")).await.unwrap();
    let at = proxy.addresses().health;
    let [quiet, greedy] = [1, 2].map(|last| Ipv4Addr::new(127, 66, 4, last));
    let mut scraper = connect_from(quiet, at).await;
    let mut many = Vec::new();
    for _ in 0..2 * MAX {
        many.push(connect_from(greedy, at).await);
    }
    let ended = timeout(Duration::from_secs(3), many[0].read(&mut [0])).await;
    assert!(!matches!(ended.expect("the oldest has ended"), Ok(1..)));
    assert_eq!(ask(&mut scraper, "GET /live").await.0, 200);
    proxy.shutdown().await;
}
