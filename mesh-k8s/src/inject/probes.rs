//! Probes and lifecycle hooks of applications, led to the proxy, which performs them.
//!
//! kubelet asks from outside of the mesh: under strict mTLS it would be refused, and no way in plaintext is opened for it.
//! The proxy gets each handler as it was declared, in `MESH_PROBES`, and from there [`restore`] has it again.
//! *Invariant:* the pod's nonce is in every path, so that nobody else can have a hook run or the application probed.

use std::collections::BTreeMap;

use mesh_core::ports;
use serde_json::{Map, Value, json};

use super::{
    Nonce, Refusals, checks, list, quiet,
    shape::{CONTAINERS, Pod, is_ours},
};
use crate::names::PROXY_CONTAINER;

/// Variable of the proxy's container that holds the probes.
const VARIABLE: &str = "MESH_PROBES";

/// Where a handler stands in a container, and what it is called in paths.
struct Site {
    /// Fields, from the container on.
    fields: &'static [&'static str],
    name: &'static str,
    is_hook: bool,
}

const SITES: [Site; 5] = [
    Site { fields: &["livenessProbe"], name: "liveness", is_hook: false },
    Site { fields: &["readinessProbe"], name: "readiness", is_hook: false },
    Site { fields: &["startupProbe"], name: "startup", is_hook: false },
    Site { fields: &["lifecycle", "postStart"], name: "post-start", is_hook: true },
    Site { fields: &["lifecycle", "preStop"], name: "pre-stop", is_hook: true },
];
/// Kinds of handlers that use the network.
const KINDS: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];

/// Which containers of a pod have probes that are led.
#[derive(Clone, Copy)]
pub(super) struct Sites {
    /// The proxy starts before init containers.
    pub(super) native: bool,
    /// The mesh's own containers are there.
    pub(super) is_injected: bool,
}

/// Leads all of a pod's probes to its proxy. Returned is what the proxy is to perform, by what follows `/probe/`.
pub(super) fn lead_to_proxy(
    pod: &mut Value,
    Sites { native, is_injected }: Sites,
    nonce: &Nonce,
    refusals: &mut Refusals,
) -> Map<String, Value> {
    let mut probes = Map::new();
    for field in CONTAINERS {
        // A classic proxy starts after all init containers: what has probes among them is left as it is.
        if field == "initContainers" && !native {
            continue;
        }
        let items = pod.pointer_mut(&format!("/spec/{field}")).and_then(Value::as_array_mut);
        for (at, container) in items.into_iter().flatten().enumerate() {
            if is_injected && container.get("name").and_then(Value::as_str).is_some_and(is_ours) {
                continue;
            }
            for site in &SITES {
                let path = format!("spec.{field}[{at}].{}", site.fields.join("."));
                if let Some((key, probe)) = lead(container, site, nonce, &path, refusals)
                    && probes.insert(key, probe).is_some()
                {
                    refusals.add(
                        format!("spec.{field}[{at}].name"),
                        "another container has this name",
                        "rename it",
                    );
                }
            }
        }
    }
    probes
}

fn handler<'a>(container: &'a mut Value, site: &Site) -> Option<&'a mut Map<String, Value>> {
    site.fields.iter().try_fold(container, |parent, field| parent.get_mut(field))?.as_object_mut()
}

fn lead(
    container: &mut Value,
    site: &Site,
    nonce: &Nonce,
    path: &str,
    refusals: &mut Refusals,
) -> Option<(String, Value)> {
    let ports = container.get("ports").cloned().unwrap_or_default();
    let key = format!("{nonce}/{}/{}", container.get("name")?.as_str()?, site.name);
    let handler = handler(container, site)?;
    let kind = KINDS.into_iter().find(|kind| handler.get(*kind).is_some_and(Value::is_object))?;
    let declared = handler.get(kind)?;
    // Somebody else than the application is asked, and kubelet can do that.
    if declared.get("host").and_then(Value::as_str).is_some_and(|host| !host.is_empty()) {
        return None;
    }
    let port = match number(declared.get("port"), &ports) {
        Ok(port) => port,
        Err((message, remedy)) => {
            refusals.add(format!("{path}.{kind}.port"), message, remedy);
            return None;
        }
    };
    let mut probe = json!({ "port": port, kind: declared });
    if site.is_hook {
        probe["hook"] = true.into();
    } else {
        // Kubernetes' default.
        probe["timeoutSeconds"] = handler.get("timeoutSeconds").cloned().unwrap_or_else(|| 1.into());
    }
    handler.remove(kind);
    handler.insert("httpGet".to_owned(), led(&key));
    Some((key, probe))
}

/// What kubelet asks the proxy in place of the application.
pub(super) fn led(key: &str) -> Value {
    json!({ "path": format!("/probe/{key}"), "port": ports::HEALTH, "scheme": "HTTP" })
}

/// The number of a port: itself, a number as text, or one of the container's ports by name.
fn number(port: Option<&Value>, ports: &Value) -> Result<u16, (String, &'static str)> {
    let named = |name: &str| {
        let declared =
            ports.as_array()?.iter().find(|port| port.get("name").and_then(Value::as_str) == Some(name))?;
        declared.get("containerPort").and_then(Value::as_u64)
    };
    let found = match port {
        Some(Value::String(text)) => text.parse().ok().or_else(|| named(text)).ok_or_else(|| {
            (
                format!("no port of this container is called {text:?}"),
                "write its number, or give a port that name",
            )
        })?,
        other => other.and_then(Value::as_u64).unwrap_or_default(),
    };
    match u16::try_from(found) {
        Ok(port) if checks::is_taken(port) => Err((
            format!("port {port} is the proxy's own"),
            "let the application listen on another port, or write an exec probe",
        )),
        Ok(port) if port != 0 => Ok(port),
        _ => Err((format!("expected a port from 1 to 65535, found {found}"), "correct it")),
    }
}

/// What the proxy of a pod performs.
pub(super) fn held(pod: &Pod<'_>) -> Map<String, Value> {
    let proxy = pod.containers().find(|container| container.name() == PROXY_CONTAINER);
    let variables = proxy.and_then(|proxy| proxy.fields.get("env")?.as_array());
    let of_name = |variable: &&Value| variable.get("name").and_then(Value::as_str) == Some(VARIABLE);
    let text = variables.and_then(|all| all.iter().find(of_name)?.get("value")?.as_str());
    text.and_then(|text| serde_json::from_str(&text.replace("$$", "$")).ok()).unwrap_or_default()
}

/// The nonce of what the proxy of a pod performs. None: it performs nothing, or anybody can guess how it is asked.
pub(super) fn nonce(held: &Map<String, Value>) -> Option<Nonce> {
    held.keys().find_map(|key| parts(key).0)
}

/// The nonce of a key, and what stands behind it: a container and a site.
fn parts(key: &str) -> (Option<Nonce>, &str) {
    let (first, rest) = key.split_once('/').unwrap_or_default();
    match Nonce::read(first).filter(|_| rest.contains('/')) {
        None => (None, key),
        nonce => (nonce, rest),
    }
}

/// What is held, with its key, by container and site.
fn by_site(held: &Map<String, Value>) -> BTreeMap<&str, (&str, &Value)> {
    held.iter().map(|(key, probe)| (parts(key).1, (key.as_str(), probe))).collect()
}

/// Tells the proxy of a pod what it performs from now on.
pub(super) fn hold(pod: &mut Value, probes: &Map<String, Value>) {
    for field in CONTAINERS {
        let items = pod.pointer_mut(&format!("/spec/{field}")).and_then(Value::as_array_mut);
        let name = |item: &Value| item.get("name").and_then(Value::as_str) == Some(PROXY_CONTAINER);
        let proxy = items.into_iter().flatten().find(|item| name(item)).and_then(Value::as_object_mut);
        let Some(env) = proxy.and_then(|proxy| list(proxy, "env")) else { continue };
        env.retain(|variable| variable.get("name").and_then(Value::as_str) != Some(VARIABLE));
        env.extend(variable(probes));
        return;
    }
}

/// How the proxy is told; None: it performs nothing.
pub(super) fn variable(probes: &Map<String, Value>) -> Option<Value> {
    let text = Value::from(probes.clone()).to_string();
    // Kubernetes replaces `$(NAME)` in values; `$$` is one dollar.
    (!probes.is_empty()).then(|| json!({ "name": VARIABLE, "value": text.replace('$', "$$") }))
}

/// Puts handlers back where they were.
pub(super) fn restore(pod: &mut Value, held: &Map<String, Value>) {
    let held = by_site(held);
    quiet::remove(pod, &held);
    for field in CONTAINERS {
        let items = pod.pointer_mut(&format!("/spec/{field}")).and_then(Value::as_array_mut);
        for container in items.into_iter().flatten() {
            for site in &SITES {
                let Some(name) = container.get("name").and_then(Value::as_str) else { continue };
                let Some((key, probe)) = held.get(&*format!("{name}/{}", site.name)) else { continue };
                let was = KINDS.into_iter().find_map(|kind| Some((kind, probe.get(kind)?)));
                // What somebody has replaced since is theirs.
                let is_led = |handler: &&mut Map<String, Value>| handler.get("httpGet") == Some(&led(key));
                let handler = handler(container, site).filter(is_led);
                if let (Some((kind, declared)), Some(handler)) = (was, handler) {
                    handler.remove("httpGet");
                    handler.insert(kind.to_owned(), declared.clone());
                }
            }
        }
    }
}
