//! What is refused, and how the error names the place. Round trips are in `tests/roundtrip.rs`.

mod settings;

use mesh_core::{
    config::{Destination, Endpoint, TrustBundle, WorkloadConfig},
    edge::{EdgeKey, EdgeTotals},
    histogram::{BUCKETS, Histogram},
    matching::RequestMatch,
    policy::PolicySet,
    route::ServiceRoutes,
};

use super::{MAX_ENDPOINTS, Resource, Wire};
use crate::{common::v1 as common, discovery::v1 as pb, telemetry::v1 as telemetry};

/// Refused at `path`, with `part` in the message.
#[track_caller]
fn refused<T: Wire + std::fmt::Debug>(message: &T::Message, path: &str, part: &str) {
    let error = T::from_wire(message).expect_err("is to be refused");
    assert_eq!(error.path(), path, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[track_caller]
fn accepted<T: Wire + std::fmt::Debug>(message: &T::Message) {
    T::from_wire(message).expect("valid");
}

fn object() -> Option<common::ObjectRef> {
    Some(common::ObjectRef { kind: "Namespace".into(), namespace: String::new(), name: "shop".into() })
}

fn port(port: u32) -> Option<common::ServicePort> {
    Some(common::ServicePort { namespace: "shop".into(), name: "cart".into(), port })
}

fn policy(rules: Vec<pb::AccessRule>) -> pb::InboundPolicy {
    pb::InboundPolicy { tls_mode: 0, default_action: 1, default_source: object(), rules }
}

fn rule() -> pb::AccessRule {
    pb::AccessRule {
        object: object(),
        deny: false,
        sources: vec![pb::Source { kind: Some(pb::source::Kind::Any(true)) }],
        ports: vec![80],
        scope: Some(pb::access_rule::Scope::Any(pb::AnyRequest {})),
    }
}

#[test]
fn policy_says_what_it_wants() {
    PolicySet::from_wire(&policy(vec![rule()])).expect("valid");
    refused::<PolicySet>(
        &pb::InboundPolicy { default_action: 0, ..policy(vec![]) },
        "default_action",
        "not 0",
    );
    refused::<PolicySet>(&pb::InboundPolicy { default_action: 9, ..policy(vec![]) }, "default_action", "9");
    refused::<PolicySet>(&pb::InboundPolicy { tls_mode: -1, ..policy(vec![]) }, "tls_mode", "-1");
    refused::<PolicySet>(
        &pb::InboundPolicy { default_source: None, ..policy(vec![]) },
        "default_source",
        "nothing",
    );
}

#[test]
fn rules_are_checked_by_place() {
    let bad = |change: fn(&mut pb::AccessRule)| {
        let mut last = rule();
        change(&mut last);
        policy(vec![rule(), rule(), last])
    };
    let identity = |text: &str| pb::Source { kind: Some(pb::source::Kind::Identity(text.into())) };
    let mut wrong = bad(|_| {});
    wrong.rules[2].sources = vec![identity("spiffe://a/ns//sa/b")];
    refused::<PolicySet>(&wrong, "rules[2].sources[0].identity", "segment");
    refused::<PolicySet>(&bad(|r| r.ports = vec![80, 65_536]), "rules[2].ports[1]", "65536");
    refused::<PolicySet>(&bad(|r| r.ports = vec![0]), "rules[2].ports[0]", "1 to 65535");
    refused::<PolicySet>(&bad(|r| r.scope = None), "rules[2].scope", "nothing");
    refused::<PolicySet>(
        &bad(|r| r.sources = vec![pb::Source { kind: None }]),
        "rules[2].sources[0]",
        "nothing",
    );
    refused::<PolicySet>(
        &bad(|r| r.sources = vec![pb::Source { kind: Some(pb::source::Kind::AnyAuthenticated(false)) }]),
        "rules[2].sources[0].any_authenticated",
        "true",
    );
    refused::<PolicySet>(
        &bad(|r| r.scope = Some(pb::access_rule::Scope::Http(pb::HttpRequests { matches: vec![] }))),
        "rules[2].http.matches",
        "at least one",
    );
}

#[test]
fn conditions_must_compile() {
    let path = |kind| common::RequestMatch { path: Some(common::PathMatch { kind }), ..Default::default() };
    refused::<RequestMatch>(&path(None), "path", "nothing");
    refused::<RequestMatch>(
        &path(Some(common::path_match::Kind::Regex("(".into()))),
        "path.regex",
        "unclosed",
    );
    let start = Some(common::path_match::Kind::RegexStart("a".repeat(5000)));
    refused::<RequestMatch>(&path(start), "path.regex_start", "longer than");
    let methods = common::RequestMatch { methods: vec!["GET".into(), "A B".into()], ..Default::default() };
    refused::<RequestMatch>(&methods, "methods[1]", "A B");
    let headers = vec![common::FieldMatch { name: "a b".into(), kind: None }];
    refused::<RequestMatch>(
        &common::RequestMatch { headers, ..Default::default() },
        "headers[0].name",
        "a header name",
    );
}

#[test]
fn routes_are_bounded() {
    let backend = |weight, p| pb::Backend { service: port(p), weight, ..Default::default() };
    let routes = |backend| pb::ServiceDestination {
        service: port(80),
        protocol: 1,
        rules: vec![pb::RouteRule { object: object(), backends: vec![backend], ..Default::default() }],
        calls: None,
    };
    ServiceRoutes::from_wire(&routes(backend(1_000_000, 1))).expect("valid");
    refused::<ServiceRoutes>(&routes(backend(1_000_001, 1)), "rules[0].backends[0].weight", "1000000");
    refused::<ServiceRoutes>(&routes(backend(1, 0)), "rules[0].backends[0].service.port", "65535");
    refused::<Destination>(
        &pb::Destination {
            outcome: Some(pb::destination::Outcome::Service(pb::ServiceDestination {
                protocol: 77,
                ..routes(backend(1, 1))
            })),
        },
        "service.protocol",
        "77",
    );
    refused::<Destination>(&pb::Destination { outcome: None }, "message", "nothing");
}

#[test]
fn workloads_have_each_port_once() {
    let inbound = |port| pb::InboundPort { port, ..Default::default() };
    let upstream = |host: &str, port| pb::Upstream { listen_port: 17_000, host: host.into(), port };
    let good = pb::WorkloadConfig {
        workload: Some(common::WorkloadRef { namespace: "shop".into(), name: "cart".into() }),
        identity: "spiffe://cluster.local/ns/shop/sa/cart".into(),
        address: "127.1.0.3".into(),
        inbound: vec![inbound(80), inbound(81)],
        upstreams: vec![upstream("inventory", 7000)],
        policy: Some(policy(vec![])),
        zone: String::new(),
    };
    WorkloadConfig::from_wire(&good).expect("valid");
    let bad = |change: &dyn Fn(&mut pb::WorkloadConfig)| {
        let mut message = good.clone();
        change(&mut message);
        message
    };
    refused::<WorkloadConfig>(&bad(&|w| w.inbound[1].port = 80), "inbound[1].port", "80");
    refused::<WorkloadConfig>(
        &bad(&|w| w.inbound[1].app_address = "1.2.3.4".into()),
        "inbound[1].app_address",
        "IP:PORT",
    );
    refused::<WorkloadConfig>(
        &bad(&|w| w.inbound[1].app_address = "1.2.3.4:0".into()),
        "inbound[1].app_address",
        "IP:PORT",
    );
    refused::<WorkloadConfig>(
        &bad(&|w| w.upstreams.push(upstream("x", 1))),
        "upstreams[1].listen_port",
        "17000",
    );
    refused::<WorkloadConfig>(
        &bad(&|w| w.upstreams[0].host = "a:80".into()),
        "upstreams[0].host",
        "without port",
    );
    refused::<WorkloadConfig>(&bad(&|w| w.upstreams[0].port = 0), "upstreams[0].port", "65535");
    refused::<WorkloadConfig>(&bad(&|w| w.address = "localhost".into()), "address", "localhost");
    refused::<WorkloadConfig>(&bad(&|w| w.identity = "cart".into()), "identity", "spiffe://");
    refused::<WorkloadConfig>(&bad(&|w| w.policy = None), "policy", "nothing");
    refused::<WorkloadConfig>(&bad(&|w| w.workload = None), "workload", "nothing");
}

#[test]
fn bundles_have_roots() {
    let bundle = |roots_der| pb::TrustBundle { trust_domain: "cluster.local".into(), roots_der };
    refused::<TrustBundle>(&bundle(vec![]), "roots_der", "at least one");
    refused::<TrustBundle>(&bundle(vec![vec![1], vec![]]), "roots_der[1]", "0 bytes");
    refused::<TrustBundle>(&bundle(vec![vec![0; 70_000]]), "roots_der[0]", "70000 bytes");
    refused::<TrustBundle>(&bundle(vec![vec![1]; 65]), "roots_der", "at most 64");
}

#[test]
fn endpoint_sets_are_bounded() {
    let endpoint = pb::Endpoint {
        address: "127.0.0.1:80".into(),
        workload: Some(common::WorkloadRef { namespace: "shop".into(), name: "cart".into() }),
        ..Default::default()
    };
    let set = |n| pb::EndpointSet { endpoints: vec![endpoint.clone(); n] };
    assert_eq!(Vec::<Endpoint>::from_wire(&set(MAX_ENDPOINTS)).map(|e| e.len()), Ok(MAX_ENDPOINTS));
    refused::<Vec<Endpoint>>(&set(MAX_ENDPOINTS + 1), "endpoints", "at most 10000");
    let plain = pb::Endpoint { address: "cart:80".into(), ..endpoint };
    refused::<Vec<Endpoint>>(&pb::EndpointSet { endpoints: vec![plain] }, "endpoints[0].address", "IP:PORT");
}

#[test]
fn histograms_are_well_formed() {
    let message = |buckets: &[u32], counts: &[u64]| common::Histogram {
        buckets: buckets.into(),
        counts: counts.into(),
        sum_micros: 7,
    };
    refused::<Histogram>(&message(&[1, 2], &[1]), "counts", "2 counts");
    refused::<Histogram>(&message(&[2, 2], &[1, 1]), "buckets[1]", "greater");
    refused::<Histogram>(&message(&[BUCKETS as u32], &[1]), "buckets[0]", "below");
    let full = Histogram::from_wire(&message(&[1, 2], &[u64::MAX, u64::MAX])).expect("valid");
    assert_eq!((full.count(), full.quantile(0.5)), (u64::MAX, 1), "totals saturate");
}

#[test]
fn newer_reasons_are_left_out() {
    let key = telemetry::EdgeKey { direction: 1, ..Default::default() };
    let reason = |code: &str| telemetry::ReasonCount { code: code.into(), count: 2 };
    let summary = telemetry::EdgeSummary {
        key: Some(key),
        failures: 4,
        reasons: vec![reason("AUTHZ_DENIED"), reason("FROM_THE_FUTURE")],
        ..Default::default()
    };
    let (_, totals) = <(EdgeKey, EdgeTotals)>::from_wire(&summary).expect("valid");
    assert_eq!((totals.failures, totals.reasons.len()), (4, 1));
    let odd = telemetry::EdgeSummary { status_classes: vec![1, 2], ..summary.clone() };
    refused::<(EdgeKey, EdgeTotals)>(&odd, "status_classes", "5 classes");
    refused::<(EdgeKey, EdgeTotals)>(&telemetry::EdgeSummary { key: None, ..summary }, "key", "nothing");
    refused::<EdgeKey>(&telemetry::EdgeKey::default(), "direction", "not 0");
}

#[test]
fn resources_hold_what_their_name_says() {
    let bundle = pb::TrustBundle { trust_domain: "cluster.local".into(), roots_der: vec![vec![1]] };
    let resource = |name: &str, version: &str| pb::Resource {
        name: name.into(),
        version: version.into(),
        body: Some(pb::resource::Body::TrustBundle(bundle.clone())),
    };
    let good = Resource::from_wire(&resource("trust-bundle", "1")).expect("valid");
    assert_ne!(Resource::new(good.name.clone(), good.body).version, "");
    refused::<Resource>(&resource("workload", "1"), "body", "kind");
    refused::<Resource>(&resource("trust-bundle", ""), "version", "a version");
    refused::<Resource>(&resource("nonsense", "1"), "name", "trust-bundle, workload");
    refused::<Resource>(&pb::Resource { body: None, ..resource("trust-bundle", "1") }, "body", "nothing");
}
