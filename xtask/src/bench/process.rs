//! A child process with its CPU time and memory, ended when it goes out of scope.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long a process may take to be of use.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running child.
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `command`; what it prints goes to `NAME.log` in `folder`.
    pub(crate) fn start(name: &str, folder: &Path, command: &mut Command) -> Result<Self> {
        let file = folder.join(format!("{name}.log"));
        let log = std::fs::File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
        let also = log.try_clone().context("cannot share the log file")?;
        let child = command.stdin(Stdio::null()).stdout(log).stderr(also).spawn();
        let child = child.with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), log: file, child })
    }

    /// User and system time of all its threads since they started.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let folder = format!("/proc/{}/task", self.child.id());
        let threads = std::fs::read_dir(&folder).with_context(|| format!("{} is gone", self.name))?;
        let mut total = Duration::ZERO;
        for thread in threads {
            let file = thread.with_context(|| format!("cannot list the threads of {}", self.name))?.path();
            // A thread may end meanwhile.
            let Ok(text) = std::fs::read_to_string(file.join("schedstat")) else { continue };
            total += time_on_cpu(&text)
                .with_context(|| format!("cannot read the CPU time of {}: `{text}`", self.name))?;
        }
        Ok(total)
    }

    /// Bytes of memory that are resident (VmRSS).
    pub(crate) fn resident(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(&path).with_context(|| format!("{} is gone", self.name))?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map(|kib: u64| kib * 1024).with_context(|| format!("cannot read the memory of {}", self.name))
    }

    /// Files and sockets that are open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.child.id());
        Ok(std::fs::read_dir(&folder).with_context(|| format!("{} is gone", self.name))?.count())
    }

    /// Asks again and again until `ready` says so.
    pub(crate) fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before {what}: see {}", self.name, self.log.display());
            }
            if Instant::now() > deadline {
                bail!("{} runs, but without {what}: see {}", self.name, self.log.display());
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

/// The first field of a thread's /proc/PID/task/TID/schedstat: nanoseconds on a CPU. More precise than the ticks of
/// `stat`, of which there are 100 a second.
fn time_on_cpu(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_time_on_cpu() {
        assert_eq!(time_on_cpu("42329 17 1\n"), Some(Duration::from_nanos(42329)));
        assert_eq!(time_on_cpu(""), None);
    }

    #[test]
    fn measures_a_process() {
        let folder = std::env::temp_dir();
        let name = format!("xtask-process-{}", std::process::id());
        let mut process =
            Process::start(&name, &folder, Command::new("sleep").arg("60")).expect("sleep starts");
        let mut asked = 0;
        process
            .wait_until("three questions", || {
                asked += 1;
                asked == 3
            })
            .expect("it is still there");
        assert!(process.resident().expect("its memory") > 0);
        assert!(process.descriptors().expect("its files") >= 3);
        assert!(process.cpu().expect("its time") < Duration::from_secs(1));
        std::fs::remove_file(folder.join(format!("{name}.log"))).expect("its log");
    }
}
