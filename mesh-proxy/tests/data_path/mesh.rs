//! A mesh in which a test decides everything: workloads with their proxies, services, policy.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_core::{
    addr::{AppAddr, EndpointAddr},
    config::{Destination, Endpoint, InboundPort, Upstream, WorkloadConfig},
    name::{ObjectRef, ServicePort, WorkloadRef},
    policy::{DefaultAction, PolicySet, TlsMode},
    protocol::Protocol,
    reason::Reason,
    resource::ResourceName,
    route::{Backend, RouteRule, ServiceRoutes},
    settings::{BackendSettings, Balance, InboundLimits},
};
use mesh_proto::convert::ResourceBody;
use mesh_proxy::{
    Config, Proxy,
    config::{Mode, Options},
};
use mesh_testkit::{
    ca::TestCa,
    client::Connection,
    control::FakeController,
    net::{fresh_addr, fresh_ip},
};
use tokio::net::TcpStream;

/// Trust domain, controller, and where tokens are.
pub(crate) struct Mesh {
    pub(crate) ca: Arc<TestCa>,
    pub(crate) controller: FakeController,
    dir: tempfile::TempDir,
}

/// A workload with its proxy.
pub(crate) struct Side {
    pub(crate) proxy: Proxy,
    pub(crate) config: WorkloadConfig,
}

/// Policy that lets everybody in.
pub(crate) fn open_policy() -> PolicySet {
    PolicySet {
        tls_mode: TlsMode::Permissive,
        default_action: DefaultAction::Allow,
        default_source: ObjectRef::new("Namespace", "", "shop"),
        rules: Vec::new(),
    }
}

impl Mesh {
    pub(crate) async fn start() -> Self {
        let ca = Arc::new(TestCa::new("cluster.local"));
        let controller = FakeController::start(fresh_addr(0), Arc::clone(&ca)).await;
        Self { ca, controller, dir: tempfile::tempdir().unwrap() }
    }

    /// A workload of namespace `shop` whose service account has its name; nobody runs beside it yet.
    pub(crate) fn workload(&self, name: &str) -> WorkloadConfig {
        WorkloadConfig {
            workload: WorkloadRef::new("shop", name),
            identity: self.ca.id("shop", name),
            address: Some(fresh_ip()),
            zone: "".into(),
            inbound: Vec::new(),
            upstreams: Vec::new(),
            policy: open_policy(),
        }
    }

    /// Starts the proxy of a workload and waits until it is ready.
    pub(crate) async fn proxy(&self, config: WorkloadConfig, change: impl FnOnce(&mut Options)) -> Side {
        let side = self.unready(config, change).await;
        side.proxy.ready().await;
        side
    }

    /// Starts the proxy of a workload.
    pub(crate) async fn unready(&self, config: WorkloadConfig, change: impl FnOnce(&mut Options)) -> Side {
        self.publish(&config);
        let name = &config.workload.name;
        let token = self.dir.path().join(&**name);
        std::fs::write(&token, format!("token-of-{name}")).unwrap();
        self.controller.allow_token(&format!("token-of-{name}"), config.identity.clone());
        let controller = self.controller.address().to_string();
        let mut options = Options {
            address: config.address.map(|address| address.to_string()),
            token_file: Some(token),
            trust_pin: Some(format!("sha256:{}", self.ca.root_sha256())),
            workers: Some(1),
            drain_timeout: "5s".to_owned(),
            discovery_wait: "300ms".to_owned(),
            ..Options::new(&config.workload.to_string(), &controller, Mode::Explicit)
        };
        change(&mut options);
        let proxy = Proxy::start(Config::new(&options).unwrap()).await.unwrap();
        Side { proxy, config }
    }

    /// Tells a workload's proxy its configuration.
    pub(crate) fn publish(&self, config: &WorkloadConfig) {
        let body = ResourceBody::Workload(config.clone());
        self.controller.set_for(&config.workload, ResourceName::Workload, body);
    }

    /// A Service whose calls all go to these endpoints, known under its name and under its name with its port.
    pub(crate) fn service(&self, service: &ServicePort, protocol: Protocol, endpoints: &[Endpoint]) {
        let routes = route_to(service, protocol, &[(service, 1)]);
        self.endpoints(service, endpoints);
        self.controller.set_host(&service.name, Destination::Service(routes.clone()));
        self.controller.set_host(&format!("{}:{}", service.name, service.port), Destination::Service(routes));
    }

    /// The endpoints of a Service port.
    pub(crate) fn endpoints(&self, service: &ServicePort, endpoints: &[Endpoint]) {
        let name = ResourceName::Endpoints(service.clone());
        self.controller.set(name, ResourceBody::Endpoints(endpoints.to_vec()));
    }
}

/// Routes of a Service with one rule without conditions.
pub(crate) fn route_to(
    service: &ServicePort,
    protocol: Protocol,
    backends: &[(&ServicePort, u32)],
) -> ServiceRoutes {
    let backend = |(to, weight): &(&ServicePort, u32)| Backend::new((*to).clone(), *weight);
    let rule = RouteRule::new(
        ObjectRef::new("Service", &service.namespace, &service.name),
        backends.iter().map(backend).collect(),
    );
    ServiceRoutes::new(service.clone(), protocol, vec![rule])
}

/// Makes a workload serve `service` at `port`, by the application at `app`.
pub(crate) fn serves(
    config: &mut WorkloadConfig,
    port: u16,
    protocol: Protocol,
    app: SocketAddr,
    service: &ServicePort,
) {
    config.inbound.push(InboundPort {
        port,
        name: format!("port-{port}"),
        protocol,
        app_address: Some(AppAddr(app)),
        services: vec![service.clone()],
        limits: InboundLimits::default(),
        proxy_protocol: mesh_core::protocol::ProxyProtocol::default(),
    });
}

/// Lets the application beside a workload reach `host:port` at a local port.
pub(crate) fn upstream(config: &mut WorkloadConfig, listen_port: u16, host: &str) {
    config.upstreams.push(Upstream { listen_port, host: host.parse().unwrap() });
}

/// A workload's port as an endpoint.
pub(crate) fn endpoint(config: &WorkloadConfig, port: u16, protocol: Protocol) -> Endpoint {
    Endpoint {
        address: EndpointAddr((config.address.unwrap(), port).into()),
        identity: Some(config.identity.clone()),
        workload: config.workload.clone(),
        protocol,
        zone: "".into(),
    }
}

impl Side {
    pub(crate) fn ip(&self) -> IpAddr {
        self.config.address.unwrap()
    }

    /// A connection of the application to its own proxy, HTTP/1.1.
    pub(crate) async fn http1(&self) -> Connection {
        Connection::http1(TcpStream::connect(self.proxy.addresses().outbound).await.unwrap()).await
    }

    /// A connection of the application to its own proxy, HTTP/2.
    pub(crate) async fn http2(&self) -> Connection {
        Connection::http2(TcpStream::connect(self.proxy.addresses().outbound).await.unwrap()).await
    }

    /// Sum of `mesh_requests_total` over the series whose labels hold all of `labels`, as in `reason="AUTHZ_DENIED"`.
    pub(crate) async fn requests(&self, labels: &[&str]) -> u64 {
        self.metric("mesh_requests_total", labels).await
    }

    /// Sum of a counter over the series whose labels hold all of `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let health = self.proxy.addresses().health;
        let mut connection = Connection::http1(TcpStream::connect(health).await.unwrap()).await;
        let body = connection.get("/metrics", "localhost").await.unwrap().into_body();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let of =
            |line: &&str| line.starts_with(&format!("{name}{{")) && labels.iter().all(|l| line.contains(l));
        text.lines()
            .filter(of)
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
            .sum()
    }

    /// Waits until so many requests were counted that have these labels; never more.
    pub(crate) async fn counted(&self, labels: &[&str], count: u64) {
        let what = format!("{count} requests with {labels:?} at {}", self.config.workload);
        let enough = || async { (self.requests(labels).await >= count).then_some(()) };
        mesh_testkit::net::eventually(Duration::from_secs(10), &what, enough).await;
        assert_eq!(self.requests(labels).await, count, "{what}");
    }
}

/// The reason in a response that a proxy made.
pub(crate) fn reason<B>(response: &http::Response<B>) -> Option<Reason> {
    response.headers().get("mesh-reason").and_then(|value| Reason::from_code(value.to_str().unwrap()))
}

/// A client and a server, joined by one Service.
pub(crate) struct Pair {
    pub(crate) mesh: Mesh,
    pub(crate) client: Side,
    pub(crate) server: Side,
    pub(crate) service: ServicePort,
}

impl Pair {
    /// `client` calls the Service `catalog:8080`, which workload `server` serves with the application at `app`.
    pub(crate) async fn start(
        protocol: Protocol,
        app: SocketAddr,
        client: impl FnOnce(&mut Options),
    ) -> Self {
        Self::with(protocol, app, client, |_, _| ()).await
    }

    /// As [`Pair::start`], with both configurations (client, server) changed before the proxies start.
    pub(crate) async fn with(
        protocol: Protocol,
        app: SocketAddr,
        client: impl FnOnce(&mut Options),
        change: impl FnOnce(&mut WorkloadConfig, &mut WorkloadConfig),
    ) -> Self {
        let mesh = Mesh::start().await;
        let service = ServicePort::new("shop", "catalog", 8080);
        let (mut near, mut far) = (mesh.workload("client"), mesh.workload("server"));
        serves(&mut far, 8080, protocol, app, &service);
        change(&mut near, &mut far);
        mesh.service(&service, protocol, &[endpoint(&far, 8080, protocol)]);
        let server = mesh.proxy(far, |_| ()).await;
        let client = mesh.proxy(near, client).await;
        Self { mesh, client, server, service }
    }
}

/// A Service whose endpoints are these applications, each with its proxy, and a client.
pub(crate) struct Several {
    _mesh: Mesh,
    pub(crate) client: Side,
    pub(crate) servers: Vec<Side>,
}

impl Several {
    /// `client` calls the Service `catalog:8080` by the routes that `change` makes of plain ones, which use all endpoints in
    /// turn; `server-0` and so on serve it, and let in what `limits` say.
    pub(crate) async fn start(
        protocol: Protocol,
        apps: &[SocketAddr],
        change: impl FnOnce(&mut ServiceRoutes),
        limits: &InboundLimits,
    ) -> Self {
        let mesh = Mesh::start().await;
        let service = ServicePort::new("shop", "catalog", 8080);
        let mut configs: Vec<WorkloadConfig> = Vec::new();
        for (at, app) in apps.iter().enumerate() {
            let mut config = mesh.workload(&format!("server-{at}"));
            serves(&mut config, 8080, protocol, *app, &service);
            config.inbound[0].limits = limits.clone();
            configs.push(config);
        }
        let endpoints: Vec<_> = configs.iter().map(|config| endpoint(config, 8080, protocol)).collect();
        mesh.endpoints(&service, &endpoints);
        let mut routes = route_to(&service, protocol, &[(&service, 1)]);
        let in_turn = BackendSettings { balance: Balance::RoundRobin, ..BackendSettings::default() };
        routes.rules[0].backends[0].settings = Some(Arc::new(in_turn));
        change(&mut routes);
        mesh.controller.set_host("catalog", Destination::Service(routes.clone()));
        mesh.controller.set_host("catalog:8080", Destination::Service(routes));
        let mut servers = Vec::new();
        for config in configs {
            servers.push(mesh.proxy(config, |_| ()).await);
        }
        let mut near = mesh.workload("client");
        upstream(&mut near, 17_000, "catalog:8080");
        let client = mesh.proxy(near, |_| ()).await;
        Self { _mesh: mesh, client, servers }
    }

    pub(crate) async fn get(&self, path: &str) -> http::Response<bytes::Bytes> {
        self.client.http1().await.get(path, "catalog").await.unwrap()
    }
}
