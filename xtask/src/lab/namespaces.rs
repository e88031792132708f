//! Which processes are in a namespace, as /proc tells.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Pid;

use super::process::{PAUSE, kill};

/// How long processes may take to end when they are killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A namespace, as its link in /proc has it, for example `pid:[4026532285]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace(PathBuf);

impl Namespace {
    /// The namespace of that kind (a name below /proc/PID/ns) that a process has, if it runs.
    pub(super) fn of(pid: i32, kind: &str) -> Option<Self> {
        Some(Self(fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()?))
    }

    /// The one that `ip netns` has by that name.
    pub(super) fn network(name: &str) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let inode = fs::metadata(Path::new("/run/netns").join(name)).ok()?.ino();
        Some(Self(format!("net:[{inode}]").into()))
    }

    /// `net`, `pid` and so on.
    fn kind(&self) -> &str {
        self.0.to_str().and_then(|text| text.split(':').next()).unwrap_or_default()
    }

    /// True if the process is in it.
    fn holds(&self, pid: Pid) -> bool {
        Self::of(pid.as_raw_nonzero().get(), self.kind()).as_ref() == Some(self)
    }

    /// Ids of the processes in it.
    pub(super) fn processes(&self) -> Result<Vec<Pid>> {
        Ok(all()?.into_iter().filter(|pid| self.holds(*pid)).collect())
    }

    /// Kills all processes in it, and waits until they are gone.
    pub(super) fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.processes()?;
            if left.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "processes {left:?} do not end, though they are killed");
            for pid in left {
                kill(pid, || self.holds(pid))?;
            }
            thread::sleep(PAUSE / 4);
        }
    }
}

/// Ids of all processes.
pub(super) fn all() -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let name = entry.context("cannot list /proc")?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_those_inside() {
        let me = Pid::from_raw(std::process::id().cast_signed()).expect("an id");
        let ours = Namespace::of(me.as_raw_nonzero().get(), "pid").expect("a namespace");
        assert_eq!(ours.kind(), "pid");
        assert!(ours.processes().expect("a list").contains(&me));
        let nobodys = Namespace("pid:[1]".into());
        assert_eq!(nobodys.processes().expect("a list"), []);
        nobodys.kill().expect("nothing to do");
    }
}
