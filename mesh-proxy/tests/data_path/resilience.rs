//! Timeouts, configured retries, breakers, limits and faults, through both proxies.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, Method, Request, StatusCode};
use http_body_util::Full;
use mesh_core::{
    config::{Destination, WorkloadConfig},
    name::{ObjectRef, ServicePort},
    protocol::Protocol,
    reason::Reason,
    route::ServiceRoutes,
    settings::{
        Abort, AdaptiveConcurrency, BackendSettings, Breaker, CallSettings, Fault, InboundLimits, RateKey,
        RateLimit, Retry, RetryBudget, RetryOn, Share, Timeouts,
    },
};
use mesh_testkit::{
    app::HttpApp,
    net::{fresh_addr, until},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::mesh::{Pair, Several, reason, route_to};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn policy() -> ObjectRef {
    ObjectRef::new("TrafficPolicy", "shop", "catalog")
}

/// Routes of `catalog` with these settings.
fn routes(service: &ServicePort, protocol: Protocol, calls: CallSettings) -> ServiceRoutes {
    ServiceRoutes { calls: Arc::new(calls), ..route_to(service, protocol, &[(service, 1)]) }
}

fn configure(pair: &Pair, protocol: Protocol, calls: CallSettings) {
    let routes = routes(&pair.service, protocol, calls);
    pair.mesh.controller.set_host("catalog", Destination::Service(routes));
}

fn grpc(query: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://catalog/svc/Method{query}"))
        .header("content-type", "application/grpc")
        .body(Full::default())
        .unwrap()
}

fn post(path: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header("host", "catalog")
        .body(Full::from("body"))
        .unwrap()
}

/// A server that refuses everything in the same way, and counts.
struct Stubborn {
    address: SocketAddr,
    requests: Arc<AtomicU64>,
}

impl Stubborn {
    async fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind(fresh_addr(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    let (mut head, mut byte) = (Vec::new(), [0]);
                    while stream.read_exact(&mut byte).await.is_ok() {
                        head.extend(byte);
                        if head.ends_with(b"\r\n\r\n") {
                            counter.fetch_add(1, SeqCst);
                            stream.write_all(answer.as_bytes()).await.unwrap();
                            if answer.contains("stall") {
                                std::future::pending::<()>().await;
                            }
                            return;
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> u64 {
        self.requests.load(SeqCst)
    }
}

const UNAVAILABLE: &str =
    "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A Service of HTTP/1 whose endpoints are these applications, and a client.
async fn start(apps: &[SocketAddr], calls: CallSettings, limits: InboundLimits) -> Several {
    let routes = |routes: &mut ServiceRoutes| routes.calls = Arc::new(calls);
    Several::start(Protocol::Http1, apps, routes, &limits).await
}

fn retry(retries: u32, on: RetryOn) -> Retry {
    Retry { retries, on: vec![on], backoff: Some(MS(5)), ..Retry::default() }
}

#[tokio::test]
async fn requests_end_in_time() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    for protocol in [Protocol::Http1, Protocol::Grpc] {
        let pair = Pair::start(protocol, app.address(), |_| ()).await;
        let timeouts = Timeouts { request: Some(MS(300)), ..Timeouts::default() };
        configure(&pair, protocol, CallSettings { timeouts, ..CallSettings::default() });
        let begin = Instant::now();
        let response = if protocol == Protocol::Grpc {
            pair.client.http2().await.send(grpc("?delay_ms=30000")).await.unwrap()
        } else {
            pair.client.http1().await.get("/?delay_ms=30000", "catalog").await.unwrap()
        };
        assert!(begin.elapsed() < Duration::from_secs(20));
        assert_eq!(reason(&response), Some(Reason::RequestTimeout));
        match protocol {
            Protocol::Grpc => assert_eq!(response.headers()["grpc-status"], "4"),
            _ => assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT),
        }
        pair.client.counted(&["reason=\"REQUEST_TIMEOUT\""], 1).await;
    }
    until("the work was dropped", || app.abandoned() == 2).await;
    // The inbound proxy knew the deadline, and the application did not get the mesh's field.
    assert!(!app.seen()[0].headers.contains_key("mesh-timeout"));
}

#[tokio::test]
async fn a_response_that_stalls_is_cut() {
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\nx-kind: stall\r\n\r\nhalf";
    let server = Stubborn::start(head).await;
    for timeouts in [
        Timeouts { request: Some(MS(400)), ..Timeouts::default() },
        Timeouts { idle: Some(MS(400)), ..Timeouts::default() },
    ] {
        let calls = CallSettings { timeouts, ..CallSettings::default() };
        let several = start(&[server.address], calls, InboundLimits::default()).await;
        let cut = several.client.http1().await.get("/", "catalog").await;
        assert!(cut.is_err(), "{cut:?}");
        several.client.counted(&["reason=\"REQUEST_TIMEOUT\""], 1).await;
    }
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_followed_by_another() {
    let stalling = Stubborn::start("HTTP/1.1 100 Continue\r\nx-kind: stall\r\n\r\n").await;
    let good = HttpApp::start("good", fresh_addr(0)).await;
    let calls = CallSettings {
        timeouts: Timeouts { per_try: Some(MS(400)), ..Timeouts::default() },
        retry: Some(retry(3, RetryOn::Timeout)),
        ..CallSettings::default()
    };
    let several = start(&[stalling.address, good.address()], calls, InboundLimits::default()).await;
    for _ in 0..6 {
        assert_eq!(several.get("/").await.status(), StatusCode::OK);
    }
    assert_eq!(several.client.metric("mesh_retries_total", &[]).await, stalling.requests());
    assert!(stalling.requests() >= 1);
}

#[tokio::test]
async fn statuses_are_tried_again_where_that_is_asked_for() {
    let bad = Stubborn::start(UNAVAILABLE).await;
    let good = HttpApp::start("good", fresh_addr(0)).await;
    let retry = Some(retry(2, RetryOn::Status(503)));
    let calls = CallSettings { retry, ..CallSettings::default() };
    let several = start(&[bad.address, good.address()], calls, InboundLimits::default()).await;
    for _ in 0..20 {
        assert_eq!(several.get("/").await.status(), StatusCode::OK);
    }
    let retries = several.client.metric("mesh_retries_total", &[]).await;
    assert!(retries >= 1 && retries == bad.requests());
    // May have arrived, and is not idempotent: the failure is the caller's to see.
    let mut statuses = Vec::new();
    for _ in 0..20 {
        statuses.push(several.client.http1().await.send(post("/")).await.unwrap().status());
    }
    assert!(statuses.contains(&StatusCode::SERVICE_UNAVAILABLE), "{statuses:?}");
    assert_eq!(several.client.metric("mesh_retries_total", &[]).await, retries);
}

#[tokio::test]
async fn the_last_failure_is_passed_on() {
    let bad = Stubborn::start(UNAVAILABLE).await;
    let calls = CallSettings { retry: Some(retry(2, RetryOn::ServerError)), ..CallSettings::default() };
    let several = start(&[bad.address], calls.clone(), InboundLimits::default()).await;
    let response = several.get("/").await;
    assert_eq!((response.status(), reason(&response)), (StatusCode::SERVICE_UNAVAILABLE, None));
    assert_eq!(bad.requests(), 3, "three tries");
    // Without a budget there is one.
    let budget = RetryBudget { share: Share::default(), min_per_second: 0, ..RetryBudget::default() };
    let poor = start(&[bad.address], CallSettings { budget, ..calls }, InboundLimits::default()).await;
    assert_eq!(poor.get("/").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bad.requests(), 4);
}

#[tokio::test]
async fn faults_are_injected() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let fault = |fault| CallSettings { fault: Some(fault), ..CallSettings::default() };
    let abort = |abort| fault(Fault { abort: Some((Share::ALL, abort)), ..Fault::default() });
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    configure(&pair, Protocol::Http1, abort(Abort::Http(418)));
    let response = pair.client.http1().await.get("/", "catalog").await.unwrap();
    assert_eq!((response.status().as_u16(), reason(&response)), (418, Some(Reason::FaultInjected)));
    let called = Pair::start(Protocol::Grpc, app.address(), |_| ()).await;
    configure(&called, Protocol::Grpc, abort(Abort::Grpc(10)));
    let response = called.client.http2().await.send(grpc("")).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "10");
    assert_eq!(app.requests(), 0);
    let late = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    configure(
        &late,
        Protocol::Http1,
        fault(Fault { delay: Some((Share::ALL, MS(300))), ..Fault::default() }),
    );
    let begin = Instant::now();
    assert_eq!(late.client.http1().await.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
    assert!(begin.elapsed() >= MS(300));
}

#[tokio::test]
async fn a_breaker_opens_at_its_limit() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let one = Some(1);
    for breaker in
        [Breaker { requests: one, ..Breaker::default() }, Breaker { connections: one, ..Breaker::default() }]
    {
        // Two workers share the limit.
        let pair = Pair::start(Protocol::Http1, app.address(), |options| options.workers = Some(2)).await;
        let mut routes = route_to(&pair.service, Protocol::Http1, &[(&pair.service, 1)]);
        let settings = BackendSettings { breaker, ..BackendSettings::default() };
        routes.rules[0].backends[0].settings = Some(Arc::new(settings));
        pair.mesh.controller.set_host("catalog", Destination::Service(routes));
        let before = app.requests();
        let mut connection = pair.client.http1().await;
        let slow = tokio::spawn(async move { connection.get("/?delay_ms=3000", "catalog").await });
        until("the request has arrived", || app.requests() == before + 1).await;
        for _ in 0..4 {
            let response = pair.client.http1().await.get("/", "catalog").await.unwrap();
            let outcome = (response.status(), reason(&response));
            assert_eq!(outcome, (StatusCode::SERVICE_UNAVAILABLE, Some(Reason::CircuitOpen)), "{breaker:?}");
        }
        assert_eq!(slow.await.unwrap().unwrap().status(), StatusCode::OK);
        assert_eq!(app.requests(), before + 1);
        let response = pair.client.http1().await.get("/", "catalog").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "closed again");
    }
}

fn rate(per: RateKey, requests: u32) -> InboundLimits {
    let interval = Duration::from_secs(3600);
    let limit = RateLimit { object: policy(), per, requests, interval, burst: requests };
    InboundLimits { rates: vec![limit], concurrency: None }
}

#[tokio::test]
async fn rates_are_limited_by_total_caller_and_field() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let user = HeaderName::from_static("x-user");
    for (per, ann, bob) in [(RateKey::Total, 3, 0), (RateKey::Identity, 3, 0), (RateKey::Header(user), 3, 3)]
    {
        let limits = rate(per.clone(), 3);
        let several = start(&[app.address()], CallSettings::default(), limits).await;
        for (user, expected) in [("ann", ann), ("bob", bob)] {
            let mut good = 0;
            for _ in 0..5 {
                let request = Request::builder().uri("/").header("host", "catalog").header("x-user", user);
                let request = request.body(Full::default()).unwrap();
                let response = several.client.http1().await.send(request).await.unwrap();
                match response.status() {
                    StatusCode::OK => good += 1,
                    status => {
                        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
                        assert_eq!(reason(&response), Some(Reason::RateLimited));
                        let seconds = response.headers()["retry-after"].to_str().unwrap();
                        assert!(seconds.parse::<u64>().unwrap() > 600);
                    }
                }
            }
            assert_eq!(good, expected, "{per:?} {user}");
        }
        several.servers[0].counted(&["reason=\"RATE_LIMITED\""], 10 - ann - bob).await;
    }
}

#[tokio::test]
async fn grpc_callers_are_told_of_a_rate_as_theirs() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let limited = |_: &mut WorkloadConfig, server: &mut WorkloadConfig| {
        server.inbound[0].limits = rate(RateKey::Total, 1);
    };
    let pair = Pair::with(Protocol::Grpc, app.address(), |_| (), limited).await;
    let mut connection = pair.client.http2().await;
    assert_eq!(connection.send(grpc("")).await.unwrap().headers()["grpc-status"], "0");
    let response = connection.send(grpc("")).await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["grpc-status"]),
        (StatusCode::OK, &"8".parse().unwrap())
    );
    assert_eq!(reason(&response), Some(Reason::RateLimited));
}

#[tokio::test]
async fn what_one_endpoint_cannot_bear_another_takes() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let concurrency = Some(AdaptiveConcurrency { object: policy(), min: 1, max: 1 });
    let limits = InboundLimits { rates: Vec::new(), concurrency };
    let two = [app.address(), app.address()];
    let several = start(&two, CallSettings::default(), limits).await;
    let mut slow = Vec::new();
    for at in 1..=2 {
        let mut connection = several.client.http1().await;
        slow.push(tokio::spawn(async move { connection.send(post("/?delay_ms=4000")).await }));
        until("it has arrived", || app.requests() == at).await;
    }
    let refused = several.client.http1().await.send(post("/")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reason(&refused), Some(Reason::Overloaded), "both are busy");
    for slow in slow {
        assert_eq!(slow.await.unwrap().unwrap().status(), StatusCode::OK);
    }
    assert_eq!(several.client.http1().await.send(post("/")).await.unwrap().status(), StatusCode::OK);
}
