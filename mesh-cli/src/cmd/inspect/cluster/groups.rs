//! Things that have many pods: what makes them, a namespace, a node.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::config::WorkloadConfig;
use mesh_k8s::labels;
use serde_json::{Value, json};

use super::{
    super::document::{View, policy_fields, policy_value},
    Seen,
};
use crate::{
    cluster::{
        select::pair,
        standing::{Standing, full_name, has_ended, standing},
        trouble::condition,
    },
    out::{
        table::{Column, Table},
        units,
    },
};

/// Pods that are listed one by one.
const LISTED: usize = 50;

/// What makes pods: how the next one would stand, and how those that are there do.
pub(super) fn owner(seen: &Seen, kind: &'static str, object: &Value, pods: &[Value]) -> View {
    let mut view = View::new(kind);
    let (namespace, _) = pair(object);
    let mut next = object["spec"]["template"].clone();
    next["metadata"]["namespace"] = namespace.as_str().into();
    next["apiVersion"] = "v1".into();
    next["kind"] = "Pod".into();
    let next = standing(&next, &seen.meshed());
    let next = if next == Standing::Missing {
        "it gets a proxy".to_owned()
    } else {
        format!("in the mesh: {}", next.words())
    };
    let account = object["spec"]["template"]["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    let known = workloads(seen, pods);
    let services: BTreeSet<String> = known
        .iter()
        .flat_map(|config| &config.inbound)
        .flat_map(|port| &port.services)
        .map(ToString::to_string)
        .collect();
    let identity = known.first().map_or("none", |config| config.identity.as_str());
    let list = |all: &BTreeSet<String>| if all.is_empty() { "none".to_owned() } else { join(all) };
    let fields = [
        ("Next pod", next.clone()),
        ("Runs as", account.to_owned()),
        ("Identity", identity.to_owned()),
        ("Services", list(&services)),
    ];
    view.fields(format!("{kind} {}", full_name(object)), &fields);
    table(&mut view, seen, pods);
    if let Some(first) = known.first() {
        view.fields(format!("Who may call {}", first.workload), &policy_fields(&first.policy));
        view.fact("policy", policy_value(&first.policy));
    }
    view.fact("nextPod", next);
    view.fact("identity", identity);
    view.fact("services", services.into_iter().collect::<Vec<_>>());
    view
}

fn join(all: &BTreeSet<String>) -> String {
    all.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What the controller knows of these pods.
fn workloads<'a>(seen: &'a Seen, pods: &[Value]) -> Vec<&'a WorkloadConfig> {
    let names: BTreeSet<(String, String)> = pods.iter().map(pair).collect();
    let of = |config: &&WorkloadConfig| {
        names.contains(&(config.workload.namespace.to_string(), config.workload.name.to_string()))
    };
    seen.mesh.iter().flat_map(|mesh| &mesh.workloads).map(|view| &view.config).filter(of).collect()
}

/// Whether the controller has a proxy's stream.
fn connected(seen: &Seen, pod: &Value) -> &'static str {
    let Some(mesh) = &seen.mesh else { return "not known" };
    let (namespace, name) = pair(pod);
    let is =
        |config: &WorkloadConfig| *config.workload.namespace == *namespace && *config.workload.name == *name;
    match mesh.workloads.iter().find(|view| is(&view.config)).map(|view| &view.proxy) {
        Some(Some(proxy)) if proxy.connected && proxy.generation >= mesh.generation => {
            "connected, up to date"
        }
        Some(Some(proxy)) if proxy.connected => "connected, behind",
        Some(Some(_)) => "lost",
        Some(None) => "never connected",
        None => "-",
    }
}

/// All pods, one by one.
fn table(view: &mut View, seen: &Seen, pods: &[Value]) {
    let meshed = seen.meshed();
    let mut table = Table::new(&["POD", "READY", "PROXY", "IN THE MESH"].map(Column::text));
    let mut all = Vec::new();
    for pod in pods.iter().filter(|pod| !has_ended(pod)) {
        let ready = if condition(pod, "Ready").is_some_and(|c| c["status"] == "True") { "yes" } else { "no" };
        let standing = standing(pod, &meshed);
        let (words, proxy) = (standing.words(), connected(seen, pod));
        all.push(json!({"pod": full_name(pod), "ready": ready == "yes", "proxy": proxy, "why": words,
            "inMesh": matches!(standing, Standing::In(_))}));
        if all.len() <= LISTED {
            table.row([full_name(pod), ready.to_owned(), proxy.to_owned(), words].map(Into::into));
        }
    }
    let mut lines: Vec<String> = table.render(None, false).lines().map(ToOwned::to_owned).collect();
    if all.is_empty() {
        lines = vec!["none".to_owned()];
    }
    if all.len() > LISTED {
        lines.push(format!("and {} more; -o json has all", all.len() - LISTED));
    }
    view.lines("Pods", &lines);
    view.fact("pods", all);
}

/// How many pods stand in which way.
fn counts(seen: &Seen, pods: &[Value]) -> BTreeMap<String, usize> {
    let meshed = seen.meshed();
    let mut counts = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !has_ended(pod)) {
        *counts.entry(standing(pod, &meshed).words()).or_default() += 1;
    }
    counts
}

fn told(counts: &BTreeMap<String, usize>) -> Vec<String> {
    if counts.is_empty() {
        return vec!["it has none".to_owned()];
    }
    counts.iter().map(|(words, count)| format!("{}: {words}", units::count(*count, "pod", "pods"))).collect()
}

/// A namespace: what it asks for, and how its pods stand. `bundle`: whether the roots are there.
pub(super) fn namespace(seen: &Seen, object: &Value, pods: &[Value], bundle: Option<bool>) -> View {
    let mut view = View::new("Namespace");
    let (_, name) = pair(object);
    let metadata = &object["metadata"];
    let either = |name: &str| {
        let of = |field: &str| metadata[field][name].as_str();
        of("annotations").or_else(|| of("labels")).map(ToOwned::to_owned)
    };
    let asks = seen.meshed.contains(&name);
    let default =
        |value: Option<String>, otherwise: &str| value.unwrap_or_else(|| format!("{otherwise} (by default)"));
    let level = metadata["labels"]["pod-security.kubernetes.io/enforce"].as_str().unwrap_or("none enforced");
    let roots = match bundle {
        Some(true) => "there",
        Some(false) => "not there",
        None => "must not be read",
    };
    let asked = if asks {
        "every pod that is made there".to_owned()
    } else {
        format!("only pods that are labelled {}=enabled", labels::INJECT)
    };
    let policy = default(either(labels::DEFAULT_POLICY), "allow");
    let mtls = default(either(labels::MTLS), "permissive");
    let fields = [
        ("Gets proxies", asked),
        ("Calls that no rule matches", policy.clone()),
        ("mTLS", mtls.clone()),
        ("Pod Security", level.to_owned()),
        ("ConfigMap mesh-trust-bundle", roots.to_owned()),
    ];
    view.fields(format!("Namespace {name}"), &fields);
    let counts = counts(seen, pods);
    view.lines("Pods, by whether they are in the mesh", &told(&counts));
    view.fact("meshed", asks);
    view.fact("defaultPolicy", policy);
    view.fact("mtls", mtls);
    view.fact("podSecurity", level);
    view.fact("trustBundle", bundle);
    view.fact("pods", json!(counts));
    view
}

/// A node: its pods, and the agent of the CNI plugin.
pub(super) fn node(seen: &Seen, object: &Value, pods: &[Value]) -> View {
    let mut view = View::new("Node");
    let (_, name) = pair(object);
    let info = &object["status"]["nodeInfo"];
    let text = |field: &str| info[field].as_str().unwrap_or("not known").to_owned();
    let is_ready = |object: &Value| condition(object, "Ready").is_some_and(|c| c["status"] == "True");
    let agent = pods.iter().find(|pod| pod["metadata"]["labels"]["app.kubernetes.io/name"] == "mesh-cni");
    let agent = match agent {
        None => "none: pods' own init containers write the firewall's rules",
        Some(pod) if is_ready(pod) => "ready",
        Some(_) => "not ready: pods with a proxy do not start here",
    };
    let fields = [
        ("Ready", if is_ready(object) { "yes" } else { "no" }.to_owned()),
        ("Kubelet", text("kubeletVersion")),
        ("Kernel", text("kernelVersion")),
        ("System", format!("{}, {}", text("operatingSystem"), text("architecture"))),
        ("Runtime", text("containerRuntimeVersion")),
        ("CNI agent", agent.to_owned()),
    ];
    view.fields(format!("Node {name}"), &fields);
    let counts = counts(seen, pods);
    view.lines("Pods, by whether they are in the mesh", &told(&counts));
    view.fact("ready", is_ready(object));
    view.fact("kubelet", text("kubeletVersion"));
    view.fact("kernel", text("kernelVersion"));
    view.fact("cniAgent", agent);
    view.fact("pods", json!(counts));
    view
}
