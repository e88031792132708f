//! Two commands must not start or end the same lab at the same time.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::place::Lab;

/// Holds the lock until it is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lab's lock; fails if somebody has it.
    pub(super) fn take(lab: &Lab) -> Result<Self> {
        let path = lab.lock_file();
        loop {
            fs::create_dir_all(lab.base())
                .with_context(|| format!("cannot make the folder {}", lab.base().display()))?;
            let file = File::options().create(true).append(true).open(&path);
            let file = file.with_context(|| format!("cannot write {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    bail!("another command is just starting or ending {lab}: wait for it");
                }
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            // Whoever had it may have removed the file meanwhile.
            let same = |there: fs::Metadata| file.metadata().is_ok_and(|ours| ours.ino() == there.ino());
            if fs::metadata(&path).is_ok_and(same) {
                return Ok(Self { file, path });
            }
        }
    }

    /// Removes the file too.
    pub(super) fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))?;
        drop(self.file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let lab = Lab::new("a", folder.path(), Some(folder.path())).expect("a lab");
        let first = Lock::take(&lab).expect("nobody has it");
        assert!(Lock::take(&lab).expect_err("it is taken").to_string().contains("another command"));
        drop(first);
        Lock::take(&lab).expect("it is free").remove().expect("the file");
        assert!(!lab.lock_file().exists());
    }
}
