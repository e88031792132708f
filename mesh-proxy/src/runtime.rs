//! Threads: how many workers, and how one starts.

use std::{fs, io, path::Path, sync::mpsc, thread};

use tokio::{runtime::LocalOptions, sync::watch};

use crate::worker::{self, WorkerContext};

/// Most workers unless told otherwise.
const MOST: usize = 2;
/// Stack of a worker, in bytes.
const STACK: usize = 1024 * 1024;

/// Number of workers unless told otherwise: the CPU quota rounded up, at most 2.
pub(crate) fn default_workers() -> usize {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cpu_quota(Path::new("/sys/fs/cgroup"), &own).unwrap_or(cpus).clamp(1, MOST)
}

/// CPU quota in whole CPUs, rounded up. `own` is the text of /proc/self/cgroup. None: there is no limit.
fn cpu_quota(root: &Path, own: &str) -> Option<usize> {
    let path_of = |wanted: fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let v2 = path_of(str::is_empty).unwrap_or_default();
    let v1 = path_of(|controllers| controllers.split(',').any(|c| c == "cpu")).unwrap_or_default();
    let dirs = [root.join(v2), root.to_owned(), root.join("cpu").join(v1), root.join("cpu")];
    dirs.iter().find_map(|dir| quota_in(dir))
}

fn quota_in(dir: &Path) -> Option<usize> {
    let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
    let number = |text: &str| text.trim().parse::<u64>().ok().filter(|n| *n > 0);
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (number(quota)?, number(period)?)
        }
        None => (number(&read("cpu.cfs_quota_us")?)?, number(&read("cpu.cfs_period_us")?)?),
    };
    usize::try_from(quota.div_ceil(period)).ok()
}

/// Counts a worker as running, until it is dropped.
pub(crate) struct Running(watch::Sender<usize>);

impl Running {
    /// One more.
    pub(crate) fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Starts one worker on a thread of its own. `running` is dropped when it has ended, for whatever reason.
///
/// # Errors
/// When the thread or its event loop cannot be made.
pub(crate) fn start_worker(context: WorkerContext, running: Running) -> io::Result<()> {
    // The event loop cannot leave its thread, so it is made there.
    let (tell, told) = mpsc::sync_channel(1);
    thread::Builder::new().name(format!("worker-{}", context.index)).stack_size(STACK).spawn(move || {
        let _running = running;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                let _ = tell.send(Ok(()));
                runtime.block_on(worker::run(context));
            }
            Err(error) => drop(tell.send(Err(error))),
        }
    })?;
    told.recv().unwrap_or_else(|_| Err(io::Error::other("the worker ended at once")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], own: &str, expected: Option<usize>) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(cpu_quota(root.path(), own), expected);
    }

    #[test]
    fn quota_is_rounded_up() {
        check(&[("cpu.max", "150000 100000\n")], "0::/\n", Some(2));
        check(&[("cpu.max", "10000 100000\n")], "0::/\n", Some(1));
        check(&[("pod/cpu.max", "400000 100000\n")], "0::/pod\n", Some(4));
        let v1 = [("cpu/pod/cpu.cfs_quota_us", "250000\n"), ("cpu/pod/cpu.cfs_period_us", "100000\n")];
        check(&v1, "3:cpu,cpuacct:/pod\n", Some(3));
    }

    #[test]
    fn no_quota_is_no_limit() {
        check(&[("cpu.max", "max 100000\n")], "0::/\n", None);
        check(&[("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")], "", None);
        check(&[("cpu.max", "nonsense")], "", None);
        check(&[], "", None);
    }
}
