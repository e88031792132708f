//! Balancing over real sockets: affinity by cookie, ejection of what fails, health checks, the own zone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use mesh_core::{
    config::{Destination, Endpoint, WorkloadConfig},
    name::ServicePort,
    protocol::Protocol,
    settings::{BackendSettings, Balance, HashKey, HealthCheck, HealthKind, Locality, Outlier, Share},
};
use mesh_testkit::{
    net::{eventually, fresh_addr},
    serve::Served,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::mesh::{Mesh, Side, endpoint, route_to, serves};

/// An HTTP/1.1 application that answers with its name, and with 503 while it is told to.
pub(crate) struct Fickle {
    pub(crate) served: Served,
    pub(crate) good: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Fickle {
    pub(crate) async fn start(name: &'static str) -> Self {
        let (good, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (good_now, count) = (Arc::clone(&good), Arc::clone(&calls));
        let served = Served::start(fresh_addr(0), move |mut stream, _| {
            let (good, count) = (Arc::clone(&good_now), Arc::clone(&count));
            async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    if !head.starts_with(b"GET /healthz") {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                    head.clear();
                    let status = if good.load(Ordering::SeqCst) { "200 OK" } else { "503 Bad" };
                    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{name}", name.len());
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { served, good, calls }
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }
}

/// Two workloads, `a` and `b`, behind one Service that is balanced as `settings` say.
struct Twins {
    apps: [Fickle; 2],
    client: Side,
    _mesh: Mesh,
    _servers: Vec<Side>,
}

impl Twins {
    async fn start(settings: BackendSettings) -> Self {
        let mesh = Mesh::start().await;
        let service = ServicePort::new("shop", "catalog", 8080);
        let apps = [Fickle::start("a").await, Fickle::start("b").await];
        let (mut servers, mut endpoints) = (Vec::new(), Vec::new());
        for (app, name) in apps.iter().zip(["a", "b"]) {
            let mut config = mesh.workload(name);
            serves(&mut config, 8080, Protocol::Http1, app.served.address(), &service);
            endpoints.push(Endpoint { zone: name.into(), ..endpoint(&config, 8080, Protocol::Http1) });
            servers.push(mesh.proxy(config, |_| ()).await);
        }
        mesh.endpoints(&service, &endpoints);
        let mut routes = route_to(&service, Protocol::Http1, &[(&service, 1)]);
        routes.rules[0].backends[0].settings = Some(Arc::new(settings));
        mesh.controller.set_host("catalog", Destination::Service(routes));
        let near = WorkloadConfig { zone: "a".into(), ..mesh.workload("client") };
        let client = mesh.proxy(near, |_| ()).await;
        Self { apps, client, _mesh: mesh, _servers: servers }
    }

    /// The statuses of `count` requests, and who answered.
    async fn get(&self, count: usize) -> Vec<(StatusCode, Bytes)> {
        let mut connection = self.client.http1().await;
        let mut all = Vec::new();
        for _ in 0..count {
            let response = connection.get("/", "catalog").await.unwrap();
            all.push((response.status(), response.into_body()));
        }
        all
    }
}

#[tokio::test]
async fn what_fails_gets_no_more_calls() {
    let outlier = Outlier { consecutive: Some(3), ejection: Duration::from_secs(60), ..Outlier::default() };
    let twins = Twins::start(BackendSettings {
        balance: Balance::RoundRobin,
        outlier: Some(outlier),
        ..BackendSettings::default()
    })
    .await;
    twins.apps[1].good.store(false, Ordering::SeqCst);
    let failed = twins.get(40).await.iter().filter(|(status, _)| status.is_server_error()).count();
    assert_eq!((failed, twins.apps[1].calls()), (3, 3));
    assert_eq!(twins.client.metric("mesh_endpoints_left_out_total", &["cause=\"calls\""]).await, 1);
}

#[tokio::test]
async fn what_fails_its_checks_gets_no_calls_until_it_passes_them() {
    let health = HealthCheck {
        kind: HealthKind::Http("/healthz".into()),
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(5),
        unhealthy: 2,
        healthy: 2,
    };
    let settings =
        BackendSettings { balance: Balance::RoundRobin, health: Some(health), ..BackendSettings::default() };
    let twins = Twins::start(settings).await;
    assert!(twins.get(10).await.iter().any(|(_, who)| who == "b"), "good until proved otherwise");
    let set = |good| twins.apps[1].good.store(good, Ordering::SeqCst);
    let used = |wanted: bool| {
        let twins = &twins;
        move || async move {
            let all = twins.get(8).await;
            (all.iter().any(|(_, who)| who == "b") == wanted).then_some(())
        }
    };
    set(false);
    eventually(Duration::from_secs(30), "b gets no calls", used(false)).await;
    assert!(twins.get(20).await.iter().all(|(status, who)| *status == StatusCode::OK && who == "a"));
    set(true);
    eventually(Duration::from_secs(30), "b gets calls again", used(true)).await;
    assert_eq!(twins.client.metric("mesh_endpoints_left_out_total", &["cause=\"checks\""]).await, 1);
}

#[tokio::test]
async fn a_caller_comes_back_by_its_cookie() {
    let key = HashKey::Cookie { name: "home".into(), ttl: Some(Duration::ZERO), path: "".into() };
    let twins =
        Twins::start(BackendSettings { balance: Balance::RingHash(key), ..BackendSettings::default() }).await;
    let mut connection = twins.client.http1().await;
    let mut homes = std::collections::HashSet::new();
    for _ in 0..24 {
        let first = connection.get("/", "catalog").await.unwrap();
        let cookie = first.headers()["set-cookie"].to_str().unwrap().to_owned();
        let pair = cookie.strip_suffix("; HttpOnly").unwrap();
        for _ in 0..3 {
            let request = Request::get("/").header("host", "catalog").header("cookie", pair);
            let again = connection.send(request.body(Full::default()).unwrap()).await.unwrap();
            assert_eq!((again.body(), again.headers().get("set-cookie")), (first.body(), None));
        }
        homes.insert(first.into_body());
    }
    assert_eq!(homes.len(), 2, "both are somebody's home");
}

#[tokio::test]
async fn the_own_zone_answers_as_long_as_it_can() {
    let outlier = Outlier { consecutive: Some(2), max_ejected: Share::ALL, ..Outlier::default() };
    let settings = BackendSettings {
        locality: Locality::PreferZone,
        outlier: Some(outlier),
        ..BackendSettings::default()
    };
    let twins = Twins::start(settings).await;
    assert!(twins.get(20).await.iter().all(|(_, who)| who == "a"));
    twins.apps[0].good.store(false, Ordering::SeqCst);
    let all = twins.get(20).await;
    assert!(all[2..].iter().all(|(status, who)| *status == StatusCode::OK && who == "b"), "{all:?}");
}
