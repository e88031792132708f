//! The data directory: made at first start, locked by one controller, private to its owner.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Name of the file that tells where a running controller listens.
pub const STATUS_FILE: &str = "controller.json";
/// Name of the file that holds the token of the view API.
pub const VIEW_TOKEN_FILE: &str = "view-token";
/// Name of the file that holds the trust anchors, PEM.
pub const TRUST_BUNDLE_FILE: &str = "trust-bundle.pem";

/// Mode of files that only the owner may read.
pub(crate) const PRIVATE: u32 = 0o600;
/// Mode of files that anybody may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others than the owner could read or change it.
    #[error(
        "{} is open to other users (mode {mode:04o}): whoever reads it can impersonate the mesh; \
         run: chmod {wanted:o} {}",
        path.display(), path.display()
    )]
    TooOpen {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// Another controller holds the lock.
    #[error(
        "another mesh-controller{} uses the data directory {}: stop it first, or give this one its own --data-dir",
        pid.map(|p| format!(" (process {p})")).unwrap_or_default(), path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The other's process, when it says so.
        pid: Option<u64>,
    },
}

/// Adds what was tried and on what to an I/O error.
pub(crate) fn on<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io { action, path: path.to_owned(), source }
}

/// A locked data directory. The lock ends with the value (or the process).
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory when it is missing, checks who may read it, and locks it.
    pub(crate) fn open(root: &Path) -> Result<Self, DataDirError> {
        make_private_dir(root)?;
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(&path)
            .map_err(on("open", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(DataDirError::Locked { path: root.to_owned(), pid: running_pid(root) })
            }
            Err(TryLockError::Error(source)) => Err(on("lock", &path)(source)),
        }
    }

    /// A file or directory inside.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

fn running_pid(root: &Path) -> Option<u64> {
    let text = fs::read(root.join(STATUS_FILE)).ok()?;
    serde_json::from_slice::<serde_json::Value>(&text).ok()?.get("pid")?.as_u64()
}

/// Makes `path` with mode 0700. An empty directory that is open to others is closed; one with content is refused,
/// for what it holds may have been read already.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), DataDirError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(on("create", path))?;
    let mode = fs::metadata(path).map_err(on("look at", path))?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if fs::read_dir(path).map_err(on("list", path))?.next().is_none() {
        return fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(on("close", path));
    }
    Err(DataDirError::TooOpen { path: path.to_owned(), mode, wanted: 0o700 })
}

/// Reads a file that only its owner may read; None when there is none.
pub(crate) fn read_private(path: &Path) -> Result<Option<Vec<u8>>, DataDirError> {
    let mode = match fs::metadata(path) {
        Ok(meta) => meta.mode() & 0o7777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(on("look at", path)(error)),
    };
    if mode & 0o077 != 0 {
        return Err(DataDirError::TooOpen { path: path.to_owned(), mode, wanted: PRIVATE });
    }
    fs::read(path).map(Some).map_err(on("read", path))
}

/// Replaces a file at once: a reader, or a start after a crash, sees the old content or the new, nothing between.
pub(crate) fn write_atomic(path: &Path, mode: u32, content: &[u8]) -> Result<(), DataDirError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    write_new(&temporary, mode, content)?;
    fs::rename(&temporary, path).map_err(on("replace", path))?;
    sync_dir(path.parent().unwrap_or(path))
}

/// Writes a file and makes sure that it is on the disk. What stood there before is gone.
pub(crate) fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), DataDirError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(on("remove", path)(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().create_new(true).write(true).mode(mode).open(path).map_err(on("create", path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(on("write", path))
}

/// Makes sure that names within a directory are on the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<(), DataDirError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(on("sync", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_fresh_directory_is_private_and_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        let first = DataDir::open(&root).unwrap();
        assert_eq!(mode(&root), 0o700);
        let second = DataDir::open(&root).unwrap_err().to_string();
        assert!(second.contains("another mesh-controller"), "{second}");
        drop(first);
        DataDir::open(&root).unwrap();
    }

    #[test]
    fn open_directories_and_files_are_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        fs::create_dir(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        make_private_dir(&root).unwrap();
        assert_eq!(mode(&root), 0o700, "an empty directory is closed");

        let file = root.join("key");
        write_atomic(&file, PRIVATE, b"secret").unwrap();
        assert_eq!(mode(&file), 0o600);
        assert_eq!(read_private(&file).unwrap().unwrap(), b"secret");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_private(&file).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");

        fs::set_permissions(&root, fs::Permissions::from_mode(0o750)).unwrap();
        let error = make_private_dir(&root).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }
}
