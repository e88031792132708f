//! Connections towards a peer whose trust ends: told to end, and cut ten seconds later. What is cut is the caller's side here;
//! the callee goes on trusting.

use std::time::{Duration, Instant};

use http::StatusCode;
use mesh_core::{
    config::TrustBundle, name::ServicePort, protocol::Protocol, reason::Reason, resource::ResourceName,
};
use mesh_proto::convert::ResourceBody;
use mesh_proxy::config::Http1Transport;
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    ca::TestCa,
    net::{PATIENCE, eventually, fresh_addr, until},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::{
    mesh::{Mesh, Pair, Side, endpoint, reason, serves, upstream},
    tunnels::{echoes, upgraded},
};

/// Ten seconds, and what a busy machine takes for the rest.
const BOUND: Duration = Duration::from_secs(30);
/// Requests and bytes go on for nearly ten seconds.
const GRACE: Duration = Duration::from_secs(8);

/// Roots of another mesh alone, for the client.
fn drop_the_root(pair: &Pair) {
    let foreign = TestCa::new("cluster.local").bundle();
    let bundle = TrustBundle { roots: foreign.roots, ..pair.mesh.ca.bundle() };
    let body = ResourceBody::TrustBundle(bundle);
    pair.mesh.controller.set_for(&pair.client.config.workload, ResourceName::TrustBundle, body);
}

async fn counted(client: &Side, count: u64) {
    let labels = ["direction=\"outbound\"", "reason=\"PEER_NOT_TRUSTED\""];
    let all = || async { (client.metric("mesh_refused_total", &labels).await == count).then_some(()) };
    eventually(PATIENCE, "the end of trust is counted", all).await;
}

#[tokio::test]
async fn a_request_to_an_untrusted_peer_is_bounded() {
    tokio::join!(
        bounded(Protocol::Http1, Http1Transport::H1),
        bounded(Protocol::Http1, Http1Transport::H1OverH2),
        bounded(Protocol::Http2, Http1Transport::H1),
    );
}

async fn bounded(protocol: Protocol, transport: Http1Transport) {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(protocol, app.address(), |o| o.http1_transport = transport).await;
    let connect = || async {
        if protocol == Protocol::Http2 { pair.client.http2().await } else { pair.client.http1().await }
    };
    let (mut short, mut long) = (connect().await, connect().await);
    let short = tokio::spawn(async move { short.get("/?delay_ms=4000", "catalog").await.unwrap() });
    let long = tokio::spawn(async move { long.get("/?delay_ms=100000", "catalog").await.unwrap() });
    until("the requests have arrived", || app.requests() == 2).await;
    drop_the_root(&pair);
    let begin = Instant::now();
    let alone = protocol == Protocol::Http1 && transport == Http1Transport::H1;
    counted(&pair.client, if alone { 2 } else { 1 }).await;
    let response = short.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "what runs may end: {protocol:?} {transport:?}");
    let response = timeout(BOUND, long).await.unwrap().unwrap();
    assert_eq!(reason(&response), Some(Reason::PeerNotTrusted), "{protocol:?} {transport:?}");
    assert!(begin.elapsed() >= GRACE, "{:?}", begin.elapsed());
    until("the server's work is dropped", || app.abandoned() == 1).await;
    // No new request goes there.
    let response = connect().await.get("/", "catalog").await.unwrap();
    assert_eq!((reason(&response), app.requests()), (Some(Reason::TlsHandshakeFailed), 2));
}

#[tokio::test]
async fn idle_connections_to_an_untrusted_peer_are_closed() {
    for transport in [Http1Transport::H1, Http1Transport::H1OverH2] {
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let pair = Pair::start(Protocol::Http1, app.address(), |o| o.http1_transport = transport).await;
        assert_eq!(pair.client.http1().await.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
        let active = |count| {
            let labels = ["direction=\"inbound\""];
            let server = &pair.server;
            move || async move { (server.metric("mesh_connections_active", &labels).await == count).then_some(()) }
        };
        eventually(PATIENCE, "the connection stands", active(1)).await;
        drop_the_root(&pair);
        eventually(Duration::from_secs(8), "the connection ends", active(0)).await;
    }
}

#[tokio::test]
async fn bytes_to_an_untrusted_peer_are_cut() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let declare = |client: &mut _, _: &mut _| upstream(client, 17_000, "catalog:8080");
    let pair = Pair::with(Protocol::Opaque, app.address(), |_| (), declare).await;
    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    echoes(&mut stream).await;
    cut(&pair, &mut stream).await;
    until("the application sees the end", || app.open_connections() == 0).await;
}

#[tokio::test]
async fn a_tunnel_to_an_untrusted_peer_is_cut() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut stream = upgraded(&pair).await;
    echoes(&mut stream).await;
    cut(&pair, &mut stream).await;
}

/// Drops the root, and waits until a connection that carries bytes is cut.
async fn cut(pair: &Pair, stream: &mut TcpStream) {
    drop_the_root(pair);
    let begin = Instant::now();
    counted(&pair.client, 1).await;
    echoes(stream).await;
    let mut rest = Vec::new();
    // Closed or reset.
    let _ = timeout(BOUND, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(begin.elapsed() >= GRACE, "{:?}", begin.elapsed());
    pair.client.counted(&["reason=\"PEER_NOT_TRUSTED\""], 1).await;
}

/// A peer that does not renew its certificate, while the caller's own stays as it is.
#[tokio::test]
async fn an_expired_peer_is_called_no_longer() {
    let mut mesh = Mesh::start().await;
    let (bytes, web) = (ServicePort::new("shop", "bytes", 9000), ServicePort::new("shop", "web", 8080));
    let (tcp, app) = (TcpApp::start(fresh_addr(0)).await, HttpApp::start("web", fresh_addr(0)).await);
    let mut config = mesh.workload("server");
    serves(&mut config, 9000, Protocol::Opaque, tcp.address(), &bytes);
    serves(&mut config, 8080, Protocol::Http1, app.address(), &web);
    mesh.service(&bytes, Protocol::Opaque, &[endpoint(&config, 9000, Protocol::Opaque)]);
    mesh.service(&web, Protocol::Http1, &[endpoint(&config, 8080, Protocol::Http1)]);
    mesh.controller.set_lifetime(Duration::from_secs(8), Duration::from_secs(8));
    let _server = mesh.proxy(config, |_| ()).await;
    mesh.controller.set_lifetime(Duration::from_secs(3600), Duration::from_secs(1800));
    let mut config = mesh.workload("client");
    upstream(&mut config, 17_000, "bytes:9000");
    let client = mesh.proxy(config, |_| ()).await;
    let mut stream = TcpStream::connect((client.ip(), 17_000)).await.unwrap();
    echoes(&mut stream).await;
    let get = || async { client.http1().await.get("/", "web").await.unwrap() };
    assert_eq!(get().await.status(), StatusCode::OK);
    mesh.controller.stop().await;
    let mut rest = Vec::new();
    // Closed or reset.
    let _ = timeout(BOUND, stream.read_to_end(&mut rest)).await.unwrap();
    client.counted(&["reason=\"PEER_NOT_TRUSTED\""], 1).await;
    let refused = || async {
        let response = get().await;
        (response.status() == StatusCode::BAD_GATEWAY).then_some(reason(&response))
    };
    let reason = eventually(PATIENCE, "requests are refused", refused).await;
    let expired = [Some(Reason::TlsHandshakeFailed), Some(Reason::PeerNotTrusted)];
    assert!(expired.contains(&reason), "{reason:?}");
}
