//! A lab's name, and the names, folders and addresses that follow from it.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::node::Node;

/// The service of the API server, the first of [`SERVICES`].
pub(super) const API: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The service of the cluster's DNS.
pub(super) const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Addresses of services.
pub(super) const SERVICES: &str = "10.96.0.0/16";
/// Addresses of pods, of all nodes.
pub(super) const PODS: &str = "10.244.0.0/16";

/// Variables with the folders that `--state` and `--cache` give.
pub(super) const STATE: &str = "MESH_LAB_STATE";
pub(super) const CACHE: &str = "MESH_LAB_CACHE";
/// What holds where nothing is said.
pub(super) const DEFAULT_NAME: &str = "lab";
pub(super) const DEFAULT_STATE: &str = "/var/tmp/mesh-lab";

/// Folders of which every node has its own, so that it does not see what the machine has there.
const HIDDEN: [&str; 3] = ["/run", "/var/lib", "/var/log"];
/// The name of a socket has at most 107 bytes, and ours have up to 40 below a lab's folder.
const LONGEST: usize = 67;

/// One lab.
#[derive(Debug)]
pub(crate) struct Lab {
    name: String,
    base: PathBuf,
    cache: PathBuf,
}

impl fmt::Display for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the lab `{}`", self.name)
    }
}

impl Lab {
    /// The lab of that name, with its state below `base`, and programs in `cache` or where the user's caches are.
    pub(super) fn new(name: &str, base: &Path, cache: Option<&Path>) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            (1..=20).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('-'),
            "`{name}` cannot name a lab: take up to 20 of a-z, 0-9 and -"
        );
        let absolute = |folder: &Path| {
            std::path::absolute(folder).with_context(|| format!("not a folder: `{}`", folder.display()))
        };
        let base = absolute(base)?;
        let cache = match cache {
            Some(cache) => absolute(cache)?,
            None => default_cache()?,
        };
        for folder in [&base, &cache] {
            ensure!(
                !HIDDEN.iter().any(|hidden| folder.starts_with(hidden)),
                "{} cannot be used: nodes have a {} of their own; give another by --state or --cache",
                folder.display(),
                HIDDEN.join(", "),
            );
        }
        let lab = Self { name: name.to_owned(), base, cache };
        let folder = lab.folder();
        let text = folder.to_str().context("the folder for the state is not UTF-8")?;
        ensure!(text.len() <= LONGEST, "{text} is too long for names of sockets: give another by --state");
        let safe = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
        ensure!(text.chars().all(safe), "{text} would have to be quoted in files: give another by --state");
        Ok(lab)
    }

    /// The lab of that name, where the environment says, or in the usual places.
    pub(crate) fn from_environment(name: &str) -> Result<Self> {
        let base = std::env::var_os(STATE).map_or_else(|| DEFAULT_STATE.into(), PathBuf::from);
        Self::new(name, &base, std::env::var_os(CACHE).as_deref().map(Path::new))
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What to type for this lab.
    pub(crate) fn command(&self, what: &str) -> String {
        match self.name.as_str() {
            DEFAULT_NAME => format!("cargo xtask lab {what}"),
            name => format!("cargo xtask lab --name {name} {what}"),
        }
    }

    /// Holds the folders of all labs.
    pub(super) fn base(&self) -> &Path {
        &self.base
    }

    /// Holds all that this lab writes, its logs too.
    pub(super) fn folder(&self) -> PathBuf {
        self.base.join(&self.name)
    }

    /// Whoever starts or ends the lab has this file locked.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.base.join(format!("{}.lock", self.name))
    }

    /// Keys, certificates and kubeconfigs.
    pub(super) fn pki(&self) -> PathBuf {
        self.folder().join("pki")
    }

    /// Lets its holder do everything.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.pki().join("admin.conf")
    }

    /// One file for each process.
    pub(super) fn logs(&self) -> PathBuf {
        self.folder().join("log")
    }

    /// One file for each process that was started; see [`super::process`].
    pub(super) fn processes(&self) -> PathBuf {
        self.folder().join("processes")
    }

    /// Compiled programs and what they are compiled from.
    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }

    /// Compiled programs.
    pub(super) fn binaries(&self) -> PathBuf {
        self.cache.join("bin")
    }

    /// A namespace or control group: no other lab has one of that name.
    pub(super) fn own(&self, part: impl fmt::Display) -> String {
        format!("mesh-{}-{part}", self.name)
    }

    /// The network namespace that links the nodes.
    pub(super) fn switch(&self) -> String {
        self.own("switch")
    }

    /// Its nodes; none if it was not begun.
    pub(super) fn nodes(&self) -> Vec<Node<'_>> {
        let count = fs::read_to_string(self.plan()).ok().and_then(|text| text.trim().parse().ok());
        (1..=count.unwrap_or(0)).map(|number| Node { lab: self, number }).collect()
    }

    /// Says how many nodes it has. Written before anything is made, so that whatever was made is known to be its own.
    pub(super) fn plan(&self) -> PathBuf {
        self.folder().join("nodes")
    }

    /// True if it was begun.
    pub(super) fn is_begun(&self) -> bool {
        self.plan().exists()
    }

    /// Is there when the cluster was once ready.
    pub(super) fn ready_file(&self) -> PathBuf {
        self.folder().join("ready")
    }

    /// True if the cluster was once ready.
    pub(super) fn is_ready(&self) -> bool {
        self.ready_file().exists()
    }

    /// What `kubectl` keeps of answers.
    pub(super) fn kubectl_cache(&self) -> PathBuf {
        self.folder().join("kubectl")
    }

    /// The network namespace of the first node.
    pub(crate) fn first_network(&self) -> PathBuf {
        Path::new("/run/netns").join(self.own(1))
    }

    /// The control group of the first node's pods.
    pub(crate) fn first_cgroup(&self) -> String {
        self.own(1)
    }

    /// A command in the network of the first node.
    pub(crate) fn in_network(&self, program: &Path) -> Command {
        Node { lab: self, number: 1 }.in_network(program)
    }

    /// `kubectl` as administrator.
    pub(crate) fn kubectl<const N: usize>(&self, args: [&str; N]) -> Command {
        let mut command = self.in_network(&self.binaries().join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command.arg("--cache-dir").arg(self.kubectl_cache()).args(args);
        command
    }
}

fn default_cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    Ok(caches.context("HOME is not set: say by --cache where compiled programs are kept")?.join("mesh-lab"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str, base: &str) -> String {
        let lab = Lab::new(name, Path::new(base), Some(Path::new("/var/cache/lab")));
        lab.map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn names_and_folders_are_checked() {
        assert_eq!(problem("lab-2", "/var/tmp/labs"), "");
        for name in ["", "-a", "A", "a/b", "..", "a-name-that-is-far-too-long"] {
            assert!(problem(name, "/var/tmp/labs").contains("cannot name a lab"), "{name}");
        }
        assert!(problem("a", "/var/lib/labs").contains("nodes have a /run, /var/lib, /var/log of their own"));
        assert!(problem("a", &format!("/{}", "long/".repeat(20))).contains("too long"));
        assert!(problem("a", "/var/tmp/my labs").contains("quoted"));
    }

    #[test]
    fn no_two_labs_share_a_name() {
        let lab = |name| Lab::new(name, Path::new("/a"), Some(Path::new("/b"))).expect("a lab");
        assert_ne!(lab("x").own("1"), lab("x-1").own("1"));
        assert_ne!(lab("x").switch(), lab("x").own("1"));
    }
}
