//! TrafficPolicies: which one holds for which Service port, and what that means for calls, backends and workloads.
//!
//! Precedence: for a Service port, the policy that names that port before the policy of all ports; of two that name the
//! same, the first by standing, file and line, and the other is refused. A policy holds alone: two are never merged. What a
//! route says of its own calls (timeouts, retry) wins over the policy of the Service that is called.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use mesh_core::{
    name::ServicePort,
    protocol::Protocol,
    settings::{BackendSettings, CallSettings, InboundLimits},
};

use crate::{
    compile::{
        endpoints::Selected,
        index::{Index, Item, Key},
    },
    object::TrafficPolicy,
};

/// What holds for each Service port of which a policy says something.
#[derive(Default)]
pub(crate) struct Policies {
    calls: BTreeMap<ServicePort, Arc<CallSettings>>,
    backends: BTreeMap<ServicePort, Arc<BackendSettings>>,
    limits: BTreeMap<ServicePort, InboundLimits>,
}

impl Policies {
    /// The policies that apply; those that do not are reported.
    pub(crate) fn new(index: &mut Index<'_>, selected: &Selected<'_>) -> Self {
        let mut all: HashMap<(Key<'_>, Option<u16>), Item<'_, TrafficPolicy>> = HashMap::new();
        for policy in index.policies.clone() {
            let Some(target) = &policy.object.target else { continue };
            let key = target.service.key();
            let Some(service) = index.services.get(&key).copied() else {
                let remedy = index.suggest_service(key.0, key.1);
                let message = format!("Service {} does not exist: the policy has no effect", key.1);
                index.problems.warn(policy.located, target.line, "spec.targetRef.name", message, remedy);
                continue;
            };
            if let Some(port) = target.port
                && index.port(key, port).is_none()
            {
                let ports: Vec<String> = service.object.ports.iter().map(|p| p.port.to_string()).collect();
                let message = format!("Service {} has no port {port}: the policy has no effect", key.1);
                let remedy = format!("it has {}", ports.join(", "));
                index.problems.warn(policy.located, target.line, "spec.targetRef.port", message, remedy);
                continue;
            }
            if let Some(first) = all.get(&(key, target.port)) {
                let message = format!(
                    "{} is attached to Service {} already, at {}",
                    first.reference(),
                    key.1,
                    first.place()
                );
                let remedy = "put both into one";
                index.problems.conflict(policy.located, target.line, "spec.targetRef", message, remedy);
                continue;
            }
            all.insert((key, target.port), policy);
        }
        let mut found = Self::default();
        for ((key, port), policy) in all.iter().filter(|((_, port), _)| port.is_none()) {
            found.apply(index, selected, *key, *port, *policy);
        }
        for ((key, port), policy) in all.iter().filter(|((_, port), _)| port.is_some()) {
            found.apply(index, selected, *key, *port, *policy);
        }
        found
    }

    fn apply(
        &mut self,
        index: &mut Index<'_>,
        selected: &Selected<'_>,
        key: Key<'_>,
        port: Option<u16>,
        policy: Item<'_, TrafficPolicy>,
    ) {
        let Some(service) = index.services.get(&key).copied() else { return };
        let calls = Arc::new(policy.object.calls.clone());
        let backends = Arc::new(policy.object.backends.clone());
        let mut http = false;
        for own in service.object.ports.iter().filter(|own| port.is_none_or(|port| port == own.port)) {
            let name = service.object.port_name(own.port);
            http |= selected.protocols.get(&name) != Some(&Protocol::Opaque);
            self.calls.insert(name.clone(), Arc::clone(&calls));
            self.backends.insert(name.clone(), Arc::clone(&backends));
            self.limits.insert(name, policy.object.limits.clone());
        }
        if !http && let (Some(target), Some(what)) = (&policy.object.target, of_requests(policy.object)) {
            let message = format!("Service {} speaks no HTTP there: {what} has no effect", key.1);
            let remedy = "declare appProtocol: http on its port, or remove the field";
            index.problems.warn(policy.located, target.line, "spec.targetRef", message, remedy);
        }
    }

    /// For calls to a Service port.
    pub(crate) fn calls(&self, service: &ServicePort) -> Arc<CallSettings> {
        self.calls.get(service).cloned().unwrap_or_default()
    }

    /// For backends that lead to a Service port.
    pub(crate) fn backends(&self, service: &ServicePort) -> Option<Arc<BackendSettings>> {
        self.backends.get(service).cloned()
    }

    /// For a port of a workload that these Service ports lead to: all rates hold, and the first limit of concurrency. The
    /// second is the number of rates that find no room.
    pub(crate) fn limits(&self, services: &[ServicePort]) -> (InboundLimits, usize) {
        let mut found = InboundLimits::default();
        let mut left_out = 0;
        for limits in services.iter().filter_map(|service| self.limits.get(service)) {
            for rate in &limits.rates {
                if found.rates.contains(rate) {
                    continue;
                }
                if found.rates.len() < InboundLimits::MAX_RATES {
                    found.rates.push(rate.clone());
                } else {
                    left_out += 1;
                }
            }
            if found.concurrency.is_none() {
                found.concurrency.clone_from(&limits.concurrency);
            }
        }
        (found, left_out)
    }
}

/// A part of a policy that needs requests, for a message.
fn of_requests(policy: &TrafficPolicy) -> Option<&'static str> {
    let parts = [
        ("retry", policy.calls.retry.is_some()),
        ("faults", policy.calls.fault.is_some()),
        ("rateLimits", !policy.limits.rates.is_empty()),
        ("adaptiveConcurrency", policy.limits.concurrency.is_some()),
    ];
    parts.into_iter().find(|(_, set)| *set).map(|(name, _)| name)
}
