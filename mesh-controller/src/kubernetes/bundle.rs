//! The trust anchors of the mesh in a ConfigMap of every namespace that has proxies: what a proxy trusts before its first
//! byte. The leader puts right what others change or delete.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use mesh_k8s::names::{TRUST_BUNDLE, TRUST_BUNDLE_KEY};
use serde_json::json;
use tokio::sync::watch;

use super::{Cluster, ClusterError, MANAGED_BY, MANAGER, WATCH, ask, told};
use crate::publish::Snapshot;

/// A ConfigMap is not written again sooner, whoever changes it.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after failures.
const LONGEST: Duration = Duration::from_secs(30);

/// Writes the ConfigMaps.
pub(crate) struct Bundles {
    client: Client,
    own: Arc<str>,
    pem: String,
}

/// What the leader knows of them.
#[derive(Default)]
struct Copies {
    /// All were listed once.
    is_listed: bool,
    /// Namespaces whose ConfigMap is as it should be.
    good: BTreeSet<Arc<str>>,
    /// When each may be written again, and how often in a row that failed.
    pauses: BTreeMap<Arc<str>, (Instant, u32)>,
}

impl Copies {
    /// Namespaces to write now, and when to look again if nothing happens.
    fn due(&self, wanted: &BTreeSet<Arc<str>>, now: Instant) -> (Vec<Arc<str>>, Option<Instant>) {
        let (mut due, mut next) = (Vec::new(), None::<Instant>);
        if !self.is_listed {
            return (due, next);
        }
        for namespace in wanted.difference(&self.good) {
            match self.pauses.get(namespace) {
                Some((until, _)) if *until > now => next = Some(next.map_or(*until, |next| next.min(*until))),
                _ => due.push(Arc::clone(namespace)),
            }
        }
        (due, next)
    }

    /// Notes what came of writing.
    fn wrote(&mut self, namespace: &Arc<str>, is_done: bool, now: Instant) {
        let failures = match self.pauses.get(namespace) {
            Some((_, failures)) if !is_done => failures.saturating_add(1),
            _ => u32::from(!is_done),
        };
        let pause = PAUSE.saturating_mul(1 << failures.min(5)).min(LONGEST);
        self.pauses.insert(Arc::clone(namespace), (now + pause, failures));
        if is_done {
            self.good.insert(Arc::clone(namespace));
        }
    }

    /// Forgets namespaces that need none.
    fn retain(&mut self, wanted: &BTreeSet<Arc<str>>) {
        self.pauses.retain(|namespace, _| wanted.contains(namespace));
    }
}

impl Bundles {
    pub(crate) fn new(cluster: &Cluster, root_pem: &str) -> Self {
        Self {
            client: cluster.client.clone(),
            own: cluster.namespace.as_str().into(),
            pem: root_pem.to_owned(),
        }
    }

    /// Sees that a namespace has the ConfigMap, before a pod there needs it.
    ///
    /// # Errors
    /// [`ClusterError`]: it may not be there.
    pub(crate) async fn ensure(&self, namespace: &str) -> Result<(), ClusterError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let what = || format!("read the ConfigMap {namespace}/{TRUST_BUNDLE}");
        match ask(what, api.get_opt(TRUST_BUNDLE)).await? {
            Some(found) if self.is_good(&found) => Ok(()),
            _ => self.write(namespace).await,
        }
    }

    /// Keeps them as they should be, for as long as this replica leads.
    pub(super) async fn keep(&self, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
        let api: Api<ConfigMap> = Api::all(self.client.clone());
        let only = watcher::Config::default().fields(&format!("metadata.name={TRUST_BUNDLE}")).timeout(WATCH);
        let mut events = std::pin::pin!(watcher(api, only).default_backoff());
        let mut copies = Copies::default();
        loop {
            let wanted = self.wanted(&snapshots.borrow_and_update());
            copies.retain(&wanted);
            let (due, next) = copies.due(&wanted, Instant::now());
            for namespace in due {
                let done = self.write(&namespace).await;
                match &done {
                    Ok(()) => tracing::info!(%namespace, "trust bundle written"),
                    Err(error) => tracing::warn!(%error, "the trust bundle is not where proxies look for it"),
                }
                copies.wrote(&namespace, done.is_ok(), Instant::now());
            }
            let pause = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                event = events.next() => match event {
                    Some(Ok(event)) => self.note(&mut copies, event),
                    Some(Err(error)) => tracing::warn!(error = told(&error), "trust bundles cannot be watched"),
                    None => return,
                },
                () = pause => {}
            }
        }
    }

    fn wanted(&self, snapshot: &Snapshot) -> BTreeSet<Arc<str>> {
        snapshot.compiled.meshed.iter().chain([&self.own]).cloned().collect()
    }

    fn note(&self, copies: &mut Copies, event: Event<ConfigMap>) {
        let place = |map: &ConfigMap| Arc::<str>::from(map.metadata.namespace.as_deref().unwrap_or_default());
        match event {
            Event::Init => copies.good.clear(),
            Event::InitApply(map) | Event::Apply(map) if self.is_good(&map) => {
                copies.good.insert(place(&map));
            }
            Event::InitApply(map) | Event::Apply(map) | Event::Delete(map) => {
                copies.good.remove(&place(&map));
            }
            Event::InitDone => copies.is_listed = true,
        }
    }

    fn is_good(&self, map: &ConfigMap) -> bool {
        let label = map.metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY));
        let held = map.data.as_ref().and_then(|data| data.get(TRUST_BUNDLE_KEY));
        label.is_some_and(|label| label == MANAGER) && held == Some(&self.pem)
    }

    async fn write(&self, namespace: &str) -> Result<(), ClusterError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": TRUST_BUNDLE, "labels": {MANAGED_BY: MANAGER}},
            "data": {TRUST_BUNDLE_KEY: self.pem},
        });
        let how = PatchParams::apply(MANAGER).force();
        let what = || format!("write the ConfigMap {namespace}/{TRUST_BUNDLE}");
        ask(what, api.patch(TRUST_BUNDLE, &how, &Patch::Apply(&map))).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_written_and_nobody_is_fought_at_full_speed() {
        let set = |names: &[&str]| names.iter().map(|name| Arc::<str>::from(*name)).collect::<BTreeSet<_>>();
        let start = Instant::now();
        let after = |millis: u64| start + Duration::from_millis(millis);
        let wanted = set(&["a", "b"]);
        let mut copies = Copies::default();
        assert!(copies.due(&wanted, start).0.is_empty(), "nothing is known yet");
        copies.is_listed = true;
        copies.good = set(&["b", "not-wanted"]);
        let a = Arc::<str>::from("a");
        assert_eq!(copies.due(&wanted, start), (vec![Arc::clone(&a)], None));

        copies.wrote(&a, true, start);
        assert_eq!(copies.due(&wanted, start), (vec![], None));
        // Somebody changes it back at once.
        copies.good.remove("a");
        assert_eq!(copies.due(&wanted, after(10)), (vec![], Some(after(1000))));
        assert_eq!(copies.due(&wanted, after(1000)).0, [Arc::clone(&a)]);

        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                copies.wrote(&a, false, start);
                copies.due(&wanted, start).1.unwrap().duration_since(start).as_secs()
            })
            .collect();
        assert_eq!(pauses, [2, 4, 8, 16, 30, 30, 30, 30]);
        copies.retain(&set(&["b"]));
        assert!(copies.pauses.is_empty());
    }
}
