//! Notifications of the file system. They only wake: what has changed is found by reading.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _, event::AccessKind};
use tokio::sync::mpsc;

/// Watches a directory, also after it was replaced by another of the same name.
pub(crate) struct Watcher {
    directory: PathBuf,
    wake: mpsc::Sender<()>,
    /// Device and inode of the directory that is watched; None: notifications do not work.
    watched: Option<(u64, u64)>,
    inner: Option<RecommendedWatcher>,
}

impl Watcher {
    pub(crate) fn new(directory: PathBuf, wake: mpsc::Sender<()>) -> Self {
        let mut watcher = Self { directory, wake, watched: None, inner: None };
        watcher.renew();
        watcher
    }

    /// Watches anew when the directory is another than before.
    pub(crate) fn renew(&mut self) {
        let now = identity(&self.directory);
        if now == self.watched {
            return;
        }
        self.watched = now;
        self.inner = now.and_then(|_| match watch(&self.directory, self.wake.clone()) {
            Ok(inner) => Some(inner),
            Err(error) => {
                tracing::warn!(%error, directory = %self.directory.display(), "no file notifications; looking once a second");
                None
            }
        });
    }
}

fn identity(directory: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(directory).ok().map(|meta| (meta.dev(), meta.ino()))
}

fn watch(directory: &Path, wake: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let ours = match &event {
            // Reading makes events of its own; only the end of a writing is news.
            Ok(event) => match event.kind {
                EventKind::Access(AccessKind::Close(mode)) => mode == notify::event::AccessMode::Write,
                EventKind::Access(_) => false,
                _ => true,
            },
            Err(_) => true,
        };
        if ours {
            // Full means that a wake-up is on its way already.
            let _ = wake.try_send(());
        }
    })?;
    watcher.watch(directory, RecursiveMode::Recursive)?;
    Ok(watcher)
}
