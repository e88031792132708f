//! What has changed and was not read yet, and how each kind stands.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, watch};

use crate::{kubernetes::Noted, metrics::Metrics, source::last_good::File};

/// How a kind stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was listed and is watched.
    Followed,
    /// The cluster does not have it.
    Absent,
    /// It cannot be followed at the moment: what is known stays.
    Broken(Arc<str>),
}

/// Where all tasks leave what they see. Of each object only the newest version is kept, so that it cannot grow beyond
/// what the cluster holds.
pub(super) struct Inbox {
    changed: Mutex<BTreeMap<Arc<str>, Option<File>>>,
    standing: watch::Sender<BTreeMap<&'static str, Standing>>,
    wake: mpsc::Sender<()>,
    metrics: Metrics,
    noted: Arc<Noted>,
}

impl Inbox {
    pub(super) fn new(wake: mpsc::Sender<()>, metrics: Metrics, noted: Arc<Noted>) -> Self {
        Self { changed: Mutex::default(), standing: watch::Sender::default(), wake, metrics, noted }
    }

    /// Objects that are others than before; None: there no more.
    pub(super) fn put(&self, objects: impl IntoIterator<Item = (Arc<str>, Option<File>)>) {
        let forget = |(place, file): &(Arc<str>, Option<File>)| {
            if file.is_none() {
                self.noted.remove(place);
            }
        };
        self.locked().extend(objects.into_iter().inspect(forget));
        // Full means that a wake-up is on its way already.
        let _ = self.wake.try_send(());
    }

    /// Notes what an object says of itself.
    pub(super) fn note(&self, place: &Arc<str>, object: &serde_json::Value) {
        self.noted.put(place, object);
    }

    /// What was put since the last time.
    pub(super) fn take(&self) -> BTreeMap<Arc<str>, Option<File>> {
        std::mem::take(&mut self.locked())
    }

    /// How all kinds stand that were heard of.
    pub(super) fn standing(&self) -> watch::Receiver<BTreeMap<&'static str, Standing>> {
        self.standing.subscribe()
    }

    /// Notes how a kind stands, and says what is new about that.
    pub(super) fn stands(&self, kind: &'static str, now: &Standing) {
        if matches!(now, Standing::Broken(_)) {
            self.metrics.watch_failed(kind);
        }
        self.standing.send_modify(|all| {
            let before = all.insert(kind, now.clone());
            match (&before, now) {
                (Some(Standing::Broken(_)), Standing::Broken(why)) => {
                    tracing::debug!(kind, %why, "still not followed");
                }
                (_, Standing::Broken(why)) => {
                    tracing::warn!(kind, %why, "cannot be followed in Kubernetes; what is known of it stays");
                }
                (Some(Standing::Broken(_)), Standing::Followed) => tracing::info!(kind, "followed again"),
                (Some(before), Standing::Followed) if before != now => {
                    tracing::info!(kind, "has come, and is followed")
                }
                (Some(Standing::Followed), Standing::Absent) => {
                    tracing::info!(kind, "is gone from Kubernetes, and its objects with it");
                }
                (_, Standing::Followed | Standing::Absent) => tracing::debug!(kind, ?now, "known"),
            }
            let count =
                |wanted: fn(&Standing) -> bool| all.values().filter(|standing| wanted(standing)).count();
            self.metrics.watches("followed", count(|s| *s == Standing::Followed));
            self.metrics.watches("absent", count(|s| *s == Standing::Absent));
            self.metrics.watches("broken", count(|s| matches!(s, Standing::Broken(_))));
        });
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Option<File>>> {
        // A map that somebody panicked over is still whole.
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
