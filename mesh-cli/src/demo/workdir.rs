//! Where the demo keeps its files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

/// The work directory: `mesh` (YAML), `state` (the controller's), `logs`.
#[derive(Debug)]
pub(crate) struct WorkDir {
    path: PathBuf,
    /// Leave it at the end.
    pub(crate) keep: bool,
    /// Removes a temporary directory also when the demo ends by an error.
    _temporary: Option<TempDir>,
}

impl WorkDir {
    /// Takes `dir`, which must be empty or not be there, or else a temporary directory.
    ///
    /// # Errors
    /// When it cannot be made or holds something.
    pub(crate) fn new(dir: Option<&Path>, keep: bool) -> anyhow::Result<Self> {
        let Some(dir) = dir else {
            let temporary = tempfile::Builder::new()
                .prefix("meshctl-demo-")
                .tempdir()
                .context("cannot make a directory")?;
            let (path, temporary) = match keep {
                true => (temporary.keep(), None),
                false => (temporary.path().to_owned(), Some(temporary)),
            };
            return Ok(Self { path, keep, _temporary: temporary });
        };
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        if fs::read_dir(dir)?.next().is_some() {
            bail!("{} is not empty; name a directory that is, or one that does not exist", dir.display());
        }
        Ok(Self { path: dir.canonicalize()?, keep, _temporary: None })
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The YAML's directory.
    pub(crate) fn source(&self) -> PathBuf {
        self.path.join("mesh")
    }

    /// The controller's data directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.path.join("state")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_what_is_empty() {
        let outer = tempfile::tempdir().unwrap();
        let new = outer.path().join("new/inner");
        assert!(WorkDir::new(Some(&new), false).unwrap().path().is_dir());
        let error = WorkDir::new(Some(outer.path()), false).unwrap_err().to_string();
        assert!(error.contains("is not empty"), "{error}");
    }

    #[test]
    fn a_temporary_directory_goes_unless_it_is_kept() {
        for keep in [false, true] {
            let dir = WorkDir::new(None, keep).unwrap();
            let path = dir.path().to_owned();
            drop(dir);
            assert_eq!(path.exists(), keep);
            let _left = fs::remove_dir_all(path);
        }
    }
}
