//! The node's network configuration: our plugin is put into it, again and again, and taken out at the end.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Instant,
};

use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    conflist::{self, Edited},
    pace::Writes,
};
use crate::source::watch::Watcher;

/// Largest file that is looked into, in bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// What is being written; runtimes do not read names that end so.
const TEMPORARY: &str = ".mesh-cni.new";

/// Why the plugin is not chained.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    /// Something cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// There is no network yet.
    #[error("no network configuration in {}: the cluster's network is not installed yet, or --conf-dir is not where the container runtime reads it", .0.display())]
    NoNetwork(PathBuf),
    /// The first file is no network.
    #[error("{}: {why}", path.display())]
    Foreign { path: PathBuf, why: String },
    /// Another program has taken our entry out, and it is too soon to put it back.
    #[error("{}: another program has taken the plugin out; it is put back in a moment", .0.display())]
    TakenOut(PathBuf),
    /// It does so again and again.
    #[error("{}: another program takes the plugin out again and again, and pods of the mesh may start without firewall rules: let it leave other plugins alone (Cilium: cni.exclusive=false), or have it chain mesh-cni itself", .0.display())]
    Fought(PathBuf),
    /// It was written at the same time.
    #[error("{} is being changed by somebody else", .0.display())]
    Changing(PathBuf),
}

/// Keeps our entry in the configuration.
pub(super) struct Keeper {
    directory: PathBuf,
    entry: Value,
}

/// Where our entry is.
struct Kept {
    file: PathBuf,
    /// It was not there before.
    is_new: bool,
}

/// Wakes when the directory changes.
pub(super) struct Changes {
    watcher: Watcher,
    wakes: mpsc::Receiver<()>,
}

impl Changes {
    /// Looks whether the directory is another one by now.
    pub(super) fn renew(&mut self) {
        self.watcher.renew();
    }

    /// Waits for the next change.
    pub(super) async fn next(&mut self) {
        if self.wakes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Keeper {
    pub(super) fn new(directory: &Path, entry: Value) -> Self {
        Self { directory: directory.to_owned(), entry }
    }

    /// Notifications about the directory.
    pub(super) fn watch(&self) -> Changes {
        let (wake, wakes) = mpsc::channel(1);
        Changes { watcher: Watcher::new(self.directory.clone(), wake), wakes }
    }

    /// Puts our entry into the network that runtimes take, the first one by name, unless it is there. Not where another
    /// program takes it out at once: that is told instead.
    pub(super) fn hold(&self, writes: &mut Writes, now: Instant) -> Result<(), KeepError> {
        let kept = self.keep(writes.may(now));
        if let Ok(Kept { is_new: true, .. }) = kept {
            writes.note(now);
        }
        match kept {
            Ok(Kept { file, .. }) | Err(KeepError::TakenOut(file)) if writes.is_fight(now) => {
                Err(KeepError::Fought(file))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn keep(&self, may_write: bool) -> Result<Kept, KeepError> {
        let Some(path) = self.files()?.into_iter().next() else {
            return Err(KeepError::NoNetwork(self.directory.clone()));
        };
        let text = read(&path)?;
        let edited = conflist::chained(name(&path), &text, &self.entry)
            .map_err(|why| KeepError::Foreign { path: path.clone(), why })?;
        let Some(edited) = edited else { return Ok(Kept { file: path, is_new: false }) };
        if !may_write {
            return Err(KeepError::TakenOut(path));
        }
        self.replace(&path, &text, &edited)?;
        let file = self.directory.join(&edited.name);
        tracing::info!(file = %file.display(), "the plugin is chained");
        Ok(Kept { file, is_new: true })
    }

    /// Takes our entry out of all files.
    pub(super) fn leave(&self) {
        let files = self.files().unwrap_or_else(|error| {
            tracing::error!(%error, "the plugin stays chained");
            Vec::new()
        });
        for path in files {
            let done = read(&path).and_then(|text| match conflist::unchained(name(&path), &text) {
                Some(edited) => self.replace(&path, &text, &edited),
                None => Ok(()),
            });
            match done {
                Ok(()) => tracing::info!(file = %path.display(), "the plugin is not chained any more"),
                Err(error) => {
                    tracing::error!(%error, "the plugin stays chained: remove its entry by hand, for pods cannot start without an agent");
                }
            }
        }
    }

    /// Files that runtimes read, in their order.
    fn files(&self) -> Result<Vec<PathBuf>, KeepError> {
        let entries = fs::read_dir(&self.directory).map_err(on("list", &self.directory))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut paths = paths.collect::<io::Result<Vec<PathBuf>>>().map_err(on("list", &self.directory))?;
        paths.retain(|path| conflist::is_read(name(path)) && path.is_file());
        paths.sort();
        Ok(paths)
    }

    /// Replaces a file at once, if it still has the text that was read.
    fn replace(&self, path: &Path, before: &str, edited: &Edited) -> Result<(), KeepError> {
        let temporary = self.directory.join(TEMPORARY);
        let target = self.directory.join(&edited.name);
        let mode = fs::metadata(path).map_err(on("look at", path))?.permissions().mode() & 0o777;
        write(&temporary, mode, edited.text.as_bytes()).map_err(on("write", &temporary))?;
        let is_same = read(path).is_ok_and(|now| now == before);
        let done = if is_same {
            fs::rename(&temporary, &target).map_err(on("replace", &target))
        } else {
            Err(KeepError::Changing(path.to_owned()))
        };
        if done.is_err() {
            // It has our name, and is in nobody's way.
            let _ = fs::remove_file(&temporary);
        }
        done?;
        if target != path {
            fs::remove_file(path).map_err(on("remove", path))?;
        }
        Ok(())
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

fn read(path: &Path) -> Result<String, KeepError> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(on("read", path))?;
    file.take(MAX_FILE).read_to_string(&mut text).map_err(on("read", path))?;
    Ok(text)
}

fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(path)?;
    // What was left of an earlier attempt has its own mode; and a mask may have taken some of this one.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

fn on<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> KeepError + 'a {
    move |source| KeepError::Io { action, path: path.to_owned(), source }
}
