//! What is tried again without anybody asking for it, what is not, and what ends when nobody waits any more.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use mesh_core::{name::ServicePort, protocol::Protocol, reason::Reason};
use mesh_proxy::config::{Http1Transport, Options};
use mesh_testkit::{
    app::HttpApp,
    client::Connection,
    net::{fresh_addr, until},
};
use tokio::net::TcpListener;

use crate::mesh::{Mesh, Pair, Side, endpoint, reason, serves};

/// A Service with two endpoints: the application of the first does not run.
struct Half {
    _mesh: Mesh,
    client: Side,
    broken: Side,
    _good: Side,
    app: HttpApp,
}

impl Half {
    async fn start(protocol: Protocol, client: impl FnOnce(&mut Options)) -> Self {
        let mesh = Mesh::start().await;
        let service = ServicePort::new("shop", "catalog", 8080);
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let nobody = TcpListener::bind(fresh_addr(0)).await.unwrap().local_addr().unwrap();
        let (mut one, mut two) = (mesh.workload("one"), mesh.workload("two"));
        serves(&mut one, 8080, protocol, nobody, &service);
        serves(&mut two, 8080, protocol, app.address(), &service);
        mesh.service(&service, protocol, &[endpoint(&one, 8080, protocol), endpoint(&two, 8080, protocol)]);
        let broken = mesh.proxy(one, |_| ()).await;
        let good = mesh.proxy(two, |_| ()).await;
        let client = mesh.proxy(mesh.workload("client"), client).await;
        Self { _mesh: mesh, client, broken, _good: good, app }
    }
}

fn post(body: Bytes, http2: bool) -> Request<Full<Bytes>> {
    let request = Request::builder().method(Method::POST);
    let request = match http2 {
        true => request.uri("http://catalog/?echo"),
        false => request.uri("/?echo").header("host", "catalog"),
    };
    request.body(Full::new(body)).unwrap()
}

/// Sends until the broken endpoint had its share.
async fn all_succeed(half: &Half, connection: &mut Connection, size: usize, http2: bool) {
    let body = Bytes::from(vec![b'x'; size]);
    for _ in 0..12 {
        let response = connection.send(post(body.clone(), http2)).await.unwrap();
        assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None));
        assert!(*response.body() == body, "{} of {size} bytes", response.body().len());
    }
    assert_eq!(half.app.requests(), 12, "each came once");
    let retries = half.client.metric("mesh_retries_total", &["workload=\"shop/one\""]).await;
    let refused = half.broken.requests(&["reason=\"APP_UNAVAILABLE\""]).await;
    assert!(retries >= 1 && retries == refused, "{retries} {refused}");
    assert_eq!(half.client.requests(&["workload=\"shop/two\"", "reason=\"\""]).await, 12);
}

#[tokio::test]
async fn what_never_reached_the_application_goes_elsewhere_whatever_the_method() {
    for (protocol, transport) in [
        (Protocol::Http1, Http1Transport::H1),
        (Protocol::Http1, Http1Transport::H1OverH2),
        (Protocol::Http2, Http1Transport::H1),
    ] {
        let half = Half::start(protocol, |options| options.http1_transport = transport).await;
        let http2 = protocol == Protocol::Http2;
        let mut connection = if http2 { half.client.http2().await } else { half.client.http1().await };
        all_succeed(&half, &mut connection, 20_000, http2).await;
    }
}

#[tokio::test]
async fn a_large_body_is_not_kept_and_the_failure_is_told() {
    let half = Half::start(Protocol::Http1, |_| ()).await;
    let mut statuses = Vec::new();
    let body = Bytes::from(vec![b'x'; 4 << 20]);
    for _ in 0..6 {
        let response = half.client.http1().await.send(post(body.clone(), false)).await;
        // The refusal may come while the body is still being sent.
        let Ok(response) = response else { continue };
        match response.status() {
            StatusCode::OK => assert!(*response.body() == body),
            StatusCode::BAD_GATEWAY => assert!(reason(&response).is_some()),
            other => panic!("{other}"),
        }
        statuses.push(response.status());
    }
    assert!(statuses.contains(&StatusCode::OK), "{statuses:?}");
    assert_eq!(half.app.requests(), statuses.iter().filter(|s| **s == StatusCode::OK).count() as u64);
}

#[tokio::test]
async fn a_reset_is_no_proof() {
    let mesh = Mesh::start().await;
    let service = ServicePort::new("shop", "catalog", 8080);
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let (mut one, mut two) = (mesh.workload("one"), mesh.workload("two"));
    for side in [&mut one, &mut two] {
        serves(side, 8080, Protocol::Http1, app.address(), &service);
    }
    let http1 = Protocol::Http1;
    mesh.service(&service, http1, &[endpoint(&one, 8080, http1), endpoint(&two, 8080, http1)]);
    let _sides = (mesh.proxy(one, |_| ()).await, mesh.proxy(two, |_| ()).await);
    let client = mesh.proxy(mesh.workload("client"), |_| ()).await;
    for method in [Method::POST, Method::GET] {
        let before = app.requests();
        let request = Request::builder().method(&method).uri("/?reset").header("host", "catalog");
        let response = client.http1().await.send(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(reason(&response), Some(Reason::UpstreamReset), "{method}");
        assert_eq!(app.requests(), before + 1, "{method} came once");
    }
    assert_eq!(client.metric("mesh_retries_total", &[]).await, 0);
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_costs_no_request() {
    let half = Half::start(Protocol::Http1, |_| ()).await;
    let Half { client, broken, app, _mesh, _good } = half;
    broken.proxy.shutdown().await;
    for _ in 0..10 {
        let response = client.http1().await.get("/", "catalog").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(app.requests(), 10);
}

#[tokio::test]
async fn callers_cannot_speak_for_proxies() {
    let half = Half::start(Protocol::Http1, |_| ()).await;
    let request = Request::builder()
        .method(Method::POST)
        .uri("/?status=503")
        .header("host", "catalog")
        .header("mesh-unprocessed", "1")
        .header("mesh-timeout", "1");
    let response = half.client.http1().await.send(request.body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((half.app.requests(), reason(&response)), (1, None));
    assert!(!response.headers().keys().any(|name| name.as_str().starts_with("mesh-")));
    assert!(!half.app.seen()[0].headers.keys().any(|name| name.as_str() == "mesh-timeout"));
}

#[tokio::test]
async fn a_deadline_of_grpc_is_passed_on_and_kept() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Grpc, app.address(), |_| ()).await;
    let mut connection = pair.client.http2().await;
    let call = |query: &str, timeout: &str| {
        Request::builder()
            .method(Method::POST)
            .uri(format!("http://catalog/svc/Method{query}"))
            .header("content-type", "application/grpc")
            .header("grpc-timeout", timeout)
            .body(Full::default())
            .unwrap()
    };
    let quick = connection.send(call("", "30S")).await.unwrap();
    assert_eq!(quick.headers()["grpc-status"], "0");
    let left = app.seen()[0].headers["grpc-timeout"].to_str().unwrap().to_owned();
    assert!(left != "30S" && left.starts_with("29"), "less than 30 s are left: {left}");
    let begin = Instant::now();
    let slow = connection.send(call("?delay_ms=20000", "300m")).await.unwrap();
    assert_eq!(slow.headers()["grpc-status"], "4");
    assert_eq!(reason(&slow), Some(Reason::RequestTimeout));
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn work_that_nobody_waits_for_is_cancelled() {
    for (protocol, http2) in [(Protocol::Http1, false), (Protocol::Http2, true)] {
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let pair = Pair::start(protocol, app.address(), |_| ()).await;
        let mut connection = if http2 { pair.client.http2().await } else { pair.client.http1().await };
        let waiting = tokio::spawn(async move { connection.get("/?delay_ms=60000", "catalog").await });
        until("the request has arrived", || app.requests() == 1).await;
        waiting.abort();
        // The server is told: its connection ends (HTTP/1), or the stream does.
        match protocol {
            Protocol::Http1 => until("its connection ends", || app.open_connections() == 0).await,
            _ => until("its work is dropped", || app.abandoned() == 1).await,
        }
        pair.server.counted(&["reason=\"CLIENT_DISCONNECTED\""], 1).await;
        pair.client.counted(&["reason=\"CLIENT_DISCONNECTED\""], 1).await;
    }
}
