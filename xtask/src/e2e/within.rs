//! Acting in the network of a node or of a pod.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::lab::place::Lab;

/// A network that can be entered.
pub(super) struct Inside {
    network: PathBuf,
    process: PathBuf,
}

impl Inside {
    /// That of the lab's first node.
    pub(super) fn node(lab: &Lab) -> Self {
        Self { network: lab.first_network(), process: PathBuf::new() }
    }

    /// That of a process in the lab's pods, by its name and a variable of its environment.
    pub(super) fn find(lab: &Lab, name: &str, variable: &str) -> Result<Self> {
        let group = lab.first_cgroup();
        let folders = fs::read_dir("/proc").context("cannot read /proc")?;
        for process in folders.filter_map(|entry| Some(entry.ok()?.path())) {
            let read = |file: &str| fs::read_to_string(process.join(file)).unwrap_or_default();
            if read("comm").trim() == name && read("cgroup").contains(&group) {
                let environment = fs::read(process.join("environ")).unwrap_or_default();
                let mut variables = environment.split(|byte| *byte == 0);
                if variable.is_empty() || variables.any(|v| v == variable.as_bytes()) {
                    return Ok(Self { network: process.join("ns/net"), process });
                }
            }
        }
        Err(anyhow!("no process {name} {variable} in the pods of {lab}"))
    }

    /// A file of its process in /proc.
    pub(super) fn read(&self, name: &str) -> Result<String> {
        let file = self.process.join(name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// What its process has in memory, in MB.
    pub(super) fn memory(&self) -> Result<f64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kb: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kb * 1024.0 / 1e6)
    }

    /// Does something there, on a thread of its own.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let file =
            File::open(&self.network).with_context(|| format!("cannot open {}", self.network.display()))?;
        let done = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))?;
                work()
            });
            inside.join()
        });
        done.map_err(|_| anyhow!("a thread panicked"))?
    }
}

/// Sends a request to the address and reads the answer until its end.
pub(super) fn exchange(address: &str, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
