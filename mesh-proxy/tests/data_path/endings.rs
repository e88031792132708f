//! How connections end: the proxy drains, a root is dropped, policy changes at the worst moment.

use std::time::{Duration, Instant};

use http::StatusCode;
use mesh_core::{
    addr::EndpointAddr, config::TrustBundle, name::ServicePort, policy::DefaultAction, protocol::Protocol,
    resource::ResourceName,
};
use mesh_proto::convert::ResourceBody;
use mesh_proxy::config::Http1Transport;
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    ca::TestCa,
    net::{PATIENCE, eventually, fresh_addr, until},
    tls,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::mesh::{Mesh, Pair, endpoint, reason, upstream};

#[tokio::test]
async fn a_draining_proxy_refuses_connections_while_it_finishes() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut connection = pair.client.http1().await;
    let slow = tokio::spawn(async move { connection.get("/?delay_ms=2000", "catalog").await.unwrap() });
    until("the request has arrived", || app.requests() == 1).await;
    let inbound = (pair.server.ip(), 8080);
    let shutdown = tokio::spawn(pair.server.proxy.shutdown());
    let refused = || async { TcpStream::connect(inbound).await.is_err().then_some(()) };
    eventually(PATIENCE, "new connections are refused", refused).await;
    assert!(!slow.is_finished() && !shutdown.is_finished(), "while a request runs");
    let response = slow.await.unwrap();
    assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None));
    shutdown.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_never_speaks_does_not_hold_the_drain() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
    let svid = pair.mesh.ca.svid("shop", "client");
    let config = tls::credulous_client(Some(&svid), &[b"mesh1-h2"]);
    let mut silent = tls::connect((pair.server.ip(), 8080).into(), "server", config).await.unwrap();
    let active = ["direction=\"inbound\""];
    let taken =
        || async { (pair.server.metric("mesh_connections_active", &active).await == 1).then_some(()) };
    eventually(PATIENCE, "the connection is taken", taken).await;
    // Half a preface is none.
    silent.write_all(b"PRI * HTTP").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    pair.server.proxy.shutdown().await;
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

/// Roots of another mesh alone, for the server.
pub(crate) fn drop_the_root(pair: &Pair) {
    let foreign = TestCa::new("cluster.local").bundle();
    let bundle = TrustBundle { roots: foreign.roots, ..pair.mesh.ca.bundle() };
    let body = ResourceBody::TrustBundle(bundle);
    pair.mesh.controller.set_for(&pair.server.config.workload, ResourceName::TrustBundle, body);
}

#[tokio::test]
async fn http_under_a_dropped_root_is_told_to_end() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut connection = pair.client.http1().await;
    assert_eq!(connection.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
    let slow = tokio::spawn(async move { connection.get("/?delay_ms=1500", "catalog").await.unwrap() });
    until("the request has arrived", || app.requests() == 2).await;
    drop_the_root(&pair);
    let labels = ["direction=\"inbound\"", "reason=\"PEER_NOT_TRUSTED\""];
    let counted = || async { (pair.server.metric("mesh_refused_total", &labels).await == 1).then_some(()) };
    eventually(PATIENCE, "the end of trust is counted", counted).await;
    assert!(!slow.is_finished(), "what runs goes on");
    assert_eq!(slow.await.unwrap().status(), StatusCode::OK);
    let none = || async {
        (pair.server.metric("mesh_connections_active", &["direction=\"inbound\""]).await == 0).then_some(())
    };
    eventually(PATIENCE, "the connection ends", none).await;
}

/// What takes for ever is cut after ten seconds.
#[tokio::test]
async fn a_request_under_a_dropped_root_is_bounded() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    for transport in [Http1Transport::H1, Http1Transport::H1OverH2] {
        let pair = Pair::start(Protocol::Http1, app.address(), |o| o.http1_transport = transport).await;
        let mut connection = pair.client.http1().await;
        let before = app.requests();
        let slow = tokio::spawn(async move { connection.get("/?delay_ms=100000", "catalog").await.unwrap() });
        until("the request has arrived", || app.requests() == before + 1).await;
        drop_the_root(&pair);
        let response = tokio::time::timeout(Duration::from_secs(30), slow).await.expect("it is cut").unwrap();
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY, "{transport:?}");
    }
}

#[tokio::test]
async fn bytes_under_a_dropped_root_are_cut() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let declare = |client: &mut _, _: &mut _| upstream(client, 17_000, "catalog:8080");
    let pair = Pair::with(Protocol::Opaque, app.address(), |_| (), declare).await;
    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    let mut echoed = [0; 5];
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut echoed).await.unwrap();
    drop_the_root(&pair);
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "it is not cut");
    pair.server.counted(&["reason=\"PEER_NOT_TRUSTED\""], 1).await;
    until("the application sees the end", || app.open_connections() == 0).await;
}

/// The application's queue is full, so that dialling it takes long; meanwhile policy changes.
#[tokio::test]
async fn a_change_of_policy_while_dialling_is_seen() {
    let app = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    app.bind(&fresh_addr(0).into()).unwrap();
    app.listen(0).unwrap();
    let app: std::net::TcpListener = app.into();
    let address = app.local_addr().unwrap();
    let first = TcpStream::connect(address).await.unwrap();
    let declare = |client: &mut _, _: &mut _| upstream(client, 17_000, "catalog:8080");
    let pair = Pair::with(Protocol::Opaque, address, |_| (), declare).await;
    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    let dialling = || async { (pair.server.metric("mesh_connections_total", &[]).await == 1).then_some(()) };
    eventually(PATIENCE, "the server dials", dialling).await;
    let mut config = pair.server.config.clone();
    config.policy.default_action = DefaultAction::Deny;
    let answers = pair.mesh.controller.answers().len();
    pair.mesh.publish(&config);
    until("the server has the new policy", || pair.mesh.controller.answers().len() > answers).await;
    app.set_nonblocking(true).unwrap();
    drop(app.accept().unwrap());
    assert!(app.accept().is_err(), "the server still dials");
    drop(first);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    pair.server.counted(&["reason=\"AUTHZ_DENIED\""], 1).await;
    assert_eq!(pair.client.requests(&["reason=\"APP_UNAVAILABLE\""]).await, 0);
}

#[tokio::test]
async fn the_only_endpoint_is_dialled_once() {
    let mesh = Mesh::start().await;
    let bad = TcpListener::bind(fresh_addr(0)).await.unwrap();
    let service = ServicePort::new("shop", "catalog", 8080);
    let mut dead = endpoint(&mesh.workload("server"), 8080, Protocol::Opaque);
    dead.address = EndpointAddr(bad.local_addr().unwrap());
    mesh.service(&service, Protocol::Opaque, &[dead]);
    let mut config = mesh.workload("client");
    upstream(&mut config, 17_000, "catalog:8080");
    let client = mesh.proxy(config, |_| ()).await;
    let mut stream = TcpStream::connect((client.ip(), 17_000)).await.unwrap();
    let (mut dialled, mut byte) = (0, [0]);
    let accepting = async {
        loop {
            drop(bad.accept().await.unwrap());
            dialled += 1;
        }
    };
    tokio::select! {
        () = accepting => {}
        // Closed or reset.
        _ = stream.read(&mut byte) => {}
    }
    assert_eq!(dialled, 1);
    client.counted(&["reason=\"TLS_HANDSHAKE_FAILED\""], 1).await;
}
