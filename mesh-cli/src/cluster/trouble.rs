//! What keeps pods of the mesh from running, and whether it will pass.

use std::collections::HashSet;

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Event, Pod},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, LogParams},
};
use serde_json::Value;

use super::{Cluster, ClusterError, refused};
use crate::chart::NAMESPACE;

/// Last lines of a log that are shown.
const LINES: i64 = 5;
/// Reasons of waiting that do not pass by themselves, or not soon.
const HOPELESS: [&str; 7] = [
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];
/// Labels of the controller's pods.
pub(crate) const CONTROLLER: &str = "app.kubernetes.io/name=mesh-controller,app.kubernetes.io/part-of=mesh";

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// What keeps a pod from running.
pub(crate) struct Trouble {
    pub(crate) text: String,
    pub(super) is_hopeless: bool,
}

/// What keeps the newest pods of the controller from running.
pub(super) async fn of_controller(
    cluster: &Cluster,
    deployment: &Value,
    stuck: &HashSet<String>,
) -> Result<Option<Trouble>, ClusterError> {
    const REVISION: &str = "deployment.kubernetes.io/revision";
    let Some(wanted) = deployment["metadata"]["annotations"][REVISION].as_str() else { return Ok(None) };
    let sets = replica_sets(cluster).await?;
    let newest = sets.iter().find(|set| set["metadata"]["annotations"][REVISION] == wanted);
    let Some(set) = newest else { return Ok(None) };
    if let Some(text) = cannot_make(set) {
        return Ok(Some(Trouble { text, is_hopeless: !stuck.contains(uid(set)) }));
    }
    match set["metadata"]["labels"]["pod-template-hash"].as_str() {
        Some(hash) => of_pods(cluster, &format!("{CONTROLLER},pod-template-hash={hash}"), stuck).await,
        None => Ok(None),
    }
}

async fn replica_sets(cluster: &Cluster) -> Result<Vec<Value>, ClusterError> {
    let api: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let sets = api.list(&ListParams::default().labels(CONTROLLER)).await;
    let sets = sets.map_err(|error| refused("listing the controller's replica sets", &error))?;
    Ok(sets.iter().map(|set| serde_json::to_value(set).unwrap_or_default()).collect())
}

/// Why a replica set can make no pods.
fn cannot_make(set: &Value) -> Option<String> {
    let failure = condition(set, "ReplicaFailure").filter(|c| c["status"] == "True")?;
    Some(format!("no pod can be made: {}", failure["message"].as_str().unwrap_or_default()))
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// What of the mesh is past help as it is, by its UID.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn stuck(cluster: &Cluster) -> Result<HashSet<String>, ClusterError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let pods = api.list(&ListParams::default().labels("app.kubernetes.io/part-of=mesh")).await;
    let pods = pods.map_err(|error| refused("listing the mesh's pods", &error))?;
    let mut stuck: HashSet<String> = HashSet::new();
    for pod in pods {
        let pod = serde_json::to_value(&pod).unwrap_or_default();
        if pod_trouble("", &pod).is_some_and(|trouble| trouble.is_hopeless) {
            stuck.insert(uid(&pod).to_owned());
        }
    }
    let sets = replica_sets(cluster).await?;
    stuck.extend(sets.iter().filter(|set| cannot_make(set).is_some()).map(|set| uid(set).to_owned()));
    Ok(stuck)
}

/// What keeps pods with these labels from running; those that are `stuck` are deleted, so that others are made at once.
pub(super) async fn of_pods(
    cluster: &Cluster,
    labels: &str,
    stuck: &HashSet<String>,
) -> Result<Option<Trouble>, ClusterError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let pods = api.list(&ListParams::default().labels(labels)).await;
    let pods = pods.map_err(|error| refused("listing the mesh's pods", &error))?;
    let mut first = None;
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let pod = serde_json::to_value(&pod).unwrap_or_default();
        let Some(Trouble { mut text, mut is_hopeless }) = pod_trouble(&name, &pod) else {
            let is_ready = condition(&pod, "Ready").is_some_and(|c| c["status"] == "True");
            if first.is_none() && !is_ready {
                let of = |text| Trouble { text: format!("pod {name}: {text}"), is_hopeless: false };
                first = warning(cluster, &name).await.map(of);
            }
            continue;
        };
        if is_hopeless && stuck.contains(uid(&pod)) {
            // As it is, it would be tried again in minutes only. Whoever must not delete it waits for that.
            let _deleted = api.delete(&name, &DeleteParams::default()).await;
            is_hopeless = false;
        }
        if is_hopeless && text.contains("CrashLoopBackOff") {
            let params = LogParams { previous: true, tail_lines: Some(LINES), ..LogParams::default() };
            let log = api.logs(&name, &params).await.unwrap_or_default();
            for line in log.lines() {
                text.push_str("\n  ");
                text.push_str(line);
            }
        }
        if is_hopeless {
            return Ok(Some(Trouble { text, is_hopeless }));
        }
        first.get_or_insert(Trouble { text, is_hopeless });
    }
    Ok(first)
}

/// The last warning of a pod, such as that its sandbox or a volume cannot be made; None also where it must not be read.
async fn warning(cluster: &Cluster, pod: &str) -> Option<String> {
    let api: Api<Event> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let of = format!("involvedObject.kind=Pod,involvedObject.name={pod},type=Warning");
    let events = api.list(&ListParams::default().fields(&of)).await.ok()?;
    let last = events.items.into_iter().max_by_key(|event| event.last_timestamp.clone())?;
    Some(format!("{}: {}", last.reason.unwrap_or_default(), last.message.unwrap_or_default().trim()))
}

/// What keeps a pod from running, as its status tells it.
pub(crate) fn pod_trouble(name: &str, pod: &Value) -> Option<Trouble> {
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return None;
    }
    let scheduled = condition(pod, "PodScheduled").filter(|c| c["status"] == "False");
    if let Some(message) = scheduled.and_then(|c| c["message"].as_str()) {
        return Some(Trouble { text: format!("pod {name} has no node: {message}"), is_hopeless: false });
    }
    let statuses = |kind: &str| pod["status"][kind].as_array().into_iter().flatten();
    for container in statuses("initContainerStatuses").chain(statuses("containerStatuses")) {
        let waiting = &container["state"]["waiting"];
        let Some(reason) = waiting["reason"].as_str() else { continue };
        let is_hopeless = HOPELESS.contains(&reason);
        let message = waiting["message"].as_str().unwrap_or_default();
        let ended = &container["lastState"]["terminated"];
        let code = ended["exitCode"].as_i64().map(|code| format!(", exit code {code}")).unwrap_or_default();
        if is_hopeless || reason == "ErrImagePull" {
            return Some(Trouble { text: format!("pod {name}: {reason}{code}: {message}"), is_hopeless });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_says_why() {
        let check = |pod: &Value, expected: Option<(&str, bool)>| {
            let found = pod_trouble("a", pod);
            let found = found.as_ref().map(|trouble| (trouble.text.as_str(), trouble.is_hopeless));
            assert_eq!(found, expected, "{pod}");
        };
        let waiting = |reason: &str| {
            let waiting = json!({"waiting": {"reason": reason, "message": "it said"}});
            json!({"status": {"containerStatuses": [{"state": waiting,
                "lastState": {"terminated": {"exitCode": 2}}}]}})
        };
        check(&waiting("ImagePullBackOff"), Some(("pod a: ImagePullBackOff, exit code 2: it said", true)));
        check(&waiting("ErrImagePull"), Some(("pod a: ErrImagePull, exit code 2: it said", false)));
        check(&waiting("ContainerCreating"), None);
        let nowhere = json!([{"type": "PodScheduled", "status": "False", "message": "no nodes"}]);
        check(&json!({"status": {"conditions": nowhere}}), Some(("pod a has no node: no nodes", false)));
        let mut going = waiting("CrashLoopBackOff");
        going["metadata"] = json!({"deletionTimestamp": "now"});
        check(&going, None);
        check(&json!({}), None);
    }
}
