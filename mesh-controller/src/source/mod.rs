//! The source of configuration: a directory of YAML files, read again whenever it changes.
//!
//! ```text
//! watch (notify, and once a second) ─▶ scan (what files say) ─▶ last_good (what applies) ─▶ publish
//! ```

mod last_good;
mod scan;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use mesh_k8s::Settings;
use tokio::{sync::mpsc, time::Instant};

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
        let outcome = state.read().unwrap_or_else(|| state.last_good.compile());
        Ok((Self { state, watcher, events }, outcome))
    }

    /// Hands on every change, until it is dropped.
    pub(crate) async fn run(mut self, apply: impl Fn(Outcome) + Send + Sync + 'static) {
        let apply = Arc::new(apply);
        loop {
            let wait = self.state.scanner.again().map_or(POLL, |again| again.min(POLL));
            let told = tokio::time::timeout(wait, self.events.recv()).await;
            if let Ok(Some(())) = told {
                self.gather().await;
            }
            self.watcher.renew();
            let mut state = self.state;
            let hand_on = Arc::clone(&apply);
            let scan = tokio::task::spawn_blocking(move || {
                if let Some(outcome) = state.read() {
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
    /// Scans; None when nothing changed.
    fn read(&mut self) -> Option<Outcome> {
        let files = self.scanner.scan()?;
        Some(self.last_good.apply(files))
    }
}
