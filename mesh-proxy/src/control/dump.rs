//! What is held, for admin.

use mesh_core::config::{Destination, Endpoint};
use mesh_core::route::ServiceRoutes;
use serde_json::{Value, json};

use super::Control;

impl Control {
    /// All destinations with their rules and versions.
    pub(crate) fn dump_destinations(&self) -> Value {
        let state = self.shared.state();
        let versions = versions(&state.store);
        let known = state.store.destinations().map(|(key, destination)| {
            let name = key.to_string();
            let version = versions.get(&name).cloned().unwrap_or_default();
            json!({"name": name, "version": version, "destination": dump_destination(destination)})
        });
        let mut list: Vec<Value> = known.collect();
        list.extend(
            state.subscriptions.pending().map(|key| json!({"name": key.to_string(), "pending": true})),
        );
        sort_by_name(&mut list);
        Value::Array(list)
    }

    /// All endpoint sets with versions.
    pub(crate) fn dump_endpoints(&self) -> Value {
        let state = self.shared.state();
        let versions = versions(&state.store);
        let sets = state.store.endpoints().map(|(port, endpoints)| {
            let version = versions.get(&format!("endpoints/{port}")).cloned().unwrap_or_default();
            let endpoints: Vec<Value> = endpoints.iter().map(dump_endpoint).collect();
            json!({"name": port.to_string(), "version": version, "endpoints": endpoints})
        });
        let mut list: Vec<Value> = sets.collect();
        sort_by_name(&mut list);
        Value::Array(list)
    }
}

fn versions(store: &super::Store) -> std::collections::HashMap<String, String> {
    store.versions().map(|(name, version)| (name.to_string(), version.to_owned())).collect()
}

fn sort_by_name(list: &mut [Value]) {
    list.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
}

fn dump_destination(destination: &Destination) -> Value {
    match destination {
        Destination::Service(routes) => json!({"service": dump_routes(routes)}),
        Destination::Passthrough => json!("passthrough"),
        Destination::Unknown(detail) => json!({"unknown": detail}),
    }
}

fn dump_routes(routes: &ServiceRoutes) -> Value {
    let rules = routes.rules.iter().map(|rule| {
        let backends = rule.backends.iter().map(|backend| {
            json!({
                "service": backend.service.to_string(),
                "weight": backend.weight,
                "invalid": backend.invalid,
                "filters": all(&backend.filters),
                "settings": backend.settings.as_ref().map(|settings| format!("{settings:?}")),
            })
        });
        json!({
            "object": rule.object.to_string(),
            "index": rule.index,
            "matches": all(&rule.matches),
            "filters": all(&rule.filters),
            "timeouts": unless_default(&rule.timeouts),
            "retry": rule.retry.as_ref().map(|retry| format!("{retry:?}")),
            "backends": backends.collect::<Vec<_>>(),
        })
    });
    json!({
        "name": routes.service.to_string(),
        "protocol": routes.protocol.as_str(),
        "calls": unless_default(&*routes.calls),
        "rules": rules.collect::<Vec<_>>(),
    })
}

fn all<T: std::fmt::Debug>(items: &[T]) -> Vec<String> {
    items.iter().map(|item| format!("{item:?}")).collect()
}

/// Null for what says nothing.
pub(crate) fn unless_default<T: std::fmt::Debug + Default + PartialEq>(value: &T) -> Value {
    if *value == T::default() { Value::Null } else { format!("{value:?}").into() }
}

fn dump_endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "identity": endpoint.identity.as_ref().map(ToString::to_string),
        "workload": endpoint.workload.to_string(),
        "protocol": endpoint.protocol.as_str(),
        "zone": &*endpoint.zone,
    })
}
