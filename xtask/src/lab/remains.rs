//! What a lab may leave behind, for the test that it leaves nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::namespaces::{self, Namespace};
use super::place::Lab;
use super::{cgroups, down, network};

/// Where Kubernetes and containerd leave traces on a machine that is not made for them.
const TRACES: [&str; 10] = [
    "/etc/cni",
    "/etc/kubernetes",
    "/opt/containerd",
    "/run/containerd",
    "/run/flannel",
    "/run/xtables.lock",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];
/// What kubelet sets for the whole machine.
const SETTINGS: [&str; 3] =
    ["/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops"];

/// The machine without the lab.
pub(super) struct Before {
    traces: Vec<&'static str>,
    settings: Vec<Option<String>>,
}

impl Before {
    /// Looks at the machine.
    pub(super) fn look() -> Self {
        let traces = TRACES.into_iter().filter(|path| Path::new(path).exists()).collect();
        Self { traces, settings: settings() }
    }

    /// What is there now that was not, and what has the lab's name; nothing is expected.
    pub(super) fn left(&self, lab: &Lab, inside: &Inside) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for pid in namespaces::all()? {
            let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(&*lab.folder().to_string_lossy()) {
                left.push(format!("process {pid:?}, {command}"));
            }
        }
        for namespace in &inside.0 {
            for pid in namespace.processes()? {
                left.push(format!("process {pid:?} in {namespace:?}"));
            }
        }
        // Labs have at most two nodes; the folder that says how many is gone.
        let names = [lab.switch(), lab.own(1), lab.own(2)];
        left.extend(names.iter().filter(|name| network::exists(name)).map(|name| format!("network {name}")));
        for name in &names {
            left.extend(
                cgroups::find(name)?.iter().map(|group| format!("control group {}", group.display())),
            );
        }
        left.extend(down::mounts_below(&lab.folder())?.into_iter().map(|mount| format!("mount {mount}")));
        let paths: [PathBuf; 2] = [lab.folder(), lab.lock_file()];
        left.extend(paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string()));
        let now = Self::look();
        left.extend(
            now.traces.iter().filter(|path| !self.traces.contains(path)).map(|&path| path.to_owned()),
        );
        if now.settings != self.settings {
            left.push(format!("{SETTINGS:?} were {:?} and are {:?}", self.settings, now.settings));
        }
        Ok(left)
    }
}

fn settings() -> Vec<Option<String>> {
    SETTINGS.iter().map(|file| fs::read_to_string(file).ok()).collect()
}

/// The namespaces of a lab that runs.
#[derive(Debug)]
pub(super) struct Inside(Vec<Namespace>);

impl Inside {
    /// Finds them.
    pub(super) fn of(lab: &Lab) -> Self {
        let networks = network::names(lab).into_iter().filter_map(|name| Namespace::network(&name));
        let holders = lab.nodes().into_iter().filter_map(|node| node.holder());
        let others = holders.flat_map(|holder| {
            ["mnt", "pid_for_children"].map(|kind| Namespace::of(holder.pid(), kind)).into_iter().flatten()
        });
        Self(networks.chain(others).collect())
    }

    /// True if nothing is known of it.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
