//! The source of configuration: a directory of YAML files, or a Kubernetes cluster.
//!
//! ```text
//! directory: watch (notify, and once a second) ─▶ scan (what files say) ─┐
//! kubernetes: follow (one watch a kind) ─▶ inbox (what has changed) ─────┴▶ last_good (what applies) ─▶ publish
//!                                                    resolve (addresses outside) ─▶┘
//! ```
//! What an object says is read by the same parser in both.

mod directory;
mod kubernetes;
mod last_good;
mod resolve;
mod scan;
mod state;
pub(crate) mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh_k8s::{Resolved, Settings};
use tokio::{
    sync::{
        mpsc,
        watch::{Sender, channel},
    },
    time::Instant,
};

use self::{
    directory::Directory,
    kubernetes::Kubernetes,
    last_good::{File, LastGood},
    scan::Files,
};
pub(crate) use self::{
    last_good::Outcome,
    state::{Force, Observed, State},
};
use crate::{kubernetes::Cluster, metrics::Metrics};

/// How long nothing must change before it is read, so that one save, or one rollout's step, is read once.
const QUIET: Duration = Duration::from_millis(20);
/// How long a storm of changes is gathered at most.
const GATHER: Duration = Duration::from_millis(100);

/// Why the source cannot be used at all. Later it may come and go: then its last state stays.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read at start.
    #[error("cannot read the source directory {}: {source}; give a directory of YAML files with --source", path.display())]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The Kubernetes API did not answer.
    #[error("--kubernetes: {url} did not list {kind} within {} s: {why}", wait.as_secs())]
    NoAnswer {
        /// Where it should be.
        url: String,
        /// The first kind of objects that is not known.
        kind: &'static str,
        /// How long it was waited for.
        wait: Duration,
        /// What was said last.
        why: String,
    },
}

/// A part of the source ended, which none does by itself. Says how.
#[derive(Debug)]
struct Ended(String);

/// Where changes come from.
enum Feed {
    Directory(Directory),
    Kubernetes(Kubernetes),
}

/// What has changed.
enum Change {
    /// These are all files.
    Files(Files),
    /// These objects are others than before, or there no more.
    Objects(BTreeMap<Arc<str>, Option<File>>),
}

/// Where configuration comes from, and what is known of it.
pub(crate) struct Source {
    state: Reading,
    /// The hosts outside of the mesh that are looked up.
    hosts: Sender<BTreeSet<Arc<str>>>,
}

/// What reading works on; moves to a blocking thread and back.
struct Reading {
    feed: Feed,
    last_good: LastGood,
}

impl Source {
    /// Reads all files of a directory for the first time.
    pub(crate) fn of_directory(directory: &Path, settings: Settings) -> Result<(Self, Outcome), SourceError> {
        Ok(Self::of(Feed::Directory(Directory::open(directory.to_owned())?), settings))
    }

    /// Lists all objects of a cluster for the first time.
    pub(crate) async fn of_cluster(
        cluster: &Cluster,
        settings: Settings,
        metrics: &Metrics,
    ) -> Result<(Self, Outcome), SourceError> {
        Ok(Self::of(Feed::Kubernetes(Kubernetes::open(cluster, metrics).await?), settings))
    }

    fn of(feed: Feed, settings: Settings) -> (Self, Outcome) {
        let mut state = Reading { feed, last_good: LastGood::new(settings) };
        let outcome = state.read(Resolved::new()).unwrap_or_else(|| state.last_good.compile());
        let hosts = Sender::new(outcome.compiled.to_resolve.clone());
        (Self { state, hosts }, outcome)
    }

    /// Hands on every change, until it is dropped, or a part of it ends by itself.
    pub(crate) async fn run(mut self, apply: impl Fn(Outcome) + Send + Sync + 'static) {
        let apply = Arc::new(apply);
        let (found, mut addresses) = channel(Resolved::new());
        // Ends when this is dropped, for then nobody wants its answers.
        tokio::spawn(resolve::run(self.hosts.subscribe(), found));
        loop {
            let changed = tokio::select! {
                changed = self.state.feed.changed() => changed,
                changed = addresses.changed() => {
                    changed.map_err(|_| Ended("hosts outside are looked up no more".to_owned()))
                }
            };
            if let Err(Ended(how)) = changed {
                tracing::error!(how, "the source is not followed any more; configuration stays as it is");
                return;
            }
            let resolved = addresses.borrow_and_update().clone();
            let hosts = self.hosts.clone();
            let mut state = self.state;
            let hand_on = Arc::clone(&apply);
            let scan = tokio::task::spawn_blocking(move || {
                if let Some(outcome) = state.read(resolved) {
                    hosts.send_if_modified(|known| {
                        let changed = *known != outcome.compiled.to_resolve;
                        known.clone_from(&outcome.compiled.to_resolve);
                        changed
                    });
                    hand_on(outcome);
                }
                state
            });
            match scan.await {
                Ok(state) => self.state = state,
                Err(error) => {
                    tracing::error!(%error, "reading the source failed; configuration stays as it is");
                    return;
                }
            }
        }
    }
}

impl Feed {
    /// Waits until it is worth reading; what was heard when this is dropped is not lost, if all is read then.
    async fn changed(&mut self) -> Result<(), Ended> {
        match self {
            Self::Directory(directory) => {
                directory.changed().await;
                Ok(())
            }
            Self::Kubernetes(kubernetes) => kubernetes.changed().await,
        }
    }

    fn read(&mut self) -> Option<Change> {
        match self {
            Self::Directory(directory) => directory.read().map(Change::Files),
            Self::Kubernetes(kubernetes) => Some(Change::Objects(kubernetes.read())),
        }
    }
}

impl Reading {
    /// Reads; None when neither objects nor the addresses of hosts outside have changed.
    fn read(&mut self, resolved: Resolved) -> Option<Outcome> {
        let moved = resolved != self.last_good.resolved;
        self.last_good.resolved = resolved;
        let outcome = match self.feed.read() {
            Some(Change::Files(files)) => Some(self.last_good.apply(files)),
            Some(Change::Objects(objects)) => self.last_good.change(objects),
            None => None,
        };
        outcome.or_else(|| moved.then(|| self.last_good.compile()))
    }
}

/// Waits for the end of a storm, but not for long.
async fn gather(events: &mut mpsc::Receiver<()>) {
    let deadline = Instant::now() + GATHER;
    loop {
        let quiet = (Instant::now() + QUIET).min(deadline);
        match tokio::time::timeout_at(quiet, events.recv()).await {
            Ok(Some(())) if Instant::now() < deadline => {}
            _ => return,
        }
    }
}
