//! One network namespace for every workload of a transparent demo, on a bridge, with interception by `mesh-proxy init`.
//!
//! Nothing of it has a name in the file system: a namespace is there as long as meshctl holds its file or a process
//! runs in it, so that nothing is left, whatever ends the demo.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    process::{Command, Stdio, id},
};

use anyhow::{Context as _, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::layout::{MEMBERS, Member, Net, STATS};

/// Mark of what sidecars send: in a user namespace all processes have one user.
pub(crate) const MARK: &str = "0x6d65";

/// The namespaces.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// That of meshctl and the controller.
    outer: File,
    members: Vec<(&'static str, File)>,
}

impl Namespaces {
    /// Makes and links all of them, and leads what their applications send and get through their sidecars.
    ///
    /// # Errors
    /// Says what was refused.
    pub(crate) fn new(net: &Net, proxy: &Path) -> anyhow::Result<Self> {
        let mut all = Self { outer: current()?, members: Vec::new() };
        let bridge = format!(
            "link set lo up\nlink add name mesh0 type bridge\naddr add {}/24 dev mesh0\nlink set mesh0 up\n",
            net.controller_ip()
        );
        ip(&bridge)?;
        for member in MEMBERS {
            let file = all.make().with_context(|| format!("a network namespace for {}", member.name))?;
            all.members.push((member.name, file));
            all.link(net, member)?;
            all.intercept(member, proxy)?;
        }
        Ok(all)
    }

    /// Path of the namespace of a workload, for `nsenter --net`.
    pub(crate) fn path(&self, name: &str) -> Option<String> {
        self.find(name).map(path)
    }

    fn find(&self, name: &str) -> Option<&File> {
        self.members.iter().find(|(member, _)| *member == name).map(|(_, file)| file)
    }

    /// Runs something in the namespace of a workload: what it starts is born there. In meshctl's own when there is no
    /// such workload.
    ///
    /// # Errors
    /// When this thread cannot go there, or back.
    pub(crate) fn within<T>(&self, name: &str, act: impl FnOnce() -> T) -> anyhow::Result<T> {
        let Some(file) = self.find(name) else { return Ok(act()) };
        go(file)?;
        let done = act();
        go(&self.outer)?;
        Ok(done)
    }

    fn make(&self) -> anyhow::Result<File> {
        #[expect(
            deprecated,
            reason = "unsafe only with the flag for file descriptors; this one moves nothing but this thread's network"
        )]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)?;
        let made = current();
        go(&self.outer)?;
        made
    }

    fn link(&self, net: &Net, member: Member) -> anyhow::Result<()> {
        let name = member.name;
        let (address, end) = (net.ip(member), format!("mesh{}", net.host(member)));
        let place = self.path(name).context("it was made just now")?;
        ip(&format!(
            "link add name {end} type veth peer name eth0 netns {place}\nlink set {end} master mesh0\nlink set {end} up\n"
        ))?;
        let inner = format!(
            "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {}\n",
            net.controller_ip()
        );
        self.within(name, || ip(&inner))?
    }

    fn intercept(&self, member: Member, proxy: &Path) -> anyhow::Result<()> {
        let mut init = Command::new(proxy);
        // The demo reads the applications' own counts, which are not part of the shop.
        init.args(["init", "--proxy-mark", MARK, "--skip-inbound-port", &STATS.to_string()]);
        init.stdin(Stdio::null());
        let outcome = self.within(member.name, || init.output())?.context("cannot start mesh-proxy init")?;
        if !outcome.status.success() {
            bail!("interception for {}: {}", member.name, String::from_utf8_lossy(&outcome.stderr).trim());
        }
        Ok(())
    }
}

/// The network namespace of this thread.
fn current() -> anyhow::Result<File> {
    File::open("/proc/thread-self/ns/net").context("cannot open this thread's network namespace")
}

fn go(to: &File) -> anyhow::Result<()> {
    move_into_link_name_space(to.as_fd(), Some(LinkNameSpaceType::Network))
        .context("cannot change the network namespace")
}

fn path(file: &File) -> String {
    format!("/proc/{}/fd/{}", id(), file.as_raw_fd())
}

/// Runs a batch of `ip`, in this thread's namespace.
fn ip(batch: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip`: install the package iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes()).context("cannot write to `ip`")?;
    }
    let outcome = child.wait_with_output()?;
    if !outcome.status.success() {
        bail!("ip: {} in:\n{batch}", String::from_utf8_lossy(&outcome.stderr).trim());
    }
    Ok(())
}
