//! Where calls to each Service port go: HTTPRoutes before TrafficSplits before the Service's own endpoints.

use std::{collections::BTreeMap, sync::Arc};

use mesh_core::{
    filter::Filter,
    name::{ObjectRef, ServicePort},
    protocol::Protocol,
    route::{Backend, RouteRule, ServiceRoutes, sort_rules},
};

use crate::{
    compile::{
        MAX_ITEMS,
        endpoints::Selected,
        filters,
        index::{Index, Item},
        splits,
        traffic::Policies,
    },
    object::{HttpRoute, Object, ParentOfRoute, RuleOfRoute},
};

/// Rules by the Service port that they are bound to.
pub(crate) type Bound = BTreeMap<ServicePort, Vec<RouteRule>>;

/// The routes of every Service port.
pub(crate) fn lower(
    index: &mut Index<'_>,
    selected: &Selected<'_>,
    policies: &Policies,
) -> BTreeMap<ServicePort, ServiceRoutes> {
    let mut routed = bind(index, selected);
    let mut split = splits::bind(index, &routed);
    let mut services = BTreeMap::new();
    for (service, protocol) in &selected.protocols {
        let mut rules = match (routed.remove(service), split.remove(service)) {
            (Some(rules), _) => sort_rules(rules),
            (None, Some(rules)) => rules,
            (None, None) => vec![own_endpoints(index, service)],
        };
        for rule in &mut rules {
            spread(policies, rule);
        }
        let protocol = common_protocol(*protocol, &rules, selected);
        let calls = policies.calls(service);
        let routes = ServiceRoutes { calls, ..ServiceRoutes::new(service.clone(), protocol, rules) };
        services.insert(service.clone(), routes);
    }
    services
}

/// Says how calls, and copies of them, are spread over endpoints.
fn spread(policies: &Policies, rule: &mut RouteRule) {
    let copies = |filters: &mut [Filter]| {
        for filter in filters {
            if let Filter::Mirror(mirror) = filter {
                mirror.settings = policies.backends(&mirror.service);
            }
        }
    };
    copies(&mut rule.filters);
    for backend in &mut rule.backends {
        copies(&mut backend.filters);
        backend.settings = policies.backends(&backend.service);
    }
}

/// The rule that leads all calls to the Service's own endpoints.
pub(crate) fn own_endpoints(index: &Index<'_>, service: &ServicePort) -> RouteRule {
    let is_external = index.externals.contains_key(&(&*service.namespace, &*service.name));
    let object = ObjectRef {
        kind: if is_external { "ExternalService" } else { "Service" }.into(),
        namespace: Arc::clone(&service.namespace),
        name: Arc::clone(&service.name),
    };
    let backend = Backend::new(service.clone(), 1);
    RouteRule::new(object, vec![backend])
}

/// A Service that declares nothing and has no endpoints that do speaks what all its backends speak.
fn common_protocol(declared: Protocol, rules: &[RouteRule], selected: &Selected<'_>) -> Protocol {
    if declared != Protocol::Undeclared {
        return declared;
    }
    let backends = rules.iter().flat_map(|rule| &rule.backends);
    let mut protocols = backends.filter_map(|backend| selected.protocols.get(&backend.service)).copied();
    let first = protocols.next().unwrap_or_default();
    if protocols.all(|other| other == first) { first } else { Protocol::Undeclared }
}

fn bind(index: &mut Index<'_>, selected: &Selected<'_>) -> Bound {
    let mut bound = Bound::new();
    let mut counts: BTreeMap<ServicePort, usize> = BTreeMap::new();
    for route in index.routes.clone() {
        let parents: Vec<(usize, ServicePort)> = route
            .object
            .parents
            .iter()
            .enumerate()
            .flat_map(|(at, parent)| bound_ports(index, selected, route, at, parent))
            .collect();
        let object = route.reference();
        // As proxies are told them: each condition is a rule.
        let count: usize = route.object.rules.iter().map(|rule| rule.matches.len().max(1)).sum();
        let free =
            |parent: &ServicePort| counts.get(parent).copied().unwrap_or_default() + count <= MAX_ITEMS;
        if let Some((at, full)) = parents.iter().find(|(_, parent)| !free(parent)) {
            let message = format!(
                "the routes of Service {} would have more than {MAX_ITEMS} matches in all: the route has no effect",
                full.name
            );
            let field = format!("spec.parentRefs[{at}]");
            index.problems.refuse(route.located, route.place().line, &field, message, "write fewer matches");
            continue;
        }
        for (_, parent) in &parents {
            *counts.entry(parent.clone()).or_default() += count;
        }
        for (at, rule) in route.object.rules.iter().enumerate() {
            let lowered = RouteRule {
                index: u32::try_from(at).unwrap_or(u32::MAX),
                matches: rule.matches.clone(),
                filters: filters::lower(index, route, &format!("spec.rules[{at}]"), &rule.filters),
                timeouts: rule.timeouts,
                retry: rule.retry.clone(),
                ..RouteRule::new(object.clone(), backends(index, route, at, rule))
            };
            for (_, parent) in &parents {
                bound.entry(parent.clone()).or_default().push(lowered.clone());
            }
        }
    }
    bound
}

/// The ports of a parent that a route applies to.
fn bound_ports(
    index: &mut Index<'_>,
    selected: &Selected<'_>,
    route: Item<'_, HttpRoute>,
    at: usize,
    parent: &ParentOfRoute,
) -> Vec<(usize, ServicePort)> {
    let field = format!("spec.parentRefs[{at}]");
    let Some(service) = index.services.get(&parent.service.key()).copied() else {
        let (namespace, name) = parent.service.key();
        let remedy = index.suggest_service(namespace, name);
        let message = format!("Service {name} does not exist: the route has no effect on it");
        index.problems.warn(route.located, parent.line, &format!("{field}.name"), message, remedy);
        return Vec::new();
    };
    let ports = service.object.ports.iter().filter(|p| parent.port.is_none_or(|wanted| wanted == p.port));
    let all: Vec<ServicePort> = ports.map(|p| service.object.port_name(p.port)).collect();
    let is_grpc = matches!(route.located.object, Object::GrpcRoute(_));
    let fits = |port: &&ServicePort| match selected.protocols.get(*port) {
        Some(Protocol::Grpc | Protocol::Http2) => true,
        Some(Protocol::Http1 | Protocol::Undeclared) | None => !is_grpc,
        Some(Protocol::Opaque) => false,
    };
    let http: Vec<(usize, ServicePort)> = all.iter().filter(fits).map(|p| (at, p.clone())).collect();
    if http.is_empty() {
        let ports: Vec<String> = service.object.ports.iter().map(|p| p.port.to_string()).collect();
        let (message, remedy) = match parent.port {
            Some(port) if all.is_empty() => (
                format!("Service {} has no port {port}", parent.service.name),
                format!("it has {}", ports.join(", ")),
            ),
            _ => {
                let (what, declared) = if is_grpc { ("gRPC", "grpc") } else { ("HTTP", "http") };
                let name = &parent.service.name;
                (
                    format!("Service {name} speaks no {what} there: the route has no effect on it"),
                    format!("declare appProtocol: {declared} on its port"),
                )
            }
        };
        index.problems.warn(route.located, parent.line, &format!("{field}.port"), message, remedy);
    }
    http
}

/// Backends of a rule; a reference to nothing keeps its weight, and its share is refused (Gateway API).
fn backends(
    index: &mut Index<'_>,
    route: Item<'_, HttpRoute>,
    rule_at: usize,
    rule: &RuleOfRoute,
) -> Vec<Backend> {
    let mut found = Vec::with_capacity(rule.backends.len());
    for (at, backend) in rule.backends.iter().enumerate() {
        let key = backend.service.key();
        let invalid = index.port(key, backend.port).is_none();
        if invalid {
            let field = format!("spec.rules[{rule_at}].backendRefs[{at}]");
            let exists = index.services.get(&key).copied();
            let (field, message, remedy) = match exists {
                None => (
                    format!("{field}.name"),
                    format!("Service {}/{} does not exist: its share of requests is refused", key.0, key.1),
                    index.suggest_service(key.0, key.1),
                ),
                Some(service) => {
                    let ports: Vec<String> =
                        service.object.ports.iter().map(|p| p.port.to_string()).collect();
                    (
                        format!("{field}.port"),
                        format!(
                            "Service {} has no port {}: its share of requests is refused",
                            key.1, backend.port
                        ),
                        format!("it has {}", ports.join(", ")),
                    )
                }
            };
            index.problems.warn(route.located, backend.line, &field, message, remedy);
        }
        let service = ServicePort {
            namespace: Arc::clone(&backend.service.namespace),
            name: Arc::clone(&backend.service.name),
            port: backend.port,
        };
        let field = format!("spec.rules[{rule_at}].backendRefs[{at}]");
        let filters = filters::lower(index, route, &field, &backend.filters);
        found.push(Backend { invalid, filters, ..Backend::new(service, backend.weight) });
    }
    found
}
