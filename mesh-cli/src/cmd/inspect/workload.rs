//! One workload: its ports, who may call it, and what its proxy has.

use std::time::Duration;

use mesh_core::config::{InboundPort, WorkloadConfig};
use mesh_proto::view::v1 as pb;
use serde_json::{Value, json};

use super::{
    Mesh, Name,
    document::{View, policy_fields, policy_value},
};
use crate::{
    admin::{self, Door},
    cluster::Cluster,
    cmd::{ago, when},
    out::units,
    view::WorkloadView,
    words,
};

/// `cluster`: where its pod is; None: it is on this machine, if it can be asked at all.
pub(super) async fn view(mesh: &Mesh, name: &Name, cluster: Option<(&Cluster, Duration)>) -> View {
    let mut view = View::new("Workload");
    add(&mut view, mesh, name, cluster).await;
    view
}

/// Adds what is known of a workload. False: nothing is.
pub(super) async fn add(
    view: &mut View,
    mesh: &Mesh,
    (namespace, name): &Name,
    cluster: Option<(&Cluster, Duration)>,
) -> bool {
    let is = |config: &WorkloadConfig| {
        *config.workload.namespace == **namespace && *config.workload.name == **name
    };
    let Some(found) = mesh.workloads.iter().find(|view| is(&view.config)) else { return false };
    let config = &found.config;
    view.fields(format!("Workload {}", config.workload), &own(found));
    view.fields("Who may call it", &policy_fields(&config.policy));
    view.fields("Proxy, as the controller sees it", &proxy(found.proxy.as_ref(), mesh));
    facts(view, found);
    let door = match cluster {
        Some((cluster, patience)) => Some(Door::Pod { cluster, namespace, name, patience }),
        None => config.address.and_then(admin::address).map(Door::Here),
    };
    if let Some(door) = door {
        says(view, &door).await;
    }
    true
}

/// What the proxy says itself.
pub(super) async fn says(view: &mut View, door: &Door<'_>) {
    match door.get("/status").await {
        Ok(answer) => {
            let facts = admin::facts(&answer);
            let fields: Vec<(&str, String)> = facts.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
            view.fields(format!("Proxy, as it says itself at {door}/status"), &fields);
            view.fact("proxyStatus", answer);
        }
        Err(error) => {
            view.lines("Proxy, as it says itself", &[format!("no answer at {door}/status: {error}")]);
            view.fact("proxyStatus", Value::Null);
        }
    }
}

fn own(view: &WorkloadView) -> Vec<(&'static str, String)> {
    let config = &view.config;
    let labels: Vec<String> = view.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let ports: Vec<String> = config.inbound.iter().map(port).collect();
    let upstreams: Vec<String> = config
        .upstreams
        .iter()
        .map(|up| format!("{}:{} -> {}", address(config), up.listen_port, up.host))
        .collect();
    let or_none =
        |lines: Vec<String>, with: &str| if lines.is_empty() { "none".into() } else { lines.join(with) };
    vec![
        ("Identity", config.identity.as_str().to_owned()),
        ("Address", address(config)),
        ("Labels", or_none(labels, ", ")),
        ("Ports", or_none(ports, "\n")),
        ("Upstreams", or_none(upstreams, "\n")),
    ]
}

fn address(config: &WorkloadConfig) -> String {
    config.address.map_or_else(|| "none yet".into(), |address| address.to_string())
}

/// `8080 http (name http), for Services shop/cart:8080, to the application at 127.1.0.3:9080`.
fn port(port: &InboundPort) -> String {
    let name = if port.name.is_empty() { String::new() } else { format!(" \"{}\"", port.name) };
    let services: Vec<String> = port.services.iter().map(ToString::to_string).collect();
    let services = match services.as_slice() {
        [] => "no Service leads here".to_owned(),
        all => format!("for {}", all.join(", ")),
    };
    let app = port.app_address.map(|app| format!(", application at {app}")).unwrap_or_default();
    let limits: String =
        words::traffic::limits(&port.limits).iter().map(|limit| format!("\n  {limit}")).collect();
    format!("{}{name} {}, {services}{app}{limits}", port.port, port.protocol)
}

fn proxy(proxy: Option<&pb::Proxy>, mesh: &Mesh) -> Vec<(&'static str, String)> {
    let Some(proxy) = proxy else { return vec![("State", "never connected".into())] };
    let now = mesh.now_millis;
    let since = ago(proxy.since_millis, now);
    let state = if proxy.connected { format!("connected {since}") } else { format!("lost {since}") };
    let configuration = match mesh.generation.saturating_sub(proxy.generation) {
        0 => format!("up to date (generation {})", proxy.generation),
        behind => format!("{behind} behind (generation {} of {})", proxy.generation, mesh.generation),
    };
    let certificate = match proxy.certificate_not_after {
        0 => "not known".into(),
        end => {
            let verb = if end > now / 1000 { "expires" } else { "expired" };
            format!("{verb} {} ({})", when(end, now), units::timestamp(end).unwrap_or_default())
        }
    };
    let rejected: Vec<String> =
        proxy.rejected.iter().map(|one| format!("{}: {}", one.name, one.error)).collect();
    let reported = match proxy.reported_millis {
        0 => "never".into(),
        at => ago(at, now),
    };
    let or_none = |lines: &[String]| if lines.is_empty() { "none".into() } else { lines.join("\n") };
    let mut subscriptions = proxy.subscriptions.clone();
    subscriptions.sort();
    let mut fields = vec![
        ("State", state),
        ("Version", proxy.version.clone()),
        ("Configuration", configuration),
        ("Certificate", certificate),
        ("Reported", reported),
        ("Subscribed", or_none(&subscriptions)),
        ("Refused", or_none(&rejected)),
    ];
    if proxy.pending > 0 {
        fields.push((
            "Unanswered",
            units::count(usize::try_from(proxy.pending).unwrap_or(0), "change", "changes"),
        ));
    }
    fields
}

fn facts(view: &mut View, found: &WorkloadView) {
    let config = &found.config;
    let labels: serde_json::Map<String, Value> =
        found.labels.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    let port = |port: &InboundPort| {
        json!({
            "port": port.port,
            "name": port.name,
            "protocol": port.protocol.as_str(),
            "appAddress": port.app_address.map(|app| app.to_string()),
            "services": port.services.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "limits": words::traffic::limits(&port.limits),
        })
    };
    let upstreams = config
        .upstreams
        .iter()
        .map(|up| json!({"listenPort": up.listen_port, "host": up.host.to_string()}))
        .collect::<Vec<_>>();
    view.fact("identity", config.identity.as_str());
    view.fact("address", config.address.map(|address| address.to_string()));
    view.fact("labels", labels);
    view.fact("ports", config.inbound.iter().map(port).collect::<Vec<_>>());
    view.fact("upstreams", upstreams);
    view.fact("policy", policy_value(&config.policy));
    view.fact("proxy", found.proxy.as_ref().map_or(Value::Null, proxy_value));
}

fn proxy_value(proxy: &pb::Proxy) -> Value {
    let rejected =
        proxy.rejected.iter().map(|one| json!({"name": one.name, "error": one.error})).collect::<Vec<_>>();
    let reported = (proxy.reported_millis > 0).then(|| units::timestamp(proxy.reported_millis / 1000));
    let not_after = (proxy.certificate_not_after > 0).then(|| units::timestamp(proxy.certificate_not_after));
    json!({
        "connected": proxy.connected,
        "version": proxy.version,
        "instance": proxy.instance,
        "since": units::timestamp(proxy.since_millis / 1000),
        "generation": proxy.generation,
        "pending": proxy.pending,
        "certificateNotAfter": not_after,
        "reported": reported,
        "subscriptions": proxy.subscriptions,
        "rejected": rejected,
    })
}
