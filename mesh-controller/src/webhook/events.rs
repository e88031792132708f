//! Events of Kubernetes: what people see with `kubectl get events`.

use std::{
    sync::{Mutex, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use kube::{
    Client,
    api::{Api, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::limit::Bucket;

/// Events at once, and in the long run per second: whoever reaches the webhook can cause them.
const BURST: u32 = 20;
const PER_SECOND: f64 = 1.0;

/// Writes Events.
pub(super) struct Events {
    client: Client,
    limit: Mutex<Bucket>,
}

impl Events {
    pub(super) fn new(client: Client) -> Self {
        Self { client, limit: Mutex::new(Bucket::new(BURST, PER_SECOND, Instant::now())) }
    }

    /// Says something of a pod that does not exist yet: of what makes it, if something does.
    pub(super) async fn warn(&self, namespace: &str, pod: &Value, reason: &str, message: &str) {
        if !self.limit.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
            return;
        }
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Event"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        let event = event(namespace, pod, reason, message);
        let written = match serde_json::from_value(event) {
            Ok(event) => api.create(&PostParams::default(), &event).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = written {
            tracing::warn!(namespace, error, "an event cannot be written");
        }
    }
}

/// An Event about the owner of a pod, or about the pod itself.
fn event(namespace: &str, pod: &Value, reason: &str, message: &str) -> Value {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owner = owners.and_then(|all| all.iter().find(|owner| owner.get("controller") == Some(&json!(true))));
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let metadata = pod.get("metadata").unwrap_or(&Value::Null);
    let about = match owner {
        Some(owner) => json!({ "apiVersion": text(owner, "apiVersion"), "kind": text(owner, "kind"),
            "name": text(owner, "name"), "uid": text(owner, "uid"), "namespace": namespace }),
        None => {
            let name = Some(text(metadata, "name")).filter(|name| !name.is_empty());
            let name = name.unwrap_or_else(|| text(metadata, "generateName"));
            json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace })
        }
    };
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = OffsetDateTime::from_unix_timestamp(i64::try_from(since.as_secs()).unwrap_or_default());
    let now = now.ok().and_then(|now| now.format(&Rfc3339).ok());
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "generateName": "mesh-inject.", "namespace": namespace },
        "involvedObject": about,
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": { "component": "mesh-controller" },
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_about_what_makes_a_pod() {
        let owner = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": true });
        let mut pod = json!({ "metadata": { "generateName": "web-1-" } });
        assert_eq!(event("shop", &pod, "R", "m")["involvedObject"]["name"], "web-1-");
        pod["metadata"]["ownerReferences"] = json!([{ "kind": "X" }, owner]);
        let about = event("shop", &pod, "R", "m")["involvedObject"].clone();
        assert_eq!(
            (&about["kind"], &about["uid"], &about["namespace"]),
            (&json!("ReplicaSet"), &json!("u"), &json!("shop"))
        );
        assert_eq!(event("shop", &Value::Null, "R", "m")["involvedObject"]["kind"], "Pod");
    }
}
