//! Before a container is told to end, the proxy waits until nobody calls its pod any more.
//!
//! Callers learn a moment later than the pod itself that it goes. Applications that end at once fail the calls of that
//! moment; with a `preStop` hook that the proxy answers, none is left when they are told.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Nonce, Refusals,
    containers::GRACE,
    options, probes,
    shape::{CONTAINERS, Pod},
};
use crate::{labels, names::PROXY_CONTAINER};

/// What the hook is called among the held probes.
pub(super) const KIND: &str = "quietSeconds";
/// Longest time to wait, in seconds, and at most this part of the time that the pod has to end.
const AT_MOST: u64 = 5;
const PART: u64 = 3;

/// How long the proxy waits at most, in seconds. None: not at all.
pub(super) fn at_most(pod: &Pod<'_>, native: bool, refusals: &mut Refusals) -> Option<u64> {
    match pod.annotation(labels::WAIT_BEFORE_STOP) {
        None | Some("enabled") => {}
        Some("disabled") => return None,
        Some(text) => options::refuse(refusals, labels::WAIT_BEFORE_STOP, text, "enabled or disabled"),
    }
    // A classic proxy is told to end when the application is. Jobs serve nobody.
    let serves =
        pod.spec.get("restartPolicy").and_then(Value::as_str).is_none_or(|policy| policy == "Always");
    let grace = pod.spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(GRACE);
    let seconds = AT_MOST.min(grace / PART);
    (native && serves && seconds > 0).then_some(seconds)
}

/// Gives each container that has no `preStop` hook this one, which waits at most so many seconds, if at all.
pub(super) fn add(pod: &mut Value, seconds: Option<u64>, nonce: &Nonce, held: &mut Map<String, Value>) {
    let Some(seconds) = seconds else { return };
    let containers = pod.pointer_mut("/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
        let Some(name) = container.get("name").and_then(Value::as_str) else { continue };
        let key = format!("{nonce}/{name}/pre-stop");
        let lifecycle = container.get("lifecycle");
        // An empty one could not be told from none when it is put back.
        let is_free = lifecycle.is_none_or(|hooks| {
            hooks.as_object().is_some_and(|hooks| !hooks.is_empty() && !hooks.contains_key("preStop"))
        });
        if name == PROXY_CONTAINER || !is_free {
            continue;
        }
        let hooks = container.entry("lifecycle").or_insert_with(|| json!({}));
        hooks["preStop"] = json!({ "httpGet": probes::led(&key) });
        held.insert(key, json!({ KIND: seconds }));
    }
}

/// Takes these hooks out again, unless somebody has replaced them since. `held` is by container and site, with its keys.
pub(super) fn remove(pod: &mut Value, held: &BTreeMap<&str, (&str, &Value)>) {
    for field in CONTAINERS {
        let items = pod.pointer_mut(&format!("/spec/{field}")).and_then(Value::as_array_mut);
        for container in items.into_iter().flatten().filter_map(Value::as_object_mut) {
            let Some(name) = container.get("name").and_then(Value::as_str) else { continue };
            let Some((key, hook)) = held.get(&*format!("{name}/pre-stop")) else { continue };
            let Some(hooks) = container.get_mut("lifecycle").and_then(Value::as_object_mut) else { continue };
            let is_ours =
                hooks.get("preStop").and_then(|hook| hook.get("httpGet")) == Some(&probes::led(key));
            if hook.get(KIND).is_none() || !is_ours {
                continue;
            }
            hooks.remove("preStop");
            if hooks.is_empty() {
                container.remove("lifecycle");
            }
        }
    }
}
