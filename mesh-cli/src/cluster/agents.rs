//! The agents of the CNI plugin, one on each node: pods of the mesh start where one is ready, and each takes the plugin out of
//! its node's network configuration as it ends.

use std::collections::{BTreeSet, HashSet};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::Value;

use super::{
    Cluster, ClusterError,
    objects::Id,
    refused,
    trouble::{self, Trouble},
    wait::{self, Deadline, WaitError},
};
use crate::{chart::NAMESPACE, out::units};

/// Labels of the agents.
const AGENT: &str = "app.kubernetes.io/name=mesh-cni,app.kubernetes.io/part-of=mesh";
/// Where nodes have their network configuration, unless the DaemonSet says otherwise.
const CONFIGURATION: &str = "/etc/cni/net.d";

/// The DaemonSet that runs them.
pub(crate) fn daemon_set() -> Id {
    Id {
        api_version: "apps/v1".to_owned(),
        kind: "DaemonSet".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: "mesh-cni".to_owned(),
    }
}

/// Waits until each node has an agent that is new and ready: as long as it goes on, for there may be many nodes. `say` hears
/// how it goes; what was `stuck` before is tried anew.
///
/// # Errors
/// When nothing moves any more, or they will not be ready.
pub(crate) async fn rolled_out(
    cluster: &Cluster,
    mut deadline: Deadline,
    stuck: &HashSet<String>,
    mut say: impl FnMut(&str),
) -> Result<(), WaitError> {
    let what = "the agents of the CNI plugin are not ready";
    let (mut said, mut best) = (String::new(), 0);
    loop {
        let Some(object) = deadline.heard(what, daemon_set().read(cluster).await).await? else { continue };
        let object = object.unwrap_or_default();
        let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        let wanted = number("/status/desiredNumberScheduled");
        let (updated, ready) = (number("/status/updatedNumberScheduled"), number("/status/numberReady"));
        let seen = number("/status/observedGeneration") >= number("/metadata/generation");
        if seen && !object.is_null() && updated == wanted && ready == wanted {
            return Ok(());
        }
        let mut state = format!("{updated} of {wanted} nodes have the new one, {ready} ready");
        if seen && said != state {
            say(&state);
            said.clone_from(&state);
        }
        if seen && updated + ready > best {
            best = updated + ready;
            deadline = deadline.renewed();
        }
        let answer = if seen { trouble::of_pods(cluster, &newest(&object), stuck).await } else { Ok(None) };
        let Some(found) = deadline.heard(what, answer).await? else { continue };
        if let Some(Trouble { text, is_hopeless }) = found {
            if is_hopeless {
                return Err(WaitError::Hopeless { what: "an agent of the CNI plugin", reason: text });
            }
            state = format!("{state}; {text}");
        }
        deadline.pause(what, state).await?;
    }
}

/// Labels of the pods that its last template has made, where the cluster notes that.
fn newest(daemon_set: &Value) -> String {
    match daemon_set["metadata"]["annotations"]["deprecated.daemonset.template.generation"].as_str() {
        Some(generation) => format!("{AGENT},pod-template-generation={generation}"),
        None => AGENT.to_owned(),
    }
}

/// How they stand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Agents {
    /// Pods that are ready.
    ready: Vec<String>,
    /// Nodes whose agent is not: nobody would take the plugin out there.
    pub(crate) without: Vec<String>,
    /// Nodes that have none, and that no pod tells the names of.
    pub(crate) unknown: usize,
    /// Where those nodes have their network configuration.
    pub(crate) configuration: String,
}

impl Agents {
    /// Looks for them; None: there is no DaemonSet.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub(crate) async fn find(cluster: &Cluster) -> Result<Option<Self>, ClusterError> {
        let Some(object) = daemon_set().read(cluster).await? else { return Ok(None) };
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), NAMESPACE);
        let pods = api.list(&ListParams::default().labels(AGENT)).await;
        let pods = pods.map_err(|error| refused("listing the agents of the CNI plugin", &error))?;
        let pods: Vec<Value> = pods.iter().map(|pod| serde_json::to_value(pod).unwrap_or_default()).collect();
        Ok(Some(Self::of(&object, &pods)))
    }

    fn of(daemon_set: &Value, pods: &[Value]) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let is_ready = |pod: &&Value| {
            pod["metadata"]["deletionTimestamp"].is_null()
                && trouble::condition(pod, "Ready").is_some_and(|c| c["status"] == "True")
        };
        let nodes = |pods: &[&Value]| -> BTreeSet<String> {
            pods.iter().map(|pod| text(&pod["spec"]["nodeName"])).filter(|node| !node.is_empty()).collect()
        };
        let (ready, others): (Vec<&Value>, Vec<&Value>) = pods.iter().partition(is_ready);
        let served = nodes(&ready);
        let without: Vec<String> = nodes(&others).difference(&served).cloned().collect();
        let desired = daemon_set["status"]["desiredNumberScheduled"].as_u64().unwrap_or(0);
        let known = served.len() + without.len();
        let volumes = daemon_set["spec"]["template"]["spec"]["volumes"].as_array().into_iter().flatten();
        let path =
            volumes.filter(|volume| volume["name"] == "conf").find_map(|v| v["hostPath"]["path"].as_str());
        Self {
            ready: ready.iter().map(|pod| text(&pod["metadata"]["name"])).collect(),
            without,
            unknown: usize::try_from(desired).unwrap_or(usize::MAX).saturating_sub(known),
            configuration: path.unwrap_or(CONFIGURATION).to_owned(),
        }
    }

    /// True where every node has one that is ready.
    pub(crate) fn are_ready(&self) -> bool {
        self.without.is_empty() && self.unknown == 0
    }

    /// What is to be done by hand when they are gone: none where all were ready.
    pub(crate) fn stay_chained(&self) -> Option<String> {
        (!self.are_ready()).then(|| {
            format!(
                "no agent was ready to take the CNI plugin out ({}): where it is still in the files in {}, no pod starts until you \
                 remove its entry, the one with \"type\": \"mesh-cni\"",
                self.nodes(),
                self.configuration
            )
        })
    }

    /// The nodes that have none.
    pub(crate) fn nodes(&self) -> String {
        match (self.without.as_slice(), self.unknown) {
            ([], unknown) => format!("{} without an agent", units::count(unknown, "node", "nodes")),
            (names, 0) => names.join(", "),
            (names, unknown) => format!("{} and {unknown} more", names.join(", ")),
        }
    }
}

/// Deletes the DaemonSet, and waits until the agents that are ready have ended: each takes the plugin out as it ends. Gives how
/// they stood.
///
/// # Errors
/// When the cluster refuses it, or it takes too long.
pub(crate) async fn remove(cluster: &Cluster, deadline: Deadline) -> Result<Agents, WaitError> {
    let agents = loop {
        if let Some(found) = deadline.heard("not all is gone", Agents::find(cluster).await).await? {
            break found.unwrap_or_default();
        }
    };
    wait::deleted(cluster, &daemon_set(), deadline).await?;
    let pod = |name: &String| Id {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: name.clone(),
    };
    let pods: Vec<Id> = agents.ready.iter().map(pod).collect();
    wait::gone(cluster, &pods, deadline).await?;
    Ok(agents)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_that_would_keep_the_plugin_have_names() {
        let pod = |name: &str, node: &str, ready: &str| {
            json!({"metadata": {"name": name}, "spec": {"nodeName": node},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        let daemon_set = json!({"status": {"desiredNumberScheduled": 4},
            "spec": {"template": {"spec": {"volumes": [{"name": "conf", "hostPath": {"path": "/x"}}]}}}});
        let mut going = pod("d", "n4", "True");
        going["metadata"]["deletionTimestamp"] = json!("now");
        let pods = [
            pod("a", "n1", "True"),
            pod("b", "n2", "False"),
            // A node whose agent is replaced has two for a moment.
            pod("c", "n1", "False"),
            going,
        ];
        let agents = Agents::of(&daemon_set, &pods);
        assert_eq!(agents.ready, ["a"]);
        assert_eq!(agents.without, ["n2", "n4"]);
        assert_eq!((agents.unknown, agents.configuration.as_str()), (1, "/x"));
        assert_eq!(agents.nodes(), "n2, n4 and 1 more");
        assert!(!agents.are_ready());
        let all = Agents::of(&json!({"status": {"desiredNumberScheduled": 1}}), &pods[..1]);
        assert!(all.are_ready());
        assert_eq!(all.configuration, CONFIGURATION);
    }
}
