//! TrafficSplits (SMI split v1alpha4).

use std::collections::{BTreeMap, HashMap};

use mesh_core::{
    matching::RequestMatch,
    route::{Backend, RouteRule},
};

use crate::{
    compile::{
        MAX_ITEMS,
        index::{Index, Item, Key},
        routes::{Bound, own_endpoints},
    },
    object::{Service, TrafficSplit},
};

/// Splits by root.
type Roots<'a> = BTreeMap<Key<'a>, Item<'a, TrafficSplit>>;

/// The rules of all splits. Where a route is bound to a port, the route wins.
pub(crate) fn bind(index: &mut Index<'_>, routed: &Bound) -> Bound {
    let roots = accept(index);
    let mut bound = Bound::new();
    for (key, split) in &roots {
        let Some(root) = index.services.get(key).copied() else {
            let remedy = index.suggest_service(key.0, key.1);
            let message = format!("Service {} does not exist: the split has no effect", key.1);
            index.problems.warn(split.located, split.object.service.line, "spec.service", message, remedy);
            continue;
        };
        report_backends(index, *split, root.object, &roots);
        let matches = matches(index, *split);
        if let Some(count) = matches.as_ref().map(Vec::len).filter(|count| *count > MAX_ITEMS) {
            let message = format!("{count} matches; at most {MAX_ITEMS} can be: the split has no effect");
            let remedy = "name smaller HTTPRouteGroups";
            let line = split.object.service.line;
            index.problems.refuse(split.located, line, "spec.matches", message, remedy);
            continue;
        }
        let mut shadowed = Vec::new();
        for port in &root.object.ports {
            let service = root.object.port_name(port.port);
            if routed.contains_key(&service) {
                shadowed.push(port.port.to_string());
                continue;
            }
            let rules = rules(index, *split, root.object, port.port, matches.as_deref());
            bound.insert(service, rules);
        }
        if !shadowed.is_empty() {
            let message =
                format!("an HTTPRoute is bound to port {}: it wins over the split", shadowed.join(", "));
            let remedy = "remove one of the two";
            index.problems.warn(split.located, split.object.service.line, "spec.service", message, remedy);
        }
    }
    bound
}

/// One split per root, and no cycles: the first by standing, file and line applies.
fn accept<'a>(index: &mut Index<'a>) -> Roots<'a> {
    let mut roots = Roots::new();
    for split in index.splits.clone() {
        let key = (&*split.object.name.namespace, &*split.object.service.value);
        let line = split.object.service.line;
        if let Some(first) = roots.get(&key) {
            let message =
                format!("{} splits Service {} already, at {}", first.reference(), key.1, first.place());
            index.problems.conflict(split.located, line, "spec.service", message, "keep one of them");
            continue;
        }
        if let Some(cycle) = cycle(&roots, split) {
            let message = format!("the splits form a cycle: {}", cycle.join(" to "));
            index.problems.refuse(
                split.located,
                line,
                "spec.backends",
                message,
                "name Services that are not split",
            );
            continue;
        }
        roots.insert(key, split);
    }
    roots
}

/// The way from the root of `split` back to itself through accepted splits, if there is one.
fn cycle(roots: &Roots<'_>, split: Item<'_, TrafficSplit>) -> Option<Vec<String>> {
    let namespace: &str = &split.object.name.namespace;
    let root: &str = &split.object.service.value;
    let mut came_from: HashMap<&str, &str> = HashMap::new();
    let mut open = vec![(root, split)];
    while let Some((from, at)) = open.pop() {
        for backend in &at.object.backends {
            let name: &str = &backend.service;
            if name == root {
                let mut way = vec![root.to_owned(), from.to_owned()];
                let mut step = from;
                while let Some(before) = came_from.get(step) {
                    way.push((*before).to_owned());
                    step = before;
                }
                way.reverse();
                return Some(way);
            }
            if came_from.contains_key(name) {
                continue;
            }
            came_from.insert(name, from);
            open.extend(roots.get(&(namespace, name)).map(|next| (name, *next)));
        }
    }
    None
}

/// Tells of backends that cannot take all calls.
fn report_backends(index: &mut Index<'_>, split: Item<'_, TrafficSplit>, root: &Service, roots: &Roots<'_>) {
    let namespace: &str = &split.object.name.namespace;
    for (at, backend) in split.object.backends.iter().enumerate() {
        let key = (namespace, &*backend.service);
        let field = format!("spec.backends[{at}].service");
        let Some(service) = index.services.get(&key).copied() else {
            let remedy = index.suggest_service(namespace, &backend.service);
            let message =
                format!("Service {} does not exist: it gets no calls until it does", backend.service);
            index.problems.warn(split.located, backend.line, &field, message, remedy);
            continue;
        };
        let has = |port: u16| service.object.ports.iter().any(|p| p.port == port);
        let missing: Vec<String> =
            root.ports.iter().filter(|p| !has(p.port)).map(|p| p.port.to_string()).collect();
        if !missing.is_empty() {
            let ports = missing.join(", ");
            let message = format!("Service {} has no port {ports}: it gets no calls there", backend.service);
            let remedy = format!("give it the port numbers of Service {}", root.name.name);
            index.problems.warn(split.located, backend.line, &field, message, remedy);
        }
        if let Some(inner) = roots.get(&key) {
            let message = format!(
                "{} splits Service {}: calls are not split twice",
                inner.reference(),
                backend.service
            );
            let remedy = "name the backends of that split here";
            index.problems.warn(split.located, backend.line, &field, message, remedy);
        }
    }
}

/// The requests that are split; None: all.
fn matches(index: &mut Index<'_>, split: Item<'_, TrafficSplit>) -> Option<Vec<RequestMatch>> {
    if split.object.matches.is_empty() {
        return None;
    }
    let namespace: &str = &split.object.name.namespace;
    let mut found = Vec::new();
    for (at, name) in split.object.matches.iter().enumerate() {
        if let Some(group) = index.groups.get(&(namespace, &*name.value)) {
            found.extend(group.object.matches.iter().map(|(_, condition)| condition.clone()));
            continue;
        }
        let remedy = index.suggest_group(namespace, &name.value);
        let message = format!("HTTPRouteGroup {} does not exist: it matches no requests", name.value);
        index.problems.warn(split.located, name.line, &format!("spec.matches[{at}].name"), message, remedy);
    }
    Some(found)
}

/// The rules of one port: the split, and the root's own endpoints for what it does not match.
fn rules(
    index: &mut Index<'_>,
    split: Item<'_, TrafficSplit>,
    root: &Service,
    port: u16,
    matches: Option<&[RequestMatch]>,
) -> Vec<RouteRule> {
    let namespace = &split.object.name.namespace;
    let own = own_endpoints(index, &root.port_name(port));
    let mut backends = Vec::new();
    for backend in &split.object.backends {
        if let Some(service) = index.services.get(&(&**namespace, &*backend.service))
            && service.object.ports.iter().any(|p| p.port == port)
        {
            let service = service.object.port_name(port);
            backends.push(Backend::new(service, backend.weight));
        }
    }
    if backends.iter().all(|b| b.weight == 0) {
        let message = format!("no backend takes calls of port {port}: they go to the endpoints of the root");
        let line = split.object.service.line;
        index.problems.warn(split.located, line, "spec.backends", message, "add a backend that has the port");
        return vec![own];
    }
    let rule =
        |matches: Vec<RequestMatch>| RouteRule { matches, ..RouteRule::new(split.reference(), backends) };
    match matches {
        None => vec![rule(Vec::new())],
        Some([]) => vec![own],
        Some(matches) => vec![rule(matches.to_vec()), own],
    }
}
