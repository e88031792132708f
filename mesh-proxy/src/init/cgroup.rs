//! Finds a cgroup (version 2) by its path: nf_tables knows it by its inode and depth.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
};

use super::values::Cgroup;

/// Below this directory nft looks for cgroups.
const NFT_ROOT: &str = "/sys/fs/cgroup";

/// Why a cgroup cannot be found.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// There are no cgroups of version 2.
    #[error("no cgroup2 file system is mounted: mount one, or tell the proxy by user, mark or class")]
    NotMounted,
    /// What was typed is no path of a cgroup.
    #[error(
        "cgroup {0:?}: expected the path of a cgroup below the root, as in /proc/PID/cgroup behind `0::`, for example /mesh.slice/proxy"
    )]
    Path(String),
    /// It is not there.
    #[error("cgroup {}: {error}; make it before the rules, for they keep its number", path.display())]
    Missing {
        /// Where it would be.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// The mounts cannot be read.
    #[error("/proc/self/mounts: {0}")]
    Mounts(io::Error),
}

impl Cgroup {
    /// Finds the cgroup `text`, a path within the hierarchy.
    ///
    /// # Errors
    /// [`CgroupError`].
    pub(crate) fn find(text: &str) -> Result<Self, CgroupError> {
        let mounts = fs::read_to_string("/proc/self/mounts").map_err(CgroupError::Mounts)?;
        let mount = mount_point(&mounts).ok_or(CgroupError::NotMounted)?;
        Self::below(Path::new(&mount), text)
    }

    fn below(mount: &Path, text: &str) -> Result<Self, CgroupError> {
        let bad = || CgroupError::Path(text.to_owned());
        let relative = Path::new(text.strip_prefix('/').ok_or_else(bad)?);
        let is_good = relative.components().all(|part| matches!(part, Component::Normal(_)));
        let level = relative.components().count();
        if !is_good || level == 0 || text.bytes().any(|b| b == b'"' || b.is_ascii_control()) {
            return Err(bad());
        }
        let path = mount.join(relative);
        let missing = |error| CgroupError::Missing { path: path.clone(), error };
        let found = fs::metadata(&path).map_err(missing)?;
        if !found.is_dir() {
            return Err(bad());
        }
        let level = u32::try_from(level).map_err(|_| bad())?;
        let named = path.strip_prefix(NFT_ROOT).unwrap_or(&path).to_owned();
        Ok(Self { id: found.ino(), level, path: named })
    }
}

/// Where cgroup2 is mounted, by the text of `/proc/self/mounts`.
fn mount_point(mounts: &str) -> Option<String> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| point.replace("\\040", " "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      none /sys/fs/cgroup/un\\040ified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(mounts).as_deref(), Some("/sys/fs/cgroup/un ified"));
        assert_eq!(mount_point("proc /proc proc rw 0 0\nbroken\n"), None);
    }

    #[test]
    fn depth_and_number_are_those_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let found = Cgroup::below(dir.path(), "/a/b").unwrap();
        assert_eq!(found.level, 2);
        assert_eq!(found.id, fs::metadata(dir.path().join("a/b")).unwrap().ino());
        for bad in ["", "/", "a/b", "/a/../b", "/../x", "/a\"b"] {
            let error = Cgroup::below(dir.path(), bad).unwrap_err();
            assert!(matches!(error, CgroupError::Path(_)), "{bad}: {error}");
        }
        let error = Cgroup::below(dir.path(), "/c").unwrap_err().to_string();
        assert!(error.contains("make it before the rules"), "{error}");
    }
}
