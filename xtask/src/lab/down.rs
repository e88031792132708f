//! `lab down`: ends a cluster and removes what it made, however far it had come.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::lock::Lock;
use super::namespaces::Namespace;
use super::place::Lab;
use super::process::Record;
use super::{cgroups, needs, network, quietly};
use crate::stages::Stages;

/// Ends the lab and removes all of it.
pub(super) fn run(lab: &Lab) -> Result<()> {
    needs::check_root()?;
    let lock = Lock::take(lab)?;
    if lab.is_begun() {
        Stages::default().run("down", || remove(lab))?;
    } else {
        println!("{lab} is not up");
        // If `lab up` came no further than this.
        remove_empty(&lab.folder())?;
    }
    lock.remove()?;
    // Others may have labs there.
    remove_empty(lab.base())
}

/// Removes a folder, if it is there and nothing is in it.
fn remove_empty(folder: &Path) -> Result<()> {
    match fs::remove_dir(folder) {
        Err(error) if !matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Whatever is in the lab's network is killed; that must not be us.
fn check_outside(lab: &Lab) -> Result<()> {
    let ours = Namespace::of(std::process::id().cast_signed(), "net");
    let inside = network::names(lab).iter().any(|name| ours.is_some() && Namespace::network(name) == ours);
    ensure!(!inside, "this shell is in the network of {lab}, which ends with it: leave it first");
    Ok(())
}

/// Removes all but the folder of all labs. The caller has the lock.
pub(super) fn remove(lab: &Lab) -> Result<()> {
    check_outside(lab)?;
    for node in lab.nodes() {
        // With its first process all of a node ends: its mounts were only in its own namespace.
        if let Some(holder) = node.holder() {
            if let Some(inside) = Namespace::of(holder.pid(), "pid_for_children") {
                inside.kill()?;
            }
            holder.kill()?;
        }
    }
    // What is left waits for a process of a node, or could not enter it.
    if let Ok(records) = fs::read_dir(lab.processes()) {
        for entry in records {
            let file = entry.context("cannot list the processes of the lab")?.path();
            Record::read(&file).map_or(Ok(()), |record| record.kill())?;
        }
    }
    // Shells of users, and what was asking the cluster when its `lab up` was killed.
    for inside in network::names(lab).iter().filter_map(|name| Namespace::network(name)) {
        inside.kill()?;
    }
    network::remove(lab)?;
    for node in lab.nodes() {
        cgroups::remove(&node.cgroup())?;
    }
    let folder = lab.folder();
    unmount_below(&folder)?;
    remove_folder(&folder, &lab.plan())
}

/// Nobody else's files may be reached through a mount, when the folder is removed.
fn unmount_below(folder: &Path) -> Result<()> {
    for mount in mounts_below(folder)? {
        quietly(Command::new("umount").arg(&mount))
            .with_context(|| format!("{mount} is mounted in the lab's folder, and cannot be unmounted"))?;
    }
    Ok(())
}

/// Mounts below a folder that this process sees, the innermost first.
pub(super) fn mounts_below(folder: &Path) -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let mut below: Vec<String> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|mount| Path::new(mount).starts_with(folder))
        .map(str::to_owned)
        .collect();
    below.reverse();
    Ok(below)
}

/// Removes the folder; last the file by which it is known as ours, so that this can be done again when it is ended.
fn remove_folder(folder: &Path, last: &Path) -> Result<()> {
    let failed = || format!("cannot remove {}", folder.display());
    for entry in fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        if path == last {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path).with_context(failed)?;
        } else {
            fs::remove_file(&path).with_context(failed)?;
        }
    }
    fs::remove_file(last).with_context(failed)?;
    fs::remove_dir(folder).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_goes_whole() {
        let base = tempfile::tempdir().expect("a folder");
        let folder = base.path().join("lab");
        fs::create_dir_all(folder.join("a/b")).expect("folders");
        std::os::unix::fs::symlink("/etc", folder.join("link")).expect("a link");
        fs::write(folder.join("nodes"), "1").expect("a file");
        remove_folder(&folder, &folder.join("nodes")).expect("it goes");
        assert!(!folder.exists() && Path::new("/etc").exists());
    }

    #[test]
    fn mounts_are_found() {
        let mounts = mounts_below(Path::new("/proc")).expect("a list");
        assert_eq!(mounts.last().map(String::as_str), Some("/proc"));
        assert_eq!(mounts_below(Path::new("/proc/no-such-folder")).expect("a list"), [""; 0]);
    }
}
