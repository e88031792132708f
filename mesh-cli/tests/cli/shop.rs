//! The canned mesh: a small shop, with a split, a denied caller, a caller from outside and a proxy that is missing.

use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use mesh_core::{
    config::{Endpoint, InboundPort, Upstream, WorkloadConfig},
    edge::{Direction, EdgeKey, EdgeTotals},
    identity::SpiffeId,
    matching::{PathMatch, RequestMatch},
    name::{ObjectRef, ServicePort, WorkloadRef},
    policy::{Action, DefaultAction, PolicySet, Rule, Scope, Source, TlsMode},
    protocol::Protocol,
    reason::Reason,
    route::{Backend, RouteRule, ServiceRoutes},
};
use mesh_proto::{convert::Wire, discovery::v1::EndpointSet, view::v1 as pb};

use crate::support::Mesh;

const DAY: i64 = 86_400;

/// The shop. Its clock stands still, so that ages do not depend on how fast the tests run.
pub(crate) struct Shop {
    well: bool,
    garbled: bool,
    now_millis: i64,
}

fn now_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
}

fn port(name: &str, port: u16) -> ServicePort {
    ServicePort::new("shop", name, port)
}

fn object(kind: &str, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "shop", name)
}

fn workload(name: &str) -> WorkloadRef {
    WorkloadRef::new("shop", name)
}

impl Shop {
    /// Nothing is wrong with it.
    pub(crate) fn healthy() -> Self {
        Self { well: true, garbled: false, now_millis: now_millis() }
    }

    /// Proxies are missing or behind, and objects are wrong.
    pub(crate) fn troubled() -> Self {
        Self { well: false, garbled: false, now_millis: now_millis() }
    }

    /// Healthy, but some entries of the answers cannot be understood.
    pub(crate) fn garbled() -> Self {
        Self { garbled: true, ..Self::healthy() }
    }

    fn config(&self, name: &str, account: &str, last: u8, speaks: Protocol) -> WorkloadConfig {
        let service = name.split("-v").next().unwrap();
        let mut services = vec![port(service, 8080)];
        if service != name {
            services.push(port(name, 8080));
        }
        let allow = Rule {
            object: object("TrafficTarget", "cart"),
            action: Action::Allow,
            sources: vec![Source::Identity(id("storefront"))],
            ports: vec![8080],
            scope: Scope::Http(vec![RequestMatch {
                path: Some(PathMatch::Prefix("/cart.Cart".into())),
                methods: vec![Method::POST],
                ..RequestMatch::default()
            }]),
        };
        let is_cart = name == "cart";
        WorkloadConfig {
            workload: workload(name),
            identity: id(account),
            // An address of these tests alone, so that no proxy of the machine answers.
            address: Some([127, 77, 66, last].into()),
            zone: "".into(),
            inbound: vec![InboundPort {
                port: 8080,
                name: "main".into(),
                protocol: speaks,
                app_address: Some(mesh_core::addr::AppAddr(([127, 77, 66, last], 9080).into())),
                services,
                limits: mesh_core::settings::InboundLimits::default(),
                proxy_protocol: mesh_core::protocol::ProxyProtocol::default(),
            }],
            upstreams: if is_cart {
                vec![Upstream { listen_port: 17000, host: "inventory:7000".parse().unwrap() }]
            } else {
                Vec::new()
            },
            policy: PolicySet {
                tls_mode: if is_cart { TlsMode::Strict } else { TlsMode::Permissive },
                default_action: if is_cart { DefaultAction::Deny } else { DefaultAction::Allow },
                default_source: if is_cart {
                    object("TrafficTarget", "cart")
                } else {
                    ObjectRef::new("Namespace", "", "shop")
                },
                rules: if is_cart { vec![allow] } else { Vec::new() },
            },
        }
    }

    fn configs(&self) -> Vec<WorkloadConfig> {
        vec![
            self.config("cart", "cart", 4, Protocol::Grpc),
            self.config("catalog-v1", "catalog", 2, Protocol::Http1),
            self.config("catalog-v2", "catalog", 3, Protocol::Http1),
            self.config("storefront", "storefront", 1, Protocol::Http1),
        ]
    }

    fn proxy(&self, name: &str) -> Option<pb::Proxy> {
        let now = self.now_millis;
        let mut proxy = pb::Proxy {
            connected: true,
            version: env!("CARGO_PKG_VERSION").into(),
            instance: "5f3a".into(),
            since_millis: now - 192_500,
            certificate_not_after: now / 1000 + 86_000 + 25,
            subscriptions: vec!["destination/host/inventory:7000".into()],
            generation: 7,
            reported_millis: now - 3500,
            ..pb::Proxy::default()
        };
        match (self.well, name) {
            (false, "storefront" | "catalog-v2") => return None,
            (false, "cart") => {
                proxy.generation = 5;
                proxy.pending = 1;
            }
            _ => {}
        }
        Some(proxy)
    }

    fn edge(&self, key: EdgeKey, reporter: &str, requests: u64, refused: Option<Reason>) -> pb::Edge {
        let mut totals = EdgeTotals {
            requests,
            failures: if refused.is_some() { requests } else { 0 },
            reasons: refused.into_iter().map(|reason| (reason, requests)).collect(),
            request_bytes: requests * 200,
            response_bytes: requests * 3000,
            connections: 2,
            ..EdgeTotals::default()
        };
        (0..requests).for_each(|at| totals.latency.record(if at % 50 == 0 { 40_000 } else { 1500 }));
        pb::Edge {
            reporter: Some(workload(reporter).to_wire()),
            summary: Some((key, totals).to_wire()),
            covered_millis: 30_000,
        }
    }

    /// Both sides' reports of calls from one workload to another.
    fn both(&self, key: EdgeKey, requests: u64, refused: Option<Reason>) -> [pb::Edge; 2] {
        let callee = key.destination_workload.clone().unwrap();
        let caller = key.source.clone().unwrap();
        let inbound = EdgeKey {
            direction: Direction::Inbound,
            service: None,
            backend: None,
            rule: Some(object("TrafficTarget", "cart")),
            ..key.clone()
        };
        let caller = caller.namespace_and_account().unwrap().1.to_owned();
        [self.edge(key, &caller, requests, None), self.edge(inbound, &callee.name, requests, refused)]
    }

    fn key(&self, source: &str, service: &str, served_by: &str, protocol: Protocol) -> EdgeKey {
        EdgeKey {
            direction: Direction::Outbound,
            source: Some(id(source)),
            destination: Some(id(service)),
            service: Some(port(service, 8080)),
            backend: Some(port(served_by, 8080)),
            destination_workload: Some(workload(served_by)),
            rule: Some(object("Service", service)),
            protocol,
            secured: true,
        }
    }
}

impl Mesh for Shop {
    fn status(&self) -> pb::GetStatusResponse {
        let now = self.now_millis;
        pb::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            trust_domain: "cluster.local".into(),
            source: "/etc/mesh".into(),
            uptime_millis: 3_725_500,
            anchors: vec![pb::Anchor {
                sha256: "ab12".repeat(16),
                not_after: now / 1000 + 3650 * DAY + 1800,
            }],
            issuer_not_after: now / 1000 + if self.well { 365 } else { 12 } * DAY + 1800,
            objects: 12,
            generation: 7,
            now_millis: now,
        }
    }

    fn problems(&self) -> Vec<pb::Problem> {
        if self.well {
            return Vec::new();
        }
        let problem =
            |kind: &str, name: &str, line, field: &str, message: &str, remedy: &str, refused| pb::Problem {
                object: Some(object(kind, name).to_wire()),
                file: "routes/shop.yaml".into(),
                line,
                field: field.into(),
                message: message.into(),
                remedy: remedy.into(),
                refused,
            };
        vec![
            problem(
                "TrafficSplit",
                "catalog",
                14,
                "spec.backends",
                "all weights are 0",
                "give one a weight",
                true,
            ),
            problem(
                "Service",
                "cart",
                31,
                "spec.ports[0].appProtocol",
                "\"grcp\" is not known",
                "did you mean grpc?",
                false,
            ),
        ]
    }

    fn workloads(&self) -> Vec<pb::Workload> {
        let view = |config: WorkloadConfig| pb::Workload {
            labels: [("app".to_owned(), config.workload.name.split("-v").next().unwrap().to_owned())].into(),
            proxy: self.proxy(&config.workload.name),
            config: Some(config.to_wire()),
        };
        let mut workloads: Vec<pb::Workload> = self.configs().into_iter().map(view).collect();
        if self.garbled {
            let config = workloads[0].config.as_mut().unwrap();
            config.identity = "\u{1b}[2Jnobody".into();
        }
        workloads
    }

    fn services(&self) -> Vec<pb::Service> {
        let to = |name: &str, weight| Backend::new(port(name, 8080), weight);
        let service = |name: &str, protocol, rule: RouteRule, workloads: &[&str]| {
            let routes = ServiceRoutes::new(port(name, 8080), protocol, vec![rule]);
            let all = self.configs();
            let endpoints: Vec<Endpoint> = all
                .iter()
                .filter(|config| workloads.contains(&&*config.workload.name))
                .map(|config| Endpoint {
                    address: mesh_core::addr::EndpointAddr((config.address.unwrap(), 8080).into()),
                    identity: Some(config.identity.clone()),
                    workload: config.workload.clone(),
                    protocol,
                    zone: "".into(),
                })
                .collect();
            let endpoints: EndpointSet = endpoints.to_wire();
            pb::Service { destination: Some(routes.to_wire()), endpoints: endpoints.endpoints }
        };
        let own = |name: &str| RouteRule::new(object("Service", name), vec![to(name, 1)]);
        let split = RouteRule::new(
            object("TrafficSplit", "catalog"),
            vec![to("catalog-v1", 90), to("catalog-v2", 10)],
        );
        let mut services = vec![
            service("cart", Protocol::Grpc, own("cart"), &["cart"]),
            service("catalog", Protocol::Http1, split, &["catalog-v1", "catalog-v2"]),
            service("catalog-v1", Protocol::Http1, own("catalog-v1"), &["catalog-v1"]),
            service("catalog-v2", Protocol::Http1, own("catalog-v2"), &["catalog-v2"]),
            service("storefront", Protocol::Http1, own("storefront"), &["storefront"]),
        ];
        if self.garbled {
            services[4].destination.as_mut().unwrap().rules[0].backends.clear();
            services[4].endpoints[0].address = "nowhere".into();
        }
        services
    }

    fn edges(&self) -> Vec<pb::Edge> {
        let mut edges = Vec::new();
        edges.extend(self.both(self.key("storefront", "catalog", "catalog-v1", Protocol::Http1), 900, None));
        edges.extend(self.both(self.key("storefront", "catalog", "catalog-v2", Protocol::Http1), 100, None));
        edges.extend(self.both(self.key("storefront", "cart", "cart", Protocol::Grpc), 300, None));
        edges.extend(self.both(
            self.key("batch", "cart", "cart", Protocol::Grpc),
            15,
            Some(Reason::AuthzDenied),
        ));
        let outside = EdgeKey {
            direction: Direction::Inbound,
            source: None,
            secured: false,
            backend: None,
            ..self.key("storefront", "storefront", "storefront", Protocol::Http1)
        };
        edges.push(self.edge(outside, "storefront", 600, None));
        if self.garbled {
            edges[0].summary = None;
        }
        edges
    }
}
