//! Objects that make pods.

use serde_json::Value;

use super::{Config, Nonce, Outcome, Refusal, Server, inject, uninject};

/// Kinds that make pods, and where the pod's template stands in them (RFC 6901).
const KINDS: [(&str, &str, &str); 8] = [
    ("v1", "Pod", ""),
    ("v1", "ReplicationController", "/spec/template"),
    ("apps/v1", "Deployment", "/spec/template"),
    ("apps/v1", "DaemonSet", "/spec/template"),
    ("apps/v1", "StatefulSet", "/spec/template"),
    ("apps/v1", "ReplicaSet", "/spec/template"),
    ("batch/v1", "Job", "/spec/template"),
    ("batch/v1", "CronJob", "/spec/jobTemplate/spec/template"),
];

/// Where the pod stands in an object that makes pods (a JSON pointer); None: it makes none.
fn template_of(object: &Value) -> Option<&'static str> {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let (version, kind) = (text("apiVersion")?, text("kind")?);
    KINDS.iter().find(|(v, k, _)| (*v, *k) == (version, kind)).map(|(.., pointer)| *pointer)
}

/// Puts a proxy into the pods of an object. Fields of refusals are told from the object on. None: it makes no pods.
#[must_use]
pub fn inject_object(
    object: &Value,
    config: &Config,
    server: Option<Server>,
    nonce: &Nonce,
) -> Option<Outcome> {
    let pointer = template_of(object)?;
    let outcome = inject(object.pointer(pointer).unwrap_or(&Value::Null), config, server, nonce);
    Some(match outcome {
        Outcome::Injected(new) => Outcome::Injected(with(object, pointer, new)),
        Outcome::Refused(refusals) => {
            let prefix = pointer.replace('/', ".");
            let prefix = prefix.strip_prefix('.').map(|path| format!("{path}.")).unwrap_or_default();
            let place = |r: Refusal| Refusal { field: format!("{prefix}{}", r.field), ..r };
            Outcome::Refused(refusals.into_iter().map(place).collect())
        }
        skipped @ Outcome::Skipped(_) => skipped,
    })
}

/// Takes the proxy out of the pods of an object. None: there is none.
#[must_use]
pub fn uninject_object(object: &Value) -> Option<Value> {
    let pointer = template_of(object)?;
    Some(with(object, pointer, uninject(object.pointer(pointer)?)?))
}

fn with(object: &Value, pointer: &str, pod: Value) -> Value {
    let mut changed = object.clone();
    if let Some(place) = changed.pointer_mut(pointer) {
        *place = pod;
    }
    changed
}
