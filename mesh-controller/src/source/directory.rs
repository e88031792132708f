//! A directory of YAML files, read again whenever it changes.

use std::{path::PathBuf, time::Duration};

use tokio::sync::mpsc;

use super::{
    SourceError, gather,
    scan::{Files, Scanner},
    watch::Watcher,
};

/// How often the directory is looked at without being told: file systems without notifications, swapped directories.
const POLL: Duration = Duration::from_secs(1);

/// The directory and what was read of it.
pub(super) struct Directory {
    scanner: Scanner,
    watcher: Watcher,
    events: mpsc::Receiver<()>,
}

impl Directory {
    pub(super) fn open(directory: PathBuf) -> Result<Self, SourceError> {
        std::fs::read_dir(&directory)
            .map_err(|source| SourceError::Unreadable { path: directory.clone(), source })?;
        let (wake, events) = mpsc::channel(1);
        // Before the first scan, so that a change in between is not lost.
        let watcher = Watcher::new(directory.clone(), wake);
        Ok(Self { scanner: Scanner::new(directory), watcher, events })
    }

    /// Waits until it is worth looking.
    pub(super) async fn changed(&mut self) {
        let wait = self.scanner.again().map_or(POLL, |again| again.min(POLL));
        if let Ok(Some(())) = tokio::time::timeout(wait, self.events.recv()).await {
            gather(&mut self.events).await;
        }
    }

    /// All files; None: nothing has changed.
    pub(super) fn read(&mut self) -> Option<Files> {
        self.watcher.renew();
        self.scanner.scan()
    }
}
