//! A child process with its CPU time and memory, ended when it goes out of scope.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Ticks a second of the times in /proc/PID/stat: USER_HZ, which is 100 on every Linux.
const TICKS: u64 = 100;

/// A running child.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
}

impl Process {
    /// Starts `command`; what it prints goes to `NAME.log` in `folder`.
    pub(crate) fn start(name: &'static str, folder: &Path, command: &mut Command) -> Result<Self> {
        let file = folder.join(format!("{name}.log"));
        let log = std::fs::File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
        let also = log.try_clone().context("cannot share the log file")?;
        let child = command.stdin(Stdio::null()).stdout(log).stderr(also).spawn();
        let child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { name, child })
    }

    /// User and system time of all its threads since it started.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let ticks = ticks(&self.read("stat")?)
            .with_context(|| format!("cannot read the CPU time of {}", self.name))?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS))
    }

    /// Bytes of memory that are resident (VmRSS).
    pub(crate) fn resident(&self) -> Result<u64> {
        let text = self.read("status")?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map(|kib: u64| kib * 1024).with_context(|| format!("cannot read the memory of {}", self.name))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.child.id());
        std::fs::read_to_string(&path).with_context(|| format!("{} is gone: cannot read {path}", self.name))
    }

    /// Asks again and again until `ready` says so, at most 15 s.
    pub(crate) fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(15);
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}: see {}.log in target/bench", self.name, self.name);
            }
            if Instant::now() > deadline {
                bail!("{} runs, but without {what}: see {}.log in target/bench", self.name, self.name);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// utime + stime of /proc/PID/stat. The name in parentheses may hold anything, so fields count from its end.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ticks() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 1 0 1 1 1";
        assert_eq!(ticks(stat), Some(12));
        assert_eq!(ticks("42 (a"), None);
    }
}
