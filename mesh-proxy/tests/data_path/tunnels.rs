//! Connections that stopped speaking HTTP: policy, drain and limits hold for them as for others.

use std::time::Duration;

use mesh_core::{policy::DefaultAction, protocol::Protocol};
use mesh_testkit::{
    app::HttpApp,
    net::{PATIENCE, eventually, fresh_addr},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{endings::drop_the_root, mesh::Pair};

/// Asks for an upgrade and gets it.
pub(crate) async fn upgraded(pair: &Pair) -> TcpStream {
    let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
    let head = "GET /chat HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0);
    }
    assert!(got.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&got));
    stream
}

pub(crate) async fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn a_policy_that_denies_ends_a_tunnel() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut stream = upgraded(&pair).await;
    echoes(&mut stream).await;
    let mut config = pair.server.config.clone();
    // A change that still allows it leaves it alone.
    config.inbound[0].name = "renamed".to_owned();
    pair.mesh.publish(&config);
    tokio::time::sleep(Duration::from_millis(200)).await;
    echoes(&mut stream).await;
    config.policy.default_action = DefaultAction::Deny;
    pair.mesh.publish(&config);
    let mut rest = Vec::new();
    // Closed or reset.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the tunnel ends");
    assert!(rest.is_empty());
    pair.server.counted(&["reason=\"AUTHZ_DENIED\""], 1).await;
    assert_eq!(pair.server.metric("mesh_request_bytes_total", &[]).await, 10);
}

/// Trust that ends ends tunnels too, ten seconds later.
#[tokio::test]
async fn a_tunnel_under_a_dropped_root_is_cut() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut stream = upgraded(&pair).await;
    drop_the_root(&pair);
    tokio::time::sleep(Duration::from_millis(500)).await;
    echoes(&mut stream).await;
    let mut rest = Vec::new();
    // Closed or reset.
    let _ = timeout(Duration::from_secs(30), stream.read_to_end(&mut rest)).await.expect("the tunnel ends");
    pair.server.counted(&["reason=\"PEER_NOT_TRUSTED\""], 1).await;
}

#[tokio::test]
async fn a_draining_proxy_waits_for_its_tunnels() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut stream = upgraded(&pair).await;
    // The connection stays counted when it is no longer HTTP, once.
    for side in [&pair.client, &pair.server] {
        let one = || async { (side.metric("mesh_connections_active", &[]).await == 1).then_some(()) };
        eventually(PATIENCE, "one connection is open", one).await;
    }
    let ending = [tokio::spawn(pair.client.proxy.shutdown()), tokio::spawn(pair.server.proxy.shutdown())];
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(ending.iter().all(|proxy| !proxy.is_finished()), "they wait for the tunnel");
    echoes(&mut stream).await;
    drop(stream);
    for proxy in ending {
        timeout(Duration::from_secs(3), proxy).await.expect("ends with its last tunnel").unwrap();
    }
}

/// The drain's deadline holds for tunnels too.
#[tokio::test]
async fn a_drain_ends_tunnels_in_time() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |o| o.drain_timeout = "300ms".to_owned()).await;
    let mut stream = upgraded(&pair).await;
    timeout(Duration::from_secs(3), pair.client.proxy.shutdown()).await.expect("ends at its deadline");
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the tunnel ends");
}
