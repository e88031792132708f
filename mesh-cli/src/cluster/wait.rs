//! Waiting for the cluster, with the reason where waiting does not help.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Event, Pod},
};
use kube::{
    Api,
    api::{ListParams, LogParams},
};
use serde_json::Value;

use super::{Cluster, ClusterError, objects::Id, preflight, refused};
use crate::chart::NAMESPACE;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(200);
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

/// Why something did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    /// It took too long.
    #[error("{what} within {within:?}: {state}")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// How long.
        within: Duration,
        /// How it stands.
        state: String,
    },
    /// It will not happen.
    #[error("the controller does not start: {0}")]
    Hopeless(String),
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Until when, and how long that was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    end: Instant,
    within: Duration,
}

impl Deadline {
    pub(crate) fn new(within: Duration) -> Self {
        Self { end: Instant::now() + within, within }
    }

    /// Waits a moment; an error when it is over.
    async fn pause(self, what: &'static str, state: String) -> Result<(), WaitError> {
        if Instant::now() >= self.end {
            return Err(WaitError::Late { what, within: self.within, state });
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// Waits until kinds are served.
///
/// # Errors
/// When they are not in time.
pub(crate) async fn established(cluster: &Cluster, ids: &[Id], deadline: Deadline) -> Result<(), WaitError> {
    for id in ids {
        loop {
            let object = id.read(cluster).await?.unwrap_or_default();
            if condition(&object, "Established").is_some_and(|c| c["status"] == "True") {
                break;
            }
            let refused = condition(&object, "NamesAccepted").filter(|c| c["status"] == "False");
            let state = refused.and_then(|c| c["message"].as_str()).unwrap_or("not established");
            deadline.pause("the kind is not served", format!("{id}: {state}")).await?;
        }
    }
    Ok(())
}

/// Waits until all replicas of the controller are new and ready; `say` hears how it goes.
///
/// # Errors
/// When they are not in time, or will not be.
pub(crate) async fn rolled_out(
    cluster: &Cluster,
    deadline: Deadline,
    mut say: impl FnMut(&str),
) -> Result<(), WaitError> {
    let mut said = String::new();
    loop {
        let object = preflight::deployment().read(cluster).await?.unwrap_or_default();
        let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        let wanted = number("/spec/replicas");
        let (updated, ready) = (number("/status/updatedReplicas"), number("/status/availableReplicas"));
        let seen = number("/status/observedGeneration") >= number("/metadata/generation");
        if seen && wanted > 0 && updated >= wanted && ready >= wanted && number("/status/replicas") == wanted
        {
            return Ok(());
        }
        let mut state = format!("{updated} of {wanted} started, {ready} ready");
        if said != state {
            say(&state);
            said.clone_from(&state);
        }
        if let Some(failure) = condition(&object, "ReplicaFailure").filter(|c| c["status"] == "True") {
            let message = failure["message"].as_str().unwrap_or_default();
            return Err(WaitError::Hopeless(format!("no pod can be made: {message}")));
        }
        let newest = if seen { newest(cluster, &object).await? } else { None };
        if let Some(hash) = newest
            && let Some(trouble) = trouble(cluster, &hash).await?
        {
            if trouble.is_hopeless {
                return Err(WaitError::Hopeless(trouble.text));
            }
            state = format!("{state}; {}", trouble.text);
        }
        deadline.pause("the controller is not ready", state).await?;
    }
}

/// Waits until the API server can know the controller's certificate.
///
/// # Errors
/// When it cannot in time.
pub(crate) async fn trusted(cluster: &Cluster, webhooks: &[Id], deadline: Deadline) -> Result<(), WaitError> {
    for id in webhooks {
        loop {
            let object = id.read(cluster).await?.unwrap_or_default();
            let hooks = object["webhooks"].as_array();
            let has = |hook: &Value| hook["clientConfig"]["caBundle"].as_str().is_some_and(|b| !b.is_empty());
            if hooks.is_some_and(|hooks| !hooks.is_empty() && hooks.iter().all(has)) {
                break;
            }
            let state =
                format!("{id} has no caBundle; see `kubectl -n {NAMESPACE} logs deploy/mesh-controller`");
            deadline.pause("the controller has not given the API server its root certificate", state).await?;
        }
    }
    Ok(())
}

/// Waits until objects are gone.
///
/// # Errors
/// When they are not in time.
pub(crate) async fn gone(cluster: &Cluster, ids: &[Id], deadline: Deadline) -> Result<(), WaitError> {
    for id in ids {
        while let Some(object) = id.read(cluster).await? {
            let why = object["status"]["conditions"].as_array().into_iter().flatten();
            let why = why.filter(|c| c["status"] == "True").filter_map(|c| c["message"].as_str());
            let state = format!("{id} is still there {}", why.collect::<Vec<_>>().join("; "));
            deadline.pause("not all is gone", state).await?;
        }
    }
    Ok(())
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// What keeps a pod of the controller from running.
pub(crate) struct Trouble {
    pub(crate) text: String,
    is_hopeless: bool,
}

/// What tells the newest pods of the controller: those of an earlier attempt may be past help.
async fn newest(cluster: &Cluster, deployment: &Value) -> Result<Option<String>, ClusterError> {
    const REVISION: &str = "deployment.kubernetes.io/revision";
    let api: Api<ReplicaSet> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let sets = api.list(&ListParams::default().labels(CONTROLLER)).await;
    let sets = sets.map_err(|error| refused("listing the controller's replica sets", &error))?;
    let wanted = deployment["metadata"]["annotations"][REVISION].as_str();
    let is_newest = |set: &ReplicaSet| {
        wanted.is_some()
            && set.metadata.annotations.as_ref().and_then(|a| a.get(REVISION)).map(String::as_str) == wanted
    };
    let found = sets.into_iter().find(is_newest);
    Ok(found.and_then(|set| set.metadata.labels?.remove("pod-template-hash")))
}

async fn trouble(cluster: &Cluster, hash: &str) -> Result<Option<Trouble>, ClusterError> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
    let labels = format!("{CONTROLLER},pod-template-hash={hash}");
    let pods = api.list(&ListParams::default().labels(&labels)).await;
    let pods = pods.map_err(|error| refused("listing the controller's pods", &error))?;
    let mut first = None;
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let pod = serde_json::to_value(&pod).unwrap_or_default();
        let found = match pod_trouble(&name, &pod) {
            Some(found) => found,
            None => match warning(cluster, &name).await {
                Some(text) => Trouble { text: format!("pod {name}: {text}"), is_hopeless: false },
                None => continue,
            },
        };
        let Trouble { mut text, is_hopeless } = found;
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
    Some(format!("{}: {}", last.reason.unwrap_or_default(), last.message.unwrap_or_default()))
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
    for container in pod["status"]["containerStatuses"].as_array()? {
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
