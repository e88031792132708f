//! Pods that came up before the plugin was chained: their proxies refuse to run, and they are deleted, so that their
//! owners make new ones.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::watch, time::timeout};

use super::{
    State,
    conflist::PLUGIN,
    pace::Deletions,
    pods::{Key, Known, Pods},
};

/// How often it is looked, at the least.
const LOOK: Duration = Duration::from_secs(5);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be done about a raced pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// A new one is made when it is deleted.
    Delete,
    /// Nobody would make a new one.
    Tell,
    /// It got its rules when it started: making it anew would change nothing.
    Broken,
}

impl Remedy {
    /// What follows from a pod.
    pub(super) fn of(pod: &Known, was_served: bool) -> Self {
        match (&pod.owner, was_served) {
            (_, true) => Self::Broken,
            (Some(_), false) => Self::Delete,
            (None, false) => Self::Tell,
        }
    }

    fn note(self, pod: &Known) -> String {
        let without = "it was started before the CNI plugin mesh-cni was chained on this node, so that no firewall rules lead its connections to its proxy";
        match (self, &pod.owner) {
            (Self::Delete, Some(owner)) => format!("Deleted: {without}; {owner} makes a new one"),
            (Self::Delete | Self::Tell, _) => {
                format!("Cannot run: {without}; no controller would make a new one: delete it and make it again")
            }
            (Self::Broken, _) => {
                "Cannot run: its proxy finds no firewall rules, though the CNI plugin mesh-cni wrote them when it started; has something removed them, or does the proxy run as another user than 1337?".to_owned()
            }
        }
    }
}

/// Deletes raced pods.
pub(super) struct Raced {
    client: Client,
    recorder: Recorder,
    pods: Arc<Pods>,
    state: watch::Receiver<State>,
    /// Pods of which was told.
    told: HashSet<String>,
    deletions: Deletions,
}

impl Raced {
    pub(super) fn new(client: Client, pods: Arc<Pods>, state: watch::Receiver<State>) -> Self {
        let reporter = Reporter { controller: PLUGIN.to_owned(), instance: None };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client, recorder, pods, state, told: HashSet::new(), deletions: Deletions::default() }
    }

    /// Looks for ever.
    pub(super) async fn run(mut self) {
        loop {
            // While the plugin is not chained, a new pod would be no better off.
            if self.state.borrow().chained {
                self.look().await;
            }
            // Late is as good as changed: both mean to look.
            let _ = timeout(LOOK, self.pods.changed.notified()).await;
        }
    }

    async fn look(&mut self) {
        let raced = self.pods.raced();
        self.told.retain(|uid| raced.iter().any(|(_, pod)| pod.uid == *uid));
        for (key, pod) in raced {
            let remedy = Remedy::of(&pod, self.pods.was_served(&pod.uid));
            let may_delete = |raced: &mut Self| raced.deletions.may(raced.pods.was_asked(), Instant::now());
            if remedy == Remedy::Delete && !may_delete(self) {
                continue;
            }
            if self.told.insert(pod.uid.clone()) {
                self.tell(&key, &pod, remedy).await;
            }
            if remedy == Remedy::Delete {
                self.delete(&key, &pod).await;
            }
        }
    }

    async fn tell(&self, (namespace, name): &Key, pod: &Known, remedy: Remedy) {
        let note = remedy.note(pod);
        tracing::warn!(namespace, name, "{note}");
        let event = Event {
            type_: EventType::Warning,
            reason: "Uncaptured".to_owned(),
            note: Some(note),
            action: if remedy == Remedy::Delete { "Delete" } else { "Check" }.to_owned(),
            secondary: None,
        };
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        };
        match timeout(PATIENCE, self.recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot write an Event"),
            Err(_) => tracing::warn!("cannot write an Event: the API server does not answer"),
        }
    }

    /// Not an eviction: a disruption budget protects what serves, and this pod never did; where all pods of a workload
    /// have raced, a budget would keep every one of them.
    async fn delete(&mut self, (namespace, name): &Key, pod: &Known) {
        self.deletions.note(Instant::now());
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let this = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(this), ..DeleteParams::default() };
        match timeout(PATIENCE, api.delete(name, &params)).await {
            Ok(Ok(_)) => tracing::info!(namespace, name, "deleted"),
            // Gone, or another one by now.
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {}
            Ok(Err(error)) => tracing::warn!(namespace, name, %error, "cannot delete it"),
            Err(_) => tracing::warn!(namespace, name, "cannot delete it: the API server does not answer"),
        }
    }
}
