//! Everything that the controller can change changes every 100 ms, under load: no request fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use mesh_core::{
    config::{Destination, TrustBundle},
    name::ServicePort,
    policy::DefaultAction,
    protocol::Protocol,
    resource::ResourceName,
};
use mesh_proto::convert::ResourceBody;
use mesh_proxy::config::Http1Transport;
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    ca::TestCa,
    net::fresh_addr,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::mesh::{Mesh, Side, endpoint, reason, route_to, serves, upstream};

/// How long it goes on.
const FOR: Duration = Duration::from_secs(10);
/// Time between two changes.
const EVERY: Duration = Duration::from_millis(100);
/// Servers; at any time one of them is in no Service.
const SERVERS: usize = 3;

/// A client, servers behind one Service that is split in two, and what changes.
struct Stage {
    mesh: Mesh,
    servers: Vec<Side>,
    apps: Vec<HttpApp>,
    other: TestCa,
    _bytes: TcpApp,
}

fn service(name: &str, port: u16) -> ServicePort {
    ServicePort::new("shop", name, port)
}

impl Stage {
    async fn start() -> Self {
        let mesh = Mesh::start().await;
        // Each proxy renews every second, as often as can be said; the roots change with everything else.
        mesh.controller.set_lifetime(Duration::from_secs(60), Duration::from_secs(1));
        let bytes = TcpApp::start(fresh_addr(0)).await;
        let (mut apps, mut servers) = (Vec::new(), Vec::new());
        for at in 0..SERVERS {
            let app = HttpApp::start("catalog", fresh_addr(0)).await;
            let mut config = mesh.workload(&format!("catalog-{at}"));
            serves(&mut config, 8080, Protocol::Http1, app.address(), &service("catalog", 8080));
            serves(&mut config, 8081, Protocol::Opaque, bytes.address(), &service("bytes", 8081));
            servers.push(mesh.proxy(config, |_| ()).await);
            apps.push(app);
        }
        let stage = Self { mesh, servers, apps, other: TestCa::new("cluster.local"), _bytes: bytes };
        stage.change(0);
        stage
    }

    /// Turns everything once.
    fn change(&self, round: usize) {
        let all = |port, protocol| self.servers.iter().map(move |s| endpoint(&s.config, port, protocol));
        // Endpoints: one leaves and one comes, everywhere.
        let rest = |port, protocol| {
            let mut endpoints: Vec<_> = all(port, protocol).collect();
            endpoints.remove(round % SERVERS);
            endpoints
        };
        let mut http = rest(8080, Protocol::Http1);
        self.mesh.service(&service("bytes", 8081), Protocol::Opaque, &rest(8081, Protocol::Opaque));
        self.mesh.endpoints(&service("catalog-v1", 8080), &http.split_off(1));
        self.mesh.endpoints(&service("catalog-v2", 8080), &http);
        // Routes: another split, and the whole to one of both.
        let (v1, v2) = (service("catalog-v1", 8080), service("catalog-v2", 8080));
        let weights = [(90, 10), (50, 50), (0, 100), (100, 0)][round % 4];
        let backends = [(&v1, weights.0), (&v2, weights.1)];
        let routes = route_to(&service("catalog", 8080), Protocol::Http1, &backends);
        self.mesh.controller.set_host("catalog", Destination::Service(routes));
        // Trust: a second root comes and goes, and with it all TLS configurations.
        let mut roots = self.mesh.ca.bundle().roots;
        if round % 2 == 1 {
            roots.extend(self.other.bundle().roots);
        }
        let bundle = TrustBundle { roots, ..self.mesh.ca.bundle() };
        self.mesh.controller.set(ResourceName::TrustBundle, ResourceBody::TrustBundle(bundle));
        // Policy and ports of those who serve.
        for server in &self.servers {
            let mut config = server.config.clone();
            if round % 2 == 1 {
                serves(&mut config, 8082, Protocol::Http1, self.apps[0].address(), &service("more", 8082));
                config.policy.default_source.name = "shop-again".into();
            }
            assert_eq!(config.policy.default_action, DefaultAction::Allow);
            self.mesh.publish(&config);
        }
    }
}

#[tokio::test]
async fn changes_under_load_fail_no_request() {
    let stage = Stage::start().await;
    let mut clients = Vec::new();
    for (name, transport) in [("client-h1", Http1Transport::H1), ("client-h2", Http1Transport::H1OverH2)] {
        let mut config = stage.mesh.workload(name);
        upstream(&mut config, 17_000, "bytes:8081");
        clients.push(stage.mesh.proxy(config, |o| o.http1_transport = transport).await);
    }
    let (end, done) = (Instant::now() + FOR, Arc::new([const { AtomicU64::new(0) }; 3]));
    let mut load = JoinSet::new();
    for client in &clients {
        for _ in 0..4 {
            for mut connection in [client.http1().await, client.http2().await] {
                let done = Arc::clone(&done);
                load.spawn(async move {
                    while Instant::now() < end {
                        let response = connection.get("/", "catalog").await.unwrap();
                        assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None));
                        done[0].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        }
        let (to, done) = ((client.ip(), 17_000), Arc::clone(&done));
        load.spawn(async move {
            let mut long = TcpStream::connect(to).await.unwrap();
            while Instant::now() < end {
                let mut short = TcpStream::connect(to).await.unwrap();
                for (stream, count) in [(&mut long, 1), (&mut short, 2)] {
                    let mut echoed = [0; 5];
                    stream.write_all(b"hello").await.unwrap();
                    stream.read_exact(&mut echoed).await.unwrap();
                    assert_eq!(&echoed, b"hello");
                    done[count].fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let mut ticks = tokio::time::interval(EVERY);
    let mut round = 0;
    while Instant::now() < end {
        ticks.tick().await;
        round += 1;
        stage.change(round);
    }
    while let Some(outcome) = load.join_next().await {
        outcome.unwrap();
    }
    let done = done.each_ref().map(|count| count.load(Ordering::Relaxed));
    println!("{round} rounds; requests, echoes on long and on short connections: {done:?}");
    assert!(round > 50 && done.iter().all(|count| *count > 20), "{round} rounds, {done:?}");
    assert!(stage.apps.iter().all(|app| app.requests() > 0), "all serve");
    let certified = stage.mesh.controller.certified().len();
    assert!(certified > 20, "{certified} certificates");
    for side in clients.iter().chain(&stage.servers) {
        assert_eq!(side.requests(&["status=\"5xx\""]).await, 0, "{}", side.config.workload);
    }
}
