//! One proxy with one scripted controller.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use mesh_core::{
    config::{InboundPort, WorkloadConfig},
    identity::SpiffeId,
    name::{ObjectRef, WorkloadRef},
    policy::{DefaultAction, PolicySet, TlsMode},
    protocol::Protocol,
    resource::ResourceName,
};
use mesh_proto::convert::ResourceBody;
use mesh_proxy::{Config, Options, Proxy, config::Mode};
use mesh_testkit::{
    ca::TestCa,
    client::Connection,
    control::FakeController,
    net::{fresh_addr, fresh_ip},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};

/// The token that proves [`Rig::id`].
pub(crate) const TOKEN: &str = "a-secret-token";

/// A controller that knows the workload `shop/cart-1`, and what a proxy for it needs.
pub(crate) struct Rig {
    pub(crate) controller: FakeController,
    pub(crate) ca: Arc<TestCa>,
    pub(crate) ip: IpAddr,
    pub(crate) dir: TempDir,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let ca = Arc::new(TestCa::new("cluster.local"));
        let controller = FakeController::start(fresh_addr(0), Arc::clone(&ca)).await;
        Self::with(controller, ca)
    }

    pub(crate) fn with(controller: FakeController, ca: Arc<TestCa>) -> Self {
        let rig = Self { controller, ca, ip: fresh_ip(), dir: tempfile::tempdir().unwrap() };
        rig.controller.allow_token(TOKEN, rig.id());
        std::fs::write(rig.file("token"), format!("{TOKEN}\n")).unwrap();
        std::fs::write(rig.file("roots.pem"), rig.ca.root_pem()).unwrap();
        rig.set_workload(&rig.workload(8080));
        rig
    }

    pub(crate) fn id(&self) -> SpiffeId {
        self.ca.id("shop", "cart")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The workload's configuration, with one port.
    pub(crate) fn workload(&self, port: u16) -> WorkloadConfig {
        let inbound = InboundPort {
            port,
            name: "http".to_owned(),
            protocol: Protocol::Http1,
            app_address: None,
            services: vec![],
            limits: mesh_core::settings::InboundLimits::default(),
            proxy_protocol: mesh_core::protocol::ProxyProtocol::default(),
        };
        WorkloadConfig {
            workload: cart(),
            identity: self.id(),
            address: Some(self.ip),
            zone: "".into(),
            inbound: vec![inbound],
            upstreams: vec![],
            policy: PolicySet {
                tls_mode: TlsMode::Strict,
                default_action: DefaultAction::Allow,
                default_source: ObjectRef::new("Namespace", "", "shop"),
                rules: vec![],
            },
        }
    }

    pub(crate) fn set_workload(&self, workload: &WorkloadConfig) {
        let body = ResourceBody::Workload(workload.clone());
        self.controller.set_for(&cart(), ResourceName::Workload, body);
    }

    pub(crate) fn options(&self) -> Options {
        let any = || Some(format!("{}:0", self.ip));
        Options {
            address: Some(self.ip.to_string()),
            outbound: any(),
            admin: any(),
            health: any(),
            token_file: Some(self.file("token")),
            trust_bundle: Some(self.file("roots.pem")),
            workers: Some(1),
            drain_timeout: "1s".to_owned(),
            discovery_wait: "500ms".to_owned(),
            ..Options::new("shop/cart-1", &self.controller.address().to_string(), Mode::Explicit)
        }
    }

    pub(crate) async fn start(&self) -> Proxy {
        start(&self.options()).await
    }

    pub(crate) async fn ready(&self) -> Proxy {
        let proxy = self.start().await;
        timeout(Duration::from_secs(10), proxy.ready()).await.expect("ready in time");
        proxy
    }
}

pub(crate) fn cart() -> WorkloadRef {
    WorkloadRef::new("shop", "cart-1")
}

pub(crate) async fn start(options: &Options) -> Proxy {
    Proxy::start(Config::new(options).unwrap()).await.unwrap()
}

/// Status and body of a GET.
pub(crate) async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let response = Connection::http1(stream).await.get(path, "127.0.0.1").await.unwrap();
    (response.status().as_u16(), String::from_utf8(response.body().to_vec()).unwrap())
}

/// An answer of the admin port.
pub(crate) async fn admin(proxy: &Proxy, path: &str) -> Value {
    let (status, body) = get(proxy.addresses().admin, path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Number of the TLS epoch; 0 before the first.
pub(crate) async fn generation(proxy: &Proxy) -> u64 {
    admin(proxy, "/certificates").await["generation"].as_u64().unwrap_or_default()
}

/// The value of a metric without labels.
pub(crate) async fn metric(proxy: &Proxy, name: &str) -> f64 {
    let (_, text) = get(proxy.addresses().health, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}
