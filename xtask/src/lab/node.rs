//! A node: namespaces of its own for network, mounts and processes, and how to run something in them.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context as _, Result};

use super::place::Lab;
use super::process::{self, Record};

/// See there.
const FIRST: &str = include_str!("files/node.sh");

/// One node of a lab.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) lab: &'a Lab,
    /// From 1; the first also runs the control plane.
    pub(super) number: u8,
}

impl Node<'_> {
    /// What Kubernetes calls it.
    pub(super) fn name(&self) -> String {
        format!("node{}", self.number)
    }

    /// Its address in the network of the nodes.
    pub(super) fn ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.number)
    }

    /// Addresses of its pods.
    pub(super) fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    /// Holds what it writes.
    pub(super) fn folder(&self) -> PathBuf {
        self.lab.folder().join(self.name())
    }

    /// Its network namespace, as `ip netns` calls it.
    pub(super) fn network(&self) -> String {
        self.lab.own(self.number)
    }

    /// The control group of its pods, from the root of each hierarchy.
    pub(super) fn cgroup(&self) -> String {
        self.lab.own(self.number)
    }

    /// Where its containerd listens.
    pub(super) fn containerd(&self) -> PathBuf {
        self.folder().join("containerd.sock")
    }

    /// Its network configuration; on the node itself it is /var/lib/cni/net.d.
    pub(super) fn networks(&self) -> PathBuf {
        self.folder().join("var/lib/cni/net.d")
    }

    /// Its CNI plugins; on the node itself they are in /var/lib/cni/bin.
    pub(super) fn plugins(&self) -> PathBuf {
        self.folder().join("var/lib/cni/bin")
    }

    /// Where the process is noted that holds its namespaces.
    fn holder_file(&self) -> PathBuf {
        self.lab.processes().join(format!("{}-holder", self.name()))
    }

    /// The process that holds its namespaces: the parent of the first process in them.
    pub(super) fn holder(&self) -> Option<Record> {
        Record::read(&self.holder_file()).filter(Record::is_alive)
    }

    /// Starts the process that holds its namespaces. The network must be there.
    pub(super) fn hold(&self) -> Result<Child> {
        let mut command = self.in_network(Path::new("unshare"));
        command.args([
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--mount",
            "--propagation",
            "slave",
        ]);
        command.args(["sh", "-c", FIRST, "node"]).arg(self.folder());
        process::spawn(&self.holder_file(), &self.log("holder"), &command)
    }

    /// True when the holder has set up its namespaces.
    pub(super) fn is_held(&self) -> bool {
        self.folder().join("made").exists()
    }

    /// Where a process of this node logs.
    pub(super) fn log(&self, program: &str) -> PathBuf {
        self.lab.logs().join(format!("{}-{program}.log", self.name()))
    }

    /// A command in its network, that sees the machine's files and processes.
    ///
    /// Not by `ip netns exec`, which mounts a new /sys, without control groups.
    pub(super) fn in_network(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.network())).arg("--").arg(program);
        command
    }

    /// A command in all of its namespaces.
    pub(super) fn inside(&self, program: &Path) -> Result<Command> {
        let holder = self
            .holder()
            .with_context(|| format!("{} has ended; see {}", self.name(), self.log("holder").display()))?;
        let mut command = Command::new("nsenter");
        let namespaces = format!("/proc/{}/ns", holder.pid());
        command.arg(format!("--net={namespaces}/net")).arg(format!("--mount={namespaces}/mnt"));
        // The holder itself is outside of it.
        command.arg(format!("--pid={namespaces}/pid_for_children")).arg("--").arg(program);
        Ok(command)
    }
}
