//! A process of the demo: one that it started, or one that took over from such a one and has become its child.

use std::{fs, io, os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};
use tokio::{process::Child, time::sleep};

/// How often it is looked whether one that was not started here has ended.
const LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) enum Process {
    Started(Child),
    /// Killed when dropped, as the other is.
    Adopted(Adopted),
}

/// One that somebody else started.
#[derive(Debug)]
pub(super) struct Adopted {
    pid: Pid,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(super) fn adopted(pid: Pid) -> Self {
        Self::Adopted(Adopted { pid, ended: None })
    }

    /// How it ended; None: it runs.
    pub(super) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match self {
            Self::Started(child) => child.try_wait(),
            Self::Adopted(adopted) => adopted.try_wait(),
        }
    }

    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match self {
            Self::Started(child) => child.wait().await,
            Self::Adopted(adopted) => adopted.wait().await,
        }
    }

    /// Kills it and waits for its end.
    pub(super) async fn kill(&mut self) -> io::Result<()> {
        match self {
            Self::Started(child) => child.kill().await,
            Self::Adopted(adopted) => {
                kill_process(adopted.pid, Signal::KILL)?;
                adopted.wait().await.map(drop)
            }
        }
    }
}

impl Adopted {
    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let ended = waitpid(Some(self.pid), WaitOptions::NOHANG)?;
            self.ended = ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
        }
        Ok(self.ended)
    }

    async fn wait(&mut self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            sleep(LOOK).await;
        }
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        if let Ok(None) = self.try_wait() {
            // Not waited for, so that its number is nobody else's.
            let _gone = kill_process(self.pid, Signal::KILL);
        }
    }
}

/// A child of this process that runs with these arguments, whatever its program is.
pub(super) fn successor(args: &[String]) -> Option<Pid> {
    let own = getpid().as_raw_nonzero().get();
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let of = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // The parent is the second field after the name, which stands in brackets and may hold anything.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        let has = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0).skip(1);
        parent == Some(own) && has.eq(args.iter().map(String::as_bytes))
    };
    pids.filter(of).find_map(Pid::from_raw)
}
