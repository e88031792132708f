//! Processes that go on when we end, and how they are known again: by id and the time of their start.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::node::Node;

/// See there.
const NOTE: &str = include_str!("files/process.sh");
/// How often we look.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// A process that was started once.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    pid: Pid,
    /// Ticks from the start of the machine: no two processes have both this and the id in common.
    started: u64,
}

impl Record {
    /// Reads what [`spawn`] had noted; `None` if there is nothing of the kind.
    pub(super) fn read(file: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(file).ok()?).map(|(record, _)| record)
    }

    /// Reads a line of /proc/PID/stat, of which the second value is true for a process that has ended, but whose
    /// parent has not asked.
    fn parse(stat: &str) -> Option<(Self, bool)> {
        // The name, in brackets, may have blanks and brackets itself.
        let (pid, _) = stat.split_once(' ')?;
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let pid = Pid::from_raw(i32::try_from(pid.parse::<u32>().ok()?).ok()?)?;
        let ended = matches!(fields.first(), Some(&("Z" | "X")));
        Some((Self { pid, started: fields.get(19)?.parse().ok()? }, ended))
    }

    /// Its id.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// True if it runs.
    pub(super) fn is_alive(&self) -> bool {
        let now = fs::read_to_string(format!("/proc/{}/stat", self.pid()));
        now.ok().and_then(|stat| Self::parse(&stat)).is_some_and(|(now, ended)| now == *self && !ended)
    }

    /// Kills it, if it runs.
    pub(super) fn kill(&self) -> Result<()> {
        kill(self.pid, || self.is_alive())
    }
}

/// Kills a process if it still is the one that is meant, which `check` says once the process is held: another process
/// of the same id is never hit.
pub(super) fn kill(pid: Pid, check: impl FnOnce() -> bool) -> Result<()> {
    // It may have ended by itself.
    let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    if !check() {
        return Ok(());
    }
    match pidfd_send_signal(held, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot kill process {pid:?}")),
    }
}

/// Starts a command in a session of its own, notes in the file `record` which process it is, and lets it log.
pub(super) fn spawn(record: &Path, log: &Path, command: &Command) -> Result<Child> {
    let out = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let also = out.try_clone().context("cannot share the log file")?;
    let mut alone = Command::new("setsid");
    alone.args(["bash", "-c", NOTE]).arg(record).arg(command.get_program()).args(command.get_args());
    alone.current_dir("/").stdin(Stdio::null()).stdout(out).stderr(also);
    alone.spawn().context("cannot start setsid: install the package util-linux")
}

/// What was started by this `up`, to notice when it ends early.
#[derive(Default)]
pub(super) struct Started {
    children: Vec<(String, PathBuf, Child)>,
}

impl Started {
    /// Starts a process that is part of a node.
    pub(super) fn start(&mut self, node: &Node<'_>, program: &Path, args: &[String]) -> Result<()> {
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy();
        let mut command = node.inside(program)?;
        command.args(args);
        let record = node.lab.processes().join(format!("{}-{name}", node.name()));
        let child = spawn(&record, &node.log(&name), &command)?;
        self.watch(format!("{name} of {}", node.name()), node.log(&name), child);
        Ok(())
    }

    /// Notices the end of a process.
    pub(super) fn watch(&mut self, name: String, log: PathBuf, child: Child) {
        self.children.push((name, log, child));
    }

    /// Asks again and again until `ready` says so; fails when a process ends, or after `patience`.
    pub(super) fn wait_until(
        &mut self,
        what: &str,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !ready() {
            for (name, log, child) in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    bail!(
                        "{name} ended ({status}) before {what}; the end of {}:\n{}",
                        log.display(),
                        tail(log)
                    );
                }
            }
            if Instant::now() > deadline {
                let logs: Vec<_> =
                    self.children.iter().map(|(_, log, _)| log.display().to_string()).collect();
                bail!("no {what} after {} s; see {}", patience.as_secs(), logs.join(", "));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let stat = |state| format!("42 (a) b) {state} {}12345 6 7\n", "1 ".repeat(18));
        let (record, ended) = Record::parse(&stat("S")).expect("a record");
        assert_eq!((record.pid(), record.started, ended), (42, 12345, false));
        assert!(Record::parse(&stat("Z")).expect("a record").1);
        for bad in ["", "x", "42 (a) S 1 2", "-1 (a) S"] {
            assert_eq!(Record::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_process_is_known_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, log) = (folder.path().join("record"), folder.path().join("log"));
        // Such as a lock of the shell that starts us.
        let inherited = File::create(folder.path().join("inherited")).expect("a file");
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).expect("a flag");
        let mut child = spawn(&file, &log, Command::new("sleep").arg("60")).expect("it starts");
        let is_sleep = || {
            let name = fs::read_to_string(format!("/proc/{}/comm", child.id()));
            name.is_ok_and(|name| name == "sleep\n")
        };
        while !is_sleep() {
            thread::sleep(Duration::from_millis(5));
        }
        let files = fs::read_dir(format!("/proc/{}/fd", child.id())).expect("its files");
        assert_eq!(files.count(), 3);
        let record = Record::read(&file).expect("a record");
        assert_eq!(u32::try_from(record.pid()), Ok(child.id()));
        let other = Record { pid: record.pid, started: record.started + 1 };
        other.kill().expect("another process of this id");
        assert!(record.is_alive() && !other.is_alive());
        record.kill().expect("its end");
        child.wait().expect("its end");
        assert!(!record.is_alive());
        record.kill().expect("nothing to do");
    }
}
