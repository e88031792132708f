//! Control groups of nodes, one in every hierarchy, of version 1 or 2.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::process::PAUSE;

/// How long the kernel may take to forget processes that have ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the group of that name in all hierarchies.
pub(super) fn make(name: &str) -> Result<()> {
    let all = hierarchies()?;
    ensure!(!all.is_empty(), "no control groups are mounted: kubelet needs them below /sys/fs/cgroup");
    for hierarchy in all {
        let group = hierarchy.folder.join(name);
        if hierarchy.unified {
            hand_down(&hierarchy.folder)?;
        }
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
    }
    Ok(())
}

/// Lets groups below have all the controllers that there are.
fn hand_down(folder: &Path) -> Result<()> {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    let all: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
    if all.is_empty() {
        return Ok(());
    }
    fs::write(folder.join("cgroup.subtree_control"), all.join(" "))
        .with_context(|| format!("cannot hand the controllers of {} down", folder.display()))
}

/// Removes the group of that name and all below it, in all hierarchies. Its processes must have ended.
pub(super) fn remove(name: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for group in find(name)? {
        while let Err(error) = remove_tree(&group) {
            if Instant::now() > deadline {
                bail!("cannot remove {}: {error}", group.display());
            }
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// The folders of that name in all hierarchies.
pub(super) fn find(name: &str) -> Result<Vec<PathBuf>> {
    let folders = hierarchies()?.into_iter().map(|hierarchy| hierarchy.folder.join(name));
    Ok(folders.filter(|folder| folder.is_dir()).collect())
}

/// Removes folders from below. The files in them are the kernel's, and go with them.
fn remove_tree(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// One tree of control groups.
#[derive(Debug, PartialEq)]
struct Hierarchy {
    folder: PathBuf,
    /// Of version 2.
    unified: bool,
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(parse(&mounts))
}

fn parse(mounts: &str) -> Vec<Hierarchy> {
    let hierarchy = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (folder, kind) = (fields.next()?, fields.next()?);
        let unified = kind == "cgroup2";
        (unified || kind == "cgroup").then(|| Hierarchy { folder: folder.into(), unified })
    };
    mounts.lines().filter_map(hierarchy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_hierarchies() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ncgroup /x\n";
        let expected = [("/sys/fs/cgroup/cpu", false), ("/sys/fs/cgroup/unified", true)];
        let expected = expected.map(|(folder, unified)| Hierarchy { folder: folder.into(), unified });
        assert_eq!(parse(mounts), expected);
    }
}
