//! A Kubernetes cluster: each kind of objects that means something to the mesh is listed and watched.
//!
//! ```text
//! kinds (which) ─▶ follow (list, watch, list again; one task each) ─▶ inbox (the newest of what has changed)
//! ```
//! *Invariant:* what was known stays until the API server itself says that it is gone; a server that cannot be reached
//! takes nothing away. Nothing is published before every kind has been listed once: a mesh without its policy is open.

mod follow;
mod inbox;
mod kinds;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::Client;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use self::{
    follow::{PACE, Pace},
    inbox::{Inbox, Standing},
    kinds::KINDS,
};
use super::{Ended, File, SourceError, gather};
use crate::{
    kubernetes::{Cluster, Noted},
    metrics::Metrics,
};

/// How long the first lists may take.
const START: Duration = Duration::from_secs(60);

/// A cluster that is followed, until this is dropped.
pub(super) struct Kubernetes {
    inbox: Arc<Inbox>,
    events: mpsc::Receiver<()>,
    /// Aborted when dropped.
    tasks: JoinSet<()>,
}

impl Kubernetes {
    /// Lists everything.
    pub(super) async fn open(cluster: &Cluster, metrics: &Metrics) -> Result<Self, SourceError> {
        tracing::info!(url = cluster.url, "listing the objects of Kubernetes");
        let noted = Arc::clone(&cluster.noted);
        Self::follow(&cluster.client, metrics, noted, cluster.url.clone(), (START, PACE)).await
    }

    /// Follows all kinds, and waits until each was listed, or is known not to be there.
    async fn follow(
        client: &Client,
        metrics: &Metrics,
        noted: Arc<Noted>,
        url: String,
        (wait, pace): (Duration, Pace),
    ) -> Result<Self, SourceError> {
        let (wake, events) = mpsc::channel(1);
        let inbox = Arc::new(Inbox::new(wake, metrics.clone(), noted));
        let mut tasks = JoinSet::new();
        for kind in &KINDS {
            tasks.spawn(follow::run(kind, client.clone(), Arc::clone(&inbox), pace));
        }
        let mut standing = inbox.standing();
        let is_known = |all: &BTreeMap<&str, Standing>| {
            KINDS.iter().all(|k| matches!(all.get(k.kind), Some(Standing::Followed | Standing::Absent)))
        };
        if timeout(wait, standing.wait_for(is_known)).await.is_ok() {
            return Ok(Self { inbox, events, tasks });
        }
        let all = standing.borrow().clone();
        let unknown = KINDS.iter().find_map(|k| match all.get(k.kind) {
            Some(Standing::Followed | Standing::Absent) => None,
            Some(Standing::Broken(why)) => Some((k.kind, why.to_string())),
            None => Some((k.kind, "it does not answer".to_owned())),
        });
        let (kind, why) = unknown.unwrap_or_default();
        Err(SourceError::NoAnswer { url, kind, wait, why })
    }

    /// Waits until something has changed. Err: a kind is not followed any more.
    pub(super) async fn changed(&mut self) -> Result<(), Ended> {
        tokio::select! {
            Some(()) = self.events.recv() => {
                gather(&mut self.events).await;
                Ok(())
            }
            ended = self.tasks.join_next() => Err(Ended(format!("{ended:?}"))),
        }
    }

    /// What has changed since it was last asked.
    pub(super) fn read(&mut self) -> BTreeMap<Arc<str>, Option<File>> {
        self.inbox.take()
    }
}
