//! The pods of this node: followed, and asked for one by one when the plugin is faster.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use super::{
    State,
    verdict::{self, Verdict},
};

/// How long a watch lasts, in seconds: after that it is begun anew, so that a dead connection does not go unnoticed.
pub(super) const WATCH: u32 = 120;
/// How long the API server may take for one pod: less than the plugin waits.
const PATIENCE: Duration = Duration::from_secs(8);

/// Namespace and name.
pub(super) type Key = (String, String);

/// What is kept of a pod.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) uid: String,
    verdict: Verdict,
    /// Its proxy ended for want of rules.
    pub(super) is_raced: bool,
    /// Who makes another one.
    pub(super) owner: Option<String>,
}

/// The pods of this node.
pub(super) struct Pods {
    client: Client,
    node: String,
    known: Mutex<HashMap<Key, Known>>,
    /// Pods that the plugin has asked about, and was told rules for.
    served: Mutex<HashSet<String>>,
    /// The plugin has asked about any pod.
    asked: AtomicBool,
    /// Something has changed.
    pub(super) changed: Notify,
}

impl Pods {
    pub(super) fn new(client: Client, node: String) -> Self {
        let (known, served) = (Mutex::default(), Mutex::default());
        Self { client, node, known, served, asked: AtomicBool::new(false), changed: Notify::new() }
    }

    /// What the plugin is told. `uid` may be empty, where the runtime does not say.
    pub(super) async fn verdict(&self, key: &Key, uid: &str) -> Verdict {
        self.asked.store(true, Ordering::Relaxed);
        let held = lock(&self.known).get(key).filter(|known| uid.is_empty() || known.uid == uid).cloned();
        let known = match held {
            Some(known) => known,
            None => match self.ask(key, uid).await {
                Ok(known) => known,
                Err(problem) => return Verdict::Error(problem),
            },
        };
        if matches!(known.verdict, Verdict::Args(_)) {
            lock(&self.served).insert(known.uid);
        }
        known.verdict
    }

    /// True if the plugin has ever asked.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// True if the plugin was told rules for this pod.
    pub(super) fn was_served(&self, uid: &str) -> bool {
        lock(&self.served).contains(uid)
    }

    /// Pods whose proxies ended for want of rules.
    pub(super) fn raced(&self) -> Vec<(Key, Known)> {
        let known = lock(&self.known);
        known.iter().filter(|(_, pod)| pod.is_raced).map(|(key, pod)| (key.clone(), pod.clone())).collect()
    }

    /// Asks for one pod.
    async fn ask(&self, key: &Key, uid: &str) -> Result<Known, String> {
        let (namespace, name) = key;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let found = timeout(PATIENCE, api.get_opt(name)).await;
        let pod = match found {
            Ok(Ok(Some(pod))) => pod,
            Ok(Ok(None)) => return Err("the API server does not know the pod (any more)".to_owned()),
            Ok(Err(error)) => return Err(format!("the mesh's agent cannot ask the API server: {error}")),
            Err(_) => return Err(format!("the API server does not answer the mesh's agent in {PATIENCE:?}")),
        };
        let known = Known::of(&pod);
        // A pod from a file has another number there, and is never of the mesh.
        let is_other = !uid.is_empty() && known.uid != uid && matches!(known.verdict, Verdict::Args(_));
        if is_other { Err("another pod has its name by now".to_owned()) } else { Ok(known) }
    }

    /// Follows them for ever.
    pub(super) async fn follow(self: std::sync::Arc<Self>, state: watch::Sender<State>) {
        let api: Api<Pod> = Api::all(self.client.clone());
        let config =
            watcher::Config::default().fields(&format!("spec.nodeName={}", self.node)).timeout(WATCH);
        let mut events = pin!(watcher(api, config).default_backoff());
        let mut listed = HashMap::new();
        let mut is_told = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(pod)) => {
                    listed.insert(key(&pod), Known::of(&pod));
                }
                Ok(Event::InitDone) => {
                    is_told = false;
                    *lock(&self.known) = std::mem::take(&mut listed);
                    state.send_if_modified(|state| !std::mem::replace(&mut state.listed, true));
                }
                Ok(Event::Apply(pod)) => {
                    lock(&self.known).insert(key(&pod), Known::of(&pod));
                }
                Ok(Event::Delete(pod)) => {
                    lock(&self.known).remove(&key(&pod));
                }
                Err(error) if !is_told => {
                    is_told = true;
                    tracing::warn!(%error, "cannot follow the pods of this node");
                }
                Err(_) => {}
            }
            self.forget();
            self.changed.notify_one();
        }
    }

    /// Forgets what is known of pods that are gone.
    fn forget(&self) {
        let known = lock(&self.known);
        let uids: HashSet<&str> = known.values().map(|pod| &*pod.uid).collect();
        let mut served = lock(&self.served);
        // One that was asked for may not have come by yet.
        if served.len() > uids.len() + 100 {
            served.retain(|uid| uids.contains(&**uid));
        }
    }
}

impl Known {
    pub(super) fn of(pod: &Pod) -> Self {
        let verdict = Verdict::of(pod);
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            is_raced: matches!(verdict, Verdict::Args(_)) && verdict::is_raced(pod),
            verdict,
            owner: verdict::owner(pod),
        }
    }
}

fn key(pod: &Pod) -> Key {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    (text(&pod.metadata.namespace), text(&pod.metadata.name))
}

/// Nobody panics while holding one of these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
