//! Random values of every core type that has a form on the wire.

mod settings;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{HeaderName, Method};
use mesh_core::{
    addr::{AppAddr, EndpointAddr, OrigDst},
    config::{Destination, Endpoint, InboundPort, TrustBundle, Upstream, WorkloadConfig},
    edge::{Direction, EdgeKey, EdgeTotals},
    histogram::{BUCKETS, Histogram},
    identity::{SpiffeId, TrustDomain},
    matching::{PathMatch, Pattern, RequestMatch, ValueMatch},
    name::{Host, ObjectRef, ServicePort, WorkloadRef},
    policy::{Action, DefaultAction, PolicySet, Rule, Scope, Source, TlsMode},
    protocol::{Protocol, ProxyProtocol, ProxyVersion},
    reason::Reason,
    resource::{DestinationKey, ResourceName},
    route::{Backend, MAX_WEIGHT, RouteRule, ServiceRoutes},
};
use mesh_proto::convert::{Resource, ResourceBody};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
pub(crate) use settings::{backend_settings, calls, filter, limits, retry, timeouts};

pub(crate) fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?"
}

fn dns_name() -> impl Strategy<Value = String> {
    vec(label(), 1..4).prop_map(|labels| labels.join("."))
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn port() -> impl Strategy<Value = u16> {
    1..=u16::MAX
}

pub(crate) fn object() -> impl Strategy<Value = ObjectRef> {
    ("\\PC{1,12}", text(), "\\PC{1,12}")
        .prop_map(|(kind, namespace, name)| ObjectRef::new(&kind, &namespace, &name))
}

pub(crate) fn workload() -> impl Strategy<Value = WorkloadRef> {
    (label(), dns_name()).prop_map(|(namespace, name)| WorkloadRef::new(&namespace, &name))
}

pub(crate) fn service_port() -> impl Strategy<Value = ServicePort> {
    (label(), label(), port()).prop_map(|(namespace, name, port)| ServicePort::new(&namespace, &name, port))
}

pub(crate) fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Undeclared, Protocol::Http1, Protocol::Http2, Protocol::Grpc, Protocol::Opaque])
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    ("[a-z0-9._-]{1,12}", vec("[A-Za-z0-9_-]{1,8}", 1..5)).prop_filter_map("valid", |(domain, path)| {
        format!("spiffe://{domain}/{}", path.join("/")).parse().ok()
    })
}

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), port()).prop_map(SocketAddr::from)
}

fn host() -> impl Strategy<Value = Host> {
    (dns_name(), option::of(port())).prop_map(|(name, port)| Host { name: name.into(), port })
}

fn source_text() -> impl Strategy<Value = String> {
    "[a-z/.*+?|()^$\\[\\]\\\\é]{0,10}"
}

fn value_match() -> impl Strategy<Value = ValueMatch> {
    let regex =
        source_text().prop_filter_map("compiles", |s| Pattern::whole(&s).ok()).prop_map(ValueMatch::Regex);
    prop_oneof![text().prop_map(ValueMatch::Exact), regex]
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    let pattern = (source_text(), any::<bool>()).prop_filter_map("compiles", |(source, whole)| {
        if whole { Pattern::whole(&source).ok() } else { Pattern::start(&source).ok() }
    });
    prop_oneof![
        text().prop_map(PathMatch::Exact),
        text().prop_map(PathMatch::Prefix),
        pattern.prop_map(PathMatch::Regex)
    ]
}

pub(crate) fn request_match() -> impl Strategy<Value = RequestMatch> {
    let method =
        "[A-Z!#$%&*+.^_`|~-]{1,9}".prop_filter_map("method", |m| Method::from_bytes(m.as_bytes()).ok());
    let header = "[a-z0-9-]{1,9}".prop_filter_map("header", |h| HeaderName::from_bytes(h.as_bytes()).ok());
    (
        option::of(path_match()),
        vec(method, 0..3),
        vec((header, value_match()), 0..3),
        vec(("\\PC{1,9}", value_match()), 0..3),
        vec(value_match(), 0..3),
    )
        .prop_map(|(path, methods, headers, query, hosts)| RequestMatch {
            path,
            methods,
            headers,
            query,
            hosts,
        })
}

fn rule() -> impl Strategy<Value = Rule> {
    let source = prop_oneof![
        identity().prop_map(Source::Identity),
        label().prop_map(Source::Namespace),
        Just(Source::Authenticated),
        Just(Source::Any),
    ];
    let scope = prop_oneof![Just(Scope::Any), vec(request_match(), 1..3).prop_map(Scope::Http)];
    (object(), any::<bool>(), vec(source, 0..3), vec(port(), 0..3), scope).prop_map(
        |(object, deny, sources, ports, scope)| Rule {
            object,
            action: if deny { Action::Deny } else { Action::Allow },
            sources,
            ports,
            scope,
        },
    )
}

pub(crate) fn policy() -> impl Strategy<Value = PolicySet> {
    use DefaultAction::{Allow, Authenticated, Deny, Smi};
    let mode = select(vec![TlsMode::Permissive, TlsMode::Strict]);
    let action = select(vec![Allow, Authenticated, Deny, Smi]);
    (mode, action, object(), vec(rule(), 0..4)).prop_map(
        |(tls_mode, default_action, default_source, rules)| PolicySet {
            tls_mode,
            default_action,
            default_source,
            rules,
        },
    )
}

pub(crate) fn routes() -> impl Strategy<Value = ServiceRoutes> {
    let settings = option::of(backend_settings().prop_map(Arc::new));
    let backend = (service_port(), 0..=MAX_WEIGHT, any::<bool>(), vec(filter(), 0..2), settings).prop_map(
        |(service, weight, invalid, filters, settings)| Backend {
            service,
            weight,
            invalid,
            filters,
            settings,
        },
    );
    let carried = (vec(filter(), 0..3), timeouts(), option::of(retry()));
    let rule = (object(), any::<u32>(), vec(request_match(), 0..3), carried, vec(backend, 0..3)).prop_map(
        |(object, index, matches, (filters, timeouts, retry), backends)| RouteRule {
            object,
            index,
            matches,
            filters,
            timeouts,
            retry,
            backends,
        },
    );
    let calls = prop_oneof![Just(Arc::default()), calls().prop_map(Arc::new)];
    (service_port(), protocol(), vec(rule, 0..3), calls)
        .prop_map(|(service, protocol, rules, calls)| ServiceRoutes { service, protocol, rules, calls })
}

pub(crate) fn bundle() -> impl Strategy<Value = TrustBundle> {
    let domain = "[a-z0-9._-]{1,20}".prop_filter_map("domain", |d| d.parse::<TrustDomain>().ok());
    (domain, vec(vec(any::<u8>(), 1..40), 1..4))
        .prop_map(|(trust_domain, roots)| TrustBundle { trust_domain, roots })
}

pub(crate) fn workload_config() -> impl Strategy<Value = WorkloadConfig> {
    let version = prop_oneof![Just(ProxyVersion::V1), Just(ProxyVersion::V2)];
    let headers = (any::<bool>(), option::of(version));
    let headers = headers.prop_map(|(accept, send)| ProxyProtocol { accept, send });
    let app = option::of(address().prop_map(AppAddr));
    let inbound = (text(), protocol(), app, vec(service_port(), 0..3), limits(), headers);
    let inbound = btree_map(port(), inbound, 0..4).prop_map(|ports| {
        ports
            .into_iter()
            .map(|(port, (name, protocol, app_address, services, limits, proxy_protocol))| InboundPort {
                port,
                name,
                protocol,
                app_address,
                services,
                limits,
                proxy_protocol,
            })
            .collect()
    });
    let upstreams = btree_map(port(), (host(), port()), 0..4).prop_map(|ports| {
        let upstream =
            |(listen_port, (host, port))| Upstream { listen_port, host: Host { port: Some(port), ..host } };
        ports.into_iter().map(upstream).collect()
    });
    (workload(), identity(), option::of(any::<IpAddr>()), text(), inbound, upstreams, policy()).prop_map(
        |(workload, identity, address, zone, inbound, upstreams, policy)| WorkloadConfig {
            workload,
            identity,
            address,
            zone: zone.into(),
            inbound,
            upstreams,
            policy,
        },
    )
}

pub(crate) fn destination() -> impl Strategy<Value = Destination> {
    prop_oneof![
        routes().prop_map(Destination::Service),
        Just(Destination::Passthrough),
        text().prop_map(Destination::Unknown)
    ]
}

pub(crate) fn endpoint() -> impl Strategy<Value = Endpoint> {
    (address(), option::of(identity()), workload(), protocol(), text()).prop_map(
        |(address, identity, workload, protocol, zone)| Endpoint {
            address: EndpointAddr(address),
            identity,
            workload,
            protocol,
            zone: zone.into(),
        },
    )
}

pub(crate) fn histogram() -> impl Strategy<Value = Histogram> {
    btree_map(0..BUCKETS, 1..u64::MAX / 4, 0..6).prop_map(|counts| {
        let mut histogram = Histogram::default();
        for (bucket, count) in counts {
            histogram.add(bucket, count, count / 3);
        }
        histogram
    })
}

pub(crate) fn edge_key() -> impl Strategy<Value = EdgeKey> {
    let ends = (option::of(identity()), option::of(identity()));
    let services = (option::of(service_port()), option::of(service_port()));
    let direction = select(vec![Direction::Outbound, Direction::Inbound]);
    (direction, ends, services, option::of(workload()), option::of(object()), protocol(), any::<bool>())
        .prop_map(
            |(
                direction,
                (source, destination),
                (service, backend),
                destination_workload,
                rule,
                protocol,
                secured,
            )| {
                EdgeKey {
                    direction,
                    source,
                    destination,
                    service,
                    backend,
                    destination_workload,
                    rule,
                    protocol,
                    secured,
                }
            },
        )
}

pub(crate) fn edge_totals() -> impl Strategy<Value = EdgeTotals> {
    let reasons = btree_map(select(Reason::ALL), any::<u64>(), 0..5);
    let reasons = reasons.prop_map(|map| map.into_iter().collect::<BTreeMap<_, _>>());
    (any::<[u64; 5]>(), reasons, histogram(), any::<[u64; 5]>()).prop_map(
        |(n, reasons, latency, status_classes)| EdgeTotals {
            requests: n[0],
            failures: n[1],
            reasons,
            latency,
            request_bytes: n[2],
            response_bytes: n[3],
            connections: n[4],
            status_classes,
        },
    )
}

pub(crate) fn resource() -> impl Strategy<Value = Resource> {
    let key = prop_oneof![
        host().prop_map(DestinationKey::Host),
        address().prop_map(|address| DestinationKey::Addr(OrigDst(address)))
    ];
    let parts = prop_oneof![
        bundle().prop_map(|bundle| (ResourceName::TrustBundle, ResourceBody::TrustBundle(bundle))),
        workload_config().prop_map(|config| (ResourceName::Workload, ResourceBody::Workload(config))),
        (key, destination())
            .prop_map(|(key, to)| (ResourceName::Destination(key), ResourceBody::Destination(to))),
        (service_port(), vec(endpoint(), 0..3))
            .prop_map(|(port, list)| (ResourceName::Endpoints(port), ResourceBody::Endpoints(list))),
    ];
    parts.prop_map(|(name, body)| Resource::new(name, body))
}
