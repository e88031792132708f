//! What a Service's settings bound besides requests: opaque connections, idle ones, and connections that stopped speaking
//! HTTP.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use mesh_core::{
    config::Destination,
    protocol::Protocol,
    reason::Reason,
    settings::{BackendSettings, Balance, Breaker, CallSettings, Timeouts},
};
use mesh_proxy::config::Http1Transport;
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    net::{PATIENCE, fresh_addr, until},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::{
    mesh::{Mesh, Pair, endpoint, reason, route_to, serves, upstream},
    tunnels::{echoes, upgraded},
};

fn connections(most: u32, balance: Balance) -> Option<Arc<BackendSettings>> {
    let breaker = Breaker { connections: Some(most), ..Breaker::default() };
    Some(Arc::new(BackendSettings { breaker, balance, ..BackendSettings::default() }))
}

#[tokio::test]
async fn opaque_connections_are_bounded() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let declare = |client: &mut _, _: &mut _| upstream(client, 17_000, "catalog:8080");
    let two_workers = |options: &mut mesh_proxy::config::Options| options.workers = Some(2);
    let pair = Pair::with(Protocol::Opaque, app.address(), two_workers, declare).await;
    let mut routes = route_to(&pair.service, Protocol::Opaque, &[(&pair.service, 1)]);
    routes.rules[0].backends[0].settings = connections(2, Balance::PeakEwma);
    pair.mesh.controller.set_host("catalog:8080", Destination::Service(routes));
    let connect = || TcpStream::connect((pair.client.ip(), 17_000));
    let mut open = vec![connect().await.unwrap(), connect().await.unwrap()];
    for stream in &mut open {
        echoes(stream).await;
    }
    for count in 1..=3 {
        let mut refused = connect().await.unwrap();
        let mut rest = Vec::new();
        // Closed or reset.
        let _ = timeout(PATIENCE, refused.read_to_end(&mut rest)).await.expect("it is refused");
        pair.client.counted(&["reason=\"CIRCUIT_OPEN\""], count).await;
    }
    assert_eq!(app.connections(), 2);
    open.pop();
    until("one has ended", || app.open_connections() == 1).await;
    pair.client.counted(&["protocol=\"tcp\"", "reason=\"\""], 1).await;
    echoes(&mut connect().await.unwrap()).await;
}

/// Two endpoints, one connection: what is idle towards one is not in use, and does not close the other.
#[tokio::test]
async fn idle_connections_are_not_in_use() {
    for (protocol, transport) in [
        (Protocol::Http1, Http1Transport::H1),
        (Protocol::Http1, Http1Transport::H1OverH2),
        (Protocol::Http2, Http1Transport::H1),
    ] {
        let mesh = Mesh::start().await;
        let service = mesh_core::name::ServicePort::new("shop", "catalog", 8080);
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let (mut servers, mut endpoints) = (Vec::new(), Vec::new());
        for name in ["one", "two"] {
            let mut config = mesh.workload(name);
            serves(&mut config, 8080, protocol, app.address(), &service);
            endpoints.push(endpoint(&config, 8080, protocol));
            servers.push(mesh.proxy(config, |_| ()).await);
        }
        mesh.endpoints(&service, &endpoints);
        let mut routes = route_to(&service, protocol, &[(&service, 1)]);
        routes.rules[0].backends[0].settings = connections(1, Balance::RoundRobin);
        mesh.controller.set_host("catalog", Destination::Service(routes));
        let client = mesh.proxy(mesh.workload("client"), |o| o.http1_transport = transport).await;
        let connect = || async {
            if protocol == Protocol::Http2 { client.http2().await } else { client.http1().await }
        };
        let mut connection = connect().await;
        for _ in 0..6 {
            let response = connection.get("/", "catalog").await.unwrap();
            assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None), "{transport:?}");
        }
        for server in &servers {
            assert!(server.requests(&["reason=\"\""]).await >= 2, "both are called");
        }
        let slow = tokio::spawn(async move { connection.get("/?delay_ms=2000", "catalog").await.unwrap() });
        until("the request has arrived", || app.requests() == 7).await;
        // The next endpoint's connection is idle, and stays so.
        let response = connect().await.get("/", "catalog").await.unwrap();
        let outcome = (response.status(), reason(&response));
        assert_eq!(outcome, (StatusCode::SERVICE_UNAVAILABLE, Some(Reason::CircuitOpen)), "{transport:?}");
        assert_eq!(slow.await.unwrap().status(), StatusCode::OK);
        assert_eq!(connect().await.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn limits_of_time_hold_for_tunnels() {
    let limited = |timeouts| CallSettings { timeouts, ..CallSettings::default() };
    let ms = |millis| Some(Duration::from_millis(millis));
    let silent = Timeouts { idle: ms(1_500), ..Timeouts::default() };
    // What limits a request does not limit what it becomes.
    let old = Timeouts { request: ms(300), stream: ms(1_500), ..Timeouts::default() };
    for (timeouts, least, reason) in [(silent, 1_900, "IDLE_TIMEOUT"), (old, 1_500, "REQUEST_TIMEOUT")] {
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
        let mut routes = route_to(&pair.service, Protocol::Http1, &[(&pair.service, 1)]);
        routes.calls = Arc::new(limited(timeouts));
        pair.mesh.controller.set_host("catalog", Destination::Service(routes));
        let begin = Instant::now();
        let mut stream = upgraded(&pair).await;
        for _ in 0..5 {
            echoes(&mut stream).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut rest = Vec::new();
        // Closed or reset.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("the tunnel ends");
        assert!(begin.elapsed() >= Duration::from_millis(least), "{reason} after {:?}", begin.elapsed());
        pair.client.counted(&[&format!("reason=\"{reason}\"")], 1).await;
        until("the application sees the end", || app.open_connections() == 0).await;
    }
}
