//! What follows from a pod: pure functions.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use mesh_core::interception::UNCAPTURED;
use mesh_k8s::{labels, names};
use serde::Serialize;

/// On the API server's picture of a pod that kubelet reads from a file.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What the plugin is told about a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It is of the mesh: flags of `mesh-proxy init`.
    Args(Vec<String>),
    /// It is not, and why.
    Skip(String),
    /// It is not known.
    Error(String),
}

impl Verdict {
    pub(super) fn skip(why: &str) -> Self {
        Self::Skip(why.to_owned())
    }

    /// About a pod.
    pub(super) fn of(pod: &Pod) -> Self {
        let annotations = pod.metadata.annotations.as_ref();
        let annotation = |name: &str| annotations.and_then(|all| all.get(name));
        let Some(text) = annotation(labels::INTERCEPTION) else {
            return Self::skip("it does not ask for rules from the node");
        };
        if annotation(MIRROR).is_some() {
            return Self::skip("kubelet reads it from a file");
        }
        let Some(spec) = &pod.spec else { return Self::skip("it has no spec") };
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let has = |name: &str| spec.containers.iter().chain(init).any(|container| container.name == name);
        if has(names::INIT_CONTAINER) {
            return Self::skip("its init container mesh-init writes its rules");
        }
        if !has(names::PROXY_CONTAINER) {
            return Self::skip("it has no proxy");
        }
        match serde_json::from_str(text) {
            Ok(args) => Self::Args(args),
            Err(error) => Self::Error(format!(
                "its annotation {} is no JSON list of texts ({error}): remove it and let the pod be injected",
                labels::INTERCEPTION
            )),
        }
    }
}

/// True if the pod's proxy has found, in its last life, that it has no rules.
pub(super) fn is_raced(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let lists = [status.container_statuses.as_deref(), status.init_container_statuses.as_deref()];
    let looks = [names::PROXY_CONTAINER, names::CHECK_CONTAINER];
    let mut all = lists.into_iter().flatten().flatten();
    let has_raced = all.any(|container| looks.contains(&&*container.name) && is_uncaptured(container));
    let is_going = pod.metadata.deletion_timestamp.is_some();
    !is_going && has_raced
}

fn is_uncaptured(proxy: &ContainerStatus) -> bool {
    let is_code = |state: &ContainerState| {
        state.terminated.as_ref().is_some_and(|ended| ended.exit_code == i32::from(UNCAPTURED))
    };
    let (now, last) = (proxy.state.as_ref(), proxy.last_state.as_ref());
    let is_waiting = now.is_some_and(|state| state.waiting.is_some());
    now.is_some_and(is_code) || (is_waiting && last.is_some_and(is_code))
}

/// Who makes another pod when this one is deleted, as in `ReplicaSet cart-1`. None: nobody.
pub(super) fn owner(pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let mut makers = owners.iter().filter(|owner| owner.controller == Some(true) && owner.kind != "Node");
    makers.next().map(|owner| format!("{} {}", owner.kind, owner.name))
}
