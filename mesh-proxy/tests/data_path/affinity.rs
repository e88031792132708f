//! What belongs together stays together: retries and copies follow the key of their request, and copies go only where calls
//! would.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use mesh_core::{
    config::{Destination, Endpoint},
    filter::{Filter, Mirror},
    name::ServicePort,
    protocol::Protocol,
    route::RouteRule,
    settings::{BackendSettings, Balance, HashKey, HealthCheck, HealthKind, Share},
};
use mesh_testkit::net::{eventually, until};

use crate::{
    balance::Fickle,
    mesh::{Mesh, Side, endpoint, route_to, serves},
};

/// Applications, each with its proxy, behind one Service port.
struct Behind {
    apps: Vec<Fickle>,
    sides: Vec<Side>,
    service: ServicePort,
}

impl Behind {
    async fn start(mesh: &Mesh, service: &str, names: &[&'static str]) -> Self {
        let service = ServicePort::new("shop", service, 8080);
        let (mut apps, mut sides, mut endpoints) = (Vec::new(), Vec::new(), Vec::<Endpoint>::new());
        for name in names {
            let app = Fickle::start(name).await;
            let mut config = mesh.workload(name);
            serves(&mut config, 8080, Protocol::Http1, app.served.address(), &service);
            endpoints.push(endpoint(&config, 8080, Protocol::Http1));
            sides.push(mesh.proxy(config, |_| ()).await);
            apps.push(app);
        }
        mesh.endpoints(&service, &endpoints);
        Self { apps, sides, service }
    }

    fn calls(&self) -> Vec<u64> {
        self.apps.iter().map(Fickle::calls).collect()
    }
}

fn by_user(balance: fn(HashKey) -> Balance) -> BackendSettings {
    let key = HashKey::Header("x-user".parse().unwrap());
    BackendSettings { balance: balance(key), ..BackendSettings::default() }
}

/// Who answers a user.
async fn ask(client: &Side, user: usize) -> Bytes {
    let request = Request::builder().method("POST").uri("/").header("host", "catalog");
    let request = request.header("x-user", user).body(Full::default()).unwrap();
    let response = client.http1().await.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

#[tokio::test]
async fn retries_follow_the_key_of_their_request() {
    let balances: [fn(HashKey) -> Balance; 2] = [Balance::RingHash, Balance::Maglev];
    for balance in balances {
        let mesh = Mesh::start().await;
        let mut behind = Behind::start(&mesh, "catalog", &["a", "b", "c", "d"]).await;
        let mut routes = route_to(&behind.service, Protocol::Http1, &[(&behind.service, 1)]);
        routes.rules[0].backends[0].settings = Some(Arc::new(by_user(balance)));
        mesh.controller.set_host("catalog", Destination::Service(routes));
        let client = mesh.proxy(mesh.workload("client"), |_| ()).await;
        let mut homes = Vec::new();
        for user in 0..60 {
            homes.push(ask(&client, user).await);
        }
        // Nobody is told: requests find out, and go on.
        behind.sides.remove(0).proxy.shutdown().await;
        let mut moved = Vec::new();
        for (user, home) in homes.iter().enumerate() {
            let now = ask(&client, user).await;
            for _ in 0..3 {
                assert_eq!(ask(&client, user).await, now, "user {user} of {home:?}");
            }
            if home == "a" {
                moved.push(now);
            } else {
                assert_eq!(now, *home);
            }
        }
        assert!(!moved.is_empty() && moved.iter().all(|now| now != "a"), "{moved:?}");
        assert!(client.metric("mesh_retries_total", &["workload=\"shop/a\""]).await >= 4);
    }
}

/// Every request to `catalog` is copied to `copies`.
fn mirrored(catalog: &Behind, copies: &Behind, settings: BackendSettings) -> Destination {
    let mut routes = route_to(&catalog.service, Protocol::Http1, &[(&catalog.service, 1)]);
    let settings = Some(Arc::new(settings));
    let mirror = Mirror { service: copies.service.clone(), share: Share::ALL, settings };
    let RouteRule { filters, .. } = &mut routes.rules[0];
    filters.push(Filter::Mirror(mirror));
    Destination::Service(routes)
}

#[tokio::test]
async fn copies_follow_the_key_of_their_request() {
    let mesh = Mesh::start().await;
    let catalog = Behind::start(&mesh, "catalog", &["real"]).await;
    let copies = Behind::start(&mesh, "copies", &["a", "b", "c"]).await;
    mesh.controller.set_host("catalog", mirrored(&catalog, &copies, by_user(Balance::Maglev)));
    let client = mesh.proxy(mesh.workload("client"), |_| ()).await;
    let mut all = vec![0; 3];
    for user in 0..16 {
        for _ in 0..5 {
            ask(&client, user).await;
        }
        let wanted = all.iter().sum::<u64>() + 5;
        until("all copies have come", || copies.calls().iter().sum::<u64>() == wanted).await;
        let now = copies.calls();
        let to = now.iter().zip(&all).filter(|(now, before)| now > before).count();
        assert_eq!(to, 1, "user {user}: {all:?} {now:?}");
        all = now;
    }
    assert!(all.iter().filter(|count| **count > 0).count() >= 2, "{all:?}");
}

#[tokio::test]
async fn copies_go_to_healthy_endpoints_only() {
    let mesh = Mesh::start().await;
    let catalog = Behind::start(&mesh, "catalog", &["real"]).await;
    let copies = Behind::start(&mesh, "copies", &["a", "b"]).await;
    let health = HealthCheck {
        kind: HealthKind::Http("/healthz".into()),
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(5),
        unhealthy: 2,
        healthy: 2,
    };
    let settings =
        BackendSettings { balance: Balance::RoundRobin, health: Some(health), ..BackendSettings::default() };
    mesh.controller.set_host("catalog", mirrored(&catalog, &copies, settings));
    let client = mesh.proxy(mesh.workload("client"), |_| ()).await;
    let client = &client;
    for user in 0..10 {
        ask(client, user).await;
    }
    until("all copies have come", || copies.calls().iter().sum::<u64>() == 10).await;
    assert_eq!(copies.calls(), [5, 5], "both work");
    copies.apps[1].good.store(false, SeqCst);
    let left_out = || async {
        let checks = client.metric("mesh_endpoints_left_out_total", &["cause=\"checks\""]).await;
        (checks == 1).then_some(())
    };
    eventually(Duration::from_secs(30), "the endpoint is left out", left_out).await;
    for user in 0..10 {
        ask(client, user).await;
    }
    until("all copies have come", || copies.calls().iter().sum::<u64>() == 20).await;
    assert_eq!(copies.calls(), [15, 5], "only one works");
}
