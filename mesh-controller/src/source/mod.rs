//! The source of configuration: a directory of YAML files, read again whenever it changes.
//!
//! ```text
//! watch (notify, and once a second) ─▶ scan (what files say) ─▶ last_good (what applies) ─▶ publish
//!                                        resolve (addresses outside) ─▶┘
//! ```

mod last_good;
mod resolve;
mod scan;
mod watch;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use mesh_k8s::{Resolved, Settings};
use tokio::{
    sync::{
        mpsc,
        watch::{Sender, channel},
    },
    time::Instant,
};

pub(crate) use self::last_good::Outcome;
use self::{last_good::LastGood, scan::Scanner, watch::Watcher};

/// How long the directory must be quiet before it is read, so that one save is read once.
const QUIET: Duration = Duration::from_millis(20);
/// How long a storm of changes is gathered at most.
const GATHER: Duration = Duration::from_millis(100);
/// How often the directory is looked at without being told: file systems without notifications, swapped directories.
const POLL: Duration = Duration::from_secs(1);

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
}

/// The directory and what is known of it.
pub(crate) struct Source {
    state: State,
    watcher: Watcher,
    events: mpsc::Receiver<()>,
    /// The hosts outside of the mesh that are looked up.
    hosts: Sender<BTreeSet<Arc<str>>>,
}

/// What a scan works on; moves to a blocking thread and back.
struct State {
    scanner: Scanner,
    last_good: LastGood,
}

impl Source {
    /// Reads the directory for the first time.
    pub(crate) fn open(directory: PathBuf, settings: Settings) -> Result<(Self, Outcome), SourceError> {
        std::fs::read_dir(&directory)
            .map_err(|source| SourceError::Unreadable { path: directory.clone(), source })?;
        let (wake, events) = mpsc::channel(1);
        // Before the first scan, so that a change in between is not lost.
        let watcher = Watcher::new(directory.clone(), wake);
        let mut state = State { scanner: Scanner::new(directory), last_good: LastGood::new(settings) };
        let outcome = state.read(Resolved::new()).unwrap_or_else(|| state.last_good.compile());
        let hosts = Sender::new(outcome.compiled.to_resolve.clone());
        Ok((Self { state, watcher, events, hosts }, outcome))
    }

    /// Hands on every change, until it is dropped.
    pub(crate) async fn run(mut self, apply: impl Fn(Outcome) + Send + Sync + 'static) {
        let apply = Arc::new(apply);
        let (found, mut addresses) = channel(Resolved::new());
        // Ends when this is dropped, for then nobody wants its answers.
        tokio::spawn(resolve::run(self.hosts.subscribe(), found));
        loop {
            let wait = self.state.scanner.again().map_or(POLL, |again| again.min(POLL));
            tokio::select! {
                told = tokio::time::timeout(wait, self.events.recv()) => {
                    if let Ok(Some(())) = told {
                        self.gather().await;
                    }
                }
                Ok(()) = addresses.changed() => {}
            }
            self.watcher.renew();
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

    /// Waits for the end of a storm, but not for long.
    async fn gather(&mut self) {
        let deadline = Instant::now() + GATHER;
        loop {
            let quiet = (Instant::now() + QUIET).min(deadline);
            match tokio::time::timeout_at(quiet, self.events.recv()).await {
                Ok(Some(())) if Instant::now() < deadline => {}
                _ => return,
            }
        }
    }
}

impl State {
    /// Scans; None when neither files nor the addresses of hosts outside have changed.
    fn read(&mut self, resolved: Resolved) -> Option<Outcome> {
        let moved = resolved != self.last_good.resolved;
        self.last_good.resolved = resolved;
        match self.scanner.scan() {
            Some(files) => Some(self.last_good.apply(files)),
            None => moved.then(|| self.last_good.compile()),
        }
    }
}
