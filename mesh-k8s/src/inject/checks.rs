//! What an application must not do in a pod that has a proxy.

use mesh_core::ports;
use serde_json::Value;

use super::{
    PROXY_UID, Refusals, containers,
    shape::{self, Pod},
};
use crate::{labels, nearest::nearest, parse::TLS_MODES};

/// Ports of the proxy.
const TAKEN: [u16; 4] = [ports::ADMIN, ports::OUTBOUND, ports::INBOUND, ports::HEALTH];

/// True for the proxy's own ports.
pub(super) fn is_taken(port: u16) -> bool {
    TAKEN.contains(&port)
}

/// Refuses what does not go together with a proxy. `is_injected`: the mesh's own containers and volumes are there.
pub(super) fn run(pod: &Pod<'_>, is_injected: bool, refusals: &mut Refusals) {
    if let Some(context) = pod.spec.get("securityContext") {
        user("spec", context, refusals);
    }
    for container in pod.containers() {
        let (path, name) = (&container.path, container.name());
        if shape::is_ours(name) {
            if is_injected {
                continue;
            }
            let message =
                format!("the name {name} is the mesh's, and the mesh did not put this container there");
            refusals.add(format!("{path}.name"), message, "give it another name");
        }
        if let Some(context) = container.fields.get("securityContext") {
            user(path, context, refusals);
        }
        let declared = container.fields.get("ports").and_then(Value::as_array).into_iter().flatten();
        for (at, port) in declared.enumerate() {
            let number = port.get("containerPort").and_then(Value::as_u64).unwrap_or_default();
            if let Some(number) = u16::try_from(number).ok().filter(|number| is_taken(*number)) {
                let message = format!("the proxy listens on port {number}");
                let field = format!("{path}.ports[{at}].containerPort");
                refusals.add(field, message, "let the application listen on another port");
            }
        }
    }
    let volumes = pod.spec.get("volumes").and_then(Value::as_array).into_iter().flatten();
    for (at, volume) in volumes.enumerate() {
        let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
        if !is_injected && containers::VOLUMES.contains(&name) {
            let message = format!("the name {name} is the mesh's");
            refusals.add(format!("spec.volumes[{at}].name"), message, "give it another name");
        }
    }
    names(pod, refusals);
}

fn user(path: &str, context: &Value, refusals: &mut Refusals) {
    if context.get("runAsUser").and_then(Value::as_u64) == Some(PROXY_UID.into()) {
        let message =
            format!("{PROXY_UID} is the proxy's user: what others send as it would pass by the mesh");
        refusals.add(format!("{path}.securityContext.runAsUser"), message, "let it run as another user");
    }
}

/// Labels and annotations of the mesh that mean nothing on a pod.
fn names(pod: &Pod<'_>, refusals: &mut Refusals) {
    for (field, name) in pod.ours() {
        if name == labels::MTLS {
            mtls(pod, field, refusals);
        }
        if let Some((message, remedy)) = labels::stray_on_pod(field, name) {
            refusals.add(shape::path(field, name), message, remedy);
        }
    }
}

/// What is no mode would refuse the whole pod once it runs, when its author looks no more.
fn mtls(pod: &Pod<'_>, field: &str, refusals: &mut Refusals) {
    let said = |field: &str| pod.texts(field).get(labels::MTLS).and_then(Value::as_str);
    let Some(text) = said(field) else { return };
    let path = shape::path(field, labels::MTLS);
    let words = TLS_MODES.map(|(word, _)| word);
    if !words.contains(&text) {
        let remedy = match nearest(text, words) {
            Some(word) => format!("did you mean {word:?}?"),
            None => format!("write {}", words.join(" or ")),
        };
        refusals.add(path, format!("{text:?} is not known"), remedy);
    } else if field == "annotations"
        && let Some(label) = said("labels").filter(|label| *label != text && words.contains(label))
    {
        refusals.add(path, format!("it says {text:?}, and the label says {label:?}"), "keep one of them");
    }
}
