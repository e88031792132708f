//! What the API server verifies our webhooks with: the leader keeps the mesh's root in their configurations. Those are
//! made and removed by whoever installs the mesh; one that is absent is nothing wrong.

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use mesh_k8s::names::{MUTATING_WEBHOOK, VALIDATING_WEBHOOK};
use serde_json::{Value, json};
use std::{pin::pin, time::Duration};

use super::{ClusterError, MANAGER, WATCH, ask, told};

/// A configuration is not written again sooner, whoever changes it; and a write that failed is not tried sooner.
const PAUSE: Duration = Duration::from_secs(1);

/// Keeps the root in both configurations, for as long as this replica leads.
pub(super) async fn keep(client: &Client, root_pem: &str) {
    let bundle = BASE64_STANDARD.encode(root_pem);
    tokio::join!(
        follow(client, "MutatingWebhookConfiguration", MUTATING_WEBHOOK, &bundle),
        follow(client, "ValidatingWebhookConfiguration", VALIDATING_WEBHOOK, &bundle),
    );
}

async fn follow(client: &Client, kind: &'static str, name: &'static str, bundle: &str) {
    let gvk = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    let resource = ApiResource::from_gvk(&gvk);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let only = watcher::Config::default().fields(&format!("metadata.name={name}")).timeout(WATCH);
    let mut events = pin!(watcher(api.clone(), only).default_backoff());
    let mut stale: Option<DynamicObject> = None;
    loop {
        if let Some(object) = stale.take() {
            match write(&api, kind, name, &object, bundle).await {
                Ok(webhooks) => {
                    tracing::info!(kind, name, ?webhooks, "the mesh's root is what they are verified with")
                }
                // Somebody was faster: the watch tells what it is now.
                Err(error) if matches!(error.code(), Some(404 | 409)) => {}
                Err(error) => {
                    tracing::warn!(%error, "webhooks may not be callable");
                    stale = Some(object);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        let next = async {
            match &stale {
                None => events.next().await,
                Some(_) => {
                    tokio::time::timeout(PAUSE, events.next()).await.unwrap_or(Some(Ok(Event::InitDone)))
                }
            }
        };
        match next.await {
            Some(Ok(Event::Apply(object) | Event::InitApply(object))) => {
                stale = (!differing(&object.data, bundle).is_empty()).then_some(object);
            }
            Some(Ok(Event::Delete(_) | Event::Init)) => stale = None,
            Some(Ok(Event::InitDone)) => {}
            Some(Err(error)) => tracing::warn!(kind, error = told(&error), "webhooks cannot be watched"),
            None => return,
        }
    }
}

/// Names of the webhooks that are verified with something else.
fn differing(configuration: &Value, bundle: &str) -> Vec<String> {
    let webhooks = configuration["webhooks"].as_array().into_iter().flatten();
    let is_other = |webhook: &&Value| webhook["clientConfig"]["caBundle"].as_str() != Some(bundle);
    webhooks.filter(is_other).filter_map(|webhook| webhook["name"].as_str().map(str::to_owned)).collect()
}

/// The change that only sets what the webhooks are verified with, and only if nothing else has changed.
fn patch(object: &DynamicObject, names: &[String], bundle: &str) -> Value {
    let webhook = |name: &String| json!({"name": name, "clientConfig": {"caBundle": bundle}});
    json!({
        "metadata": {"resourceVersion": object.metadata.resource_version},
        "webhooks": names.iter().map(webhook).collect::<Vec<_>>(),
    })
}

async fn write(
    api: &Api<DynamicObject>,
    kind: &str,
    name: &str,
    object: &DynamicObject,
    bundle: &str,
) -> Result<Vec<String>, ClusterError> {
    let names = differing(&object.data, bundle);
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    let change = Patch::Strategic(patch(object, &names, bundle));
    ask(|| format!("change the {kind} {name}"), api.patch(name, &params, &change)).await?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_changed() {
        let webhook =
            |name: &str, config: Value| json!({"name": name, "clientConfig": config, "sideEffects": "None"});
        let object: DynamicObject = serde_json::from_value(json!({
            "metadata": {"name": "mesh-injector", "resourceVersion": "7"},
            "webhooks": [
                webhook("a", json!({"service": {"name": "x"}})),
                webhook("b", json!({"caBundle": "cm9vdA=="})),
                webhook("c", json!({"caBundle": "b2xk"})),
            ],
        }))
        .unwrap();
        let names = differing(&object.data, "cm9vdA==");
        assert_eq!(names, ["a", "c"]);
        assert_eq!(
            patch(&object, &names, "cm9vdA=="),
            json!({"metadata": {"resourceVersion": "7"}, "webhooks": [
                {"name": "a", "clientConfig": {"caBundle": "cm9vdA=="}},
                {"name": "c", "clientConfig": {"caBundle": "cm9vdA=="}},
            ]})
        );
        for strange in [json!({}), json!({"webhooks": 1}), json!({"webhooks": [1, {"clientConfig": 2}]})] {
            assert!(differing(&strange, "x").is_empty(), "{strange}");
        }
    }
}
