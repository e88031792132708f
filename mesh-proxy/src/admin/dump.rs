//! State as JSON, without secrets.

use std::time::SystemTime;

use mesh_core::{
    config::WorkloadConfig,
    edge::EdgeKey,
    policy::{PolicySet, Scope},
};
use serde_json::{Value, json};

use super::{State, health};
use crate::{
    config::{AccessLogTarget, TrustAnchor},
    control::dump::unless_default,
    telemetry::EdgeCounts,
};

/// The proxy's own configuration and that of its workload.
pub(super) fn config(state: &State) -> Value {
    let config = &state.config;
    let strings = |list: &[std::net::SocketAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let trust = match &config.trust {
        TrustAnchor::Bundle(path) => json!({"bundle": path}),
        TrustAnchor::Pin(_) => json!("pin"),
    };
    let access_log = match &config.access_log {
        AccessLogTarget::Off => json!("off"),
        AccessLogTarget::Stdout => json!("stdout"),
        AccessLogTarget::File(path) => json!(path),
    };
    json!({
        "proxy": {
            "workload": config.workload.to_string(),
            "trust_domain": config.trust_domain.as_str(),
            "controller": config.controller,
            "mode": format!("{:?}", config.mode).to_lowercase(),
            "outbound": strings(&config.outbound),
            "inbound": strings(&config.inbound),
            "admin": config.admin.to_string(),
            "health": config.health.to_string(),
            "token_file": config.token_file,
            "trust": trust,
            "workers": config.workers,
            "access_log": access_log,
            "drain_timeout_seconds": config.drain_timeout.as_secs_f64(),
            "retire_timeout_seconds": config.retire_timeout.as_secs_f64(),
            "discovery_wait_seconds": config.discovery_wait.as_secs_f64(),
            "head_timeout_seconds": config.head_timeout.as_secs_f64(),
            "body_idle_seconds": config.body_idle.as_secs_f64(),
            "peer_timeout_seconds": config.peer_timeout.as_secs_f64(),
        },
        "workload": state.control.workload().borrow().as_deref().map(workload),
    })
}

fn workload(workload: &WorkloadConfig) -> Value {
    let inbound = workload.inbound.iter().map(|port| {
        json!({
            "port": port.port,
            "name": port.name,
            "protocol": port.protocol.as_str(),
            "app_address": port.app_address.map(|address| address.to_string()),
            "services": port.services.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "limits": unless_default(&port.limits),
        })
    });
    let upstreams = workload
        .upstreams
        .iter()
        .map(|upstream| json!({"listen_port": upstream.listen_port, "host": upstream.host.to_string()}));
    json!({
        "workload": workload.workload.to_string(),
        "identity": workload.identity.as_str(),
        "address": workload.address.map(|address| address.to_string()),
        "zone": &*workload.zone,
        "inbound": inbound.collect::<Vec<_>>(),
        "upstreams": upstreams.collect::<Vec<_>>(),
        "policy": policy(&workload.policy),
    })
}

fn policy(policy: &PolicySet) -> Value {
    let rules = policy.rules.iter().map(|rule| {
        let scope = match &rule.scope {
            Scope::Any => json!("any"),
            Scope::Http(matches) => json!(matches.iter().map(|m| format!("{m:?}")).collect::<Vec<_>>()),
        };
        json!({
            "object": rule.object.to_string(),
            "action": format!("{:?}", rule.action).to_lowercase(),
            "sources": rule.sources.iter().map(|source| format!("{source:?}")).collect::<Vec<_>>(),
            "ports": rule.ports,
            "scope": scope,
        })
    });
    json!({
        "tls_mode": format!("{:?}", policy.tls_mode).to_lowercase(),
        "default_action": format!("{:?}", policy.default_action).to_lowercase(),
        "default_source": policy.default_source.to_string(),
        "rules": rules.collect::<Vec<_>>(),
    })
}

/// The certificate and the roots: what everybody may know.
pub(super) fn certificates(state: &State) -> Value {
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    state.control.tls().borrow().as_deref().map_or(Value::Null, |epoch| {
        let roots = epoch.roots.iter().map(|root| json!({"sha256": hex(&crate::tls::sha256(root))}));
        json!({
            "identity": epoch.identity.as_str(),
            "serial": epoch.svid.serial,
            "not_after": seconds(epoch.svid.not_after),
            "generation": epoch.generation,
            "roots": roots.collect::<Vec<_>>(),
        })
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All edges with their totals.
pub(super) fn edges(state: &State) -> Value {
    state.telemetry.edges().iter().map(|(key, counts)| edge(key, counts)).collect()
}

fn edge(key: &EdgeKey, counts: &EdgeCounts) -> Value {
    let text = |value: Option<String>| value.unwrap_or_default();
    let totals = &counts.totals;
    let reasons: serde_json::Map<String, Value> =
        totals.reasons.iter().map(|(reason, count)| (reason.code().to_owned(), (*count).into())).collect();
    json!({
        "direction": key.direction.as_str(),
        "source": text(key.source.as_ref().map(ToString::to_string)),
        "destination": text(key.destination.as_ref().map(ToString::to_string)),
        "service": text(key.service.as_ref().map(ToString::to_string)),
        "backend": text(key.backend.as_ref().map(ToString::to_string)),
        "workload": text(key.destination_workload.as_ref().map(ToString::to_string)),
        "rule": text(key.rule.as_ref().map(ToString::to_string)),
        "protocol": key.protocol.as_str(),
        "secured": key.secured,
        "requests": totals.requests,
        "failures": totals.failures,
        "reasons": reasons,
        "status_classes": totals.status_classes,
        "connections": totals.connections,
        "request_bytes": totals.request_bytes,
        "response_bytes": totals.response_bytes,
        "p50_micros": totals.latency.quantile(0.5),
        "p99_micros": totals.latency.quantile(0.99),
    })
}

/// How the proxy is.
pub(super) fn status(state: &State) -> Value {
    let missing = health::missing(state);
    let listeners = state.listeners.borrow();
    let listeners = listeners
        .iter()
        .map(|listener| json!({"address": listener.address.to_string(), "role": listener.role.name()}));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "generation": state.generation,
        "workload": state.config.workload.to_string(),
        "ready": missing.is_empty(),
        "missing": missing,
        "discovery_connected": state.control.is_connected(),
        "discovery_age_seconds": state.control.age().as_secs_f64(),
        "uptime_seconds": state.telemetry.started().elapsed().as_secs_f64(),
        "drain": state.drain.borrow().name(),
        "access_log": state.access_log.enabled(),
        "listeners": listeners.collect::<Vec<_>>(),
    })
}
