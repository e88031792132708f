//! What the machine must have: root, Debian packages, and Go for the first build.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{binaries, place::Lab};
use crate::workspace;

/// Where Debian's package has the CNI plugins.
pub(super) const CNI: &str = "/usr/lib/cni";
/// Programs that are run, with their packages. Those without which no Debian boots are left out.
const PROGRAMS: [(&str, &str); 7] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("etcd", "etcd-server"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
];
const PLUGINS: [&str; 4] = ["loopback", "ptp", "host-local", "portmap"];
/// The first Go that fetches by itself the version that a module asks for.
const GO: u32 = 21;

/// Fails unless root runs this.
pub(super) fn check_root() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the lab makes namespaces, mounts and control groups: run it as root (`sudo -E cargo xtask lab ...`)"
    );
    Ok(())
}

/// Packages that are missing for a cluster.
pub(super) fn to_run(lab: &Lab) -> Result<Vec<&'static str>> {
    let mut missing: Vec<&str> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| !workspace::on_path(program))
        .map(|(_, package)| package)
        .collect();
    if !PLUGINS.iter().all(|plugin| Path::new(CNI).join(plugin).is_file()) {
        missing.push("containernetworking-plugins");
    }
    if !workspace::find("busybox").is_some_and(|file| is_static(&file)) {
        missing.push("busybox-static");
    }
    missing.extend(to_build(lab)?);
    missing.dedup();
    Ok(missing)
}

/// Packages that are missing to compile what the cache does not have.
pub(super) fn to_build(lab: &Lab) -> Result<Vec<&'static str>> {
    let needed = !binaries::are_built(lab)? && !workspace::on_path("go");
    Ok(if needed { vec!["golang-go"] } else { Vec::new() })
}

/// Fails if something is missing, and says what would install it.
pub(super) fn check(missing: &[&str]) -> Result<()> {
    ensure!(
        missing.is_empty(),
        "missing: {0}; on Debian, `apt-get install --no-install-recommends {0}` installs it, and so does \
         `cargo xtask lab up --install`{1}",
        missing.join(" "),
        if missing.contains(&"golang-go") {
            format!(
                " (Go has to be 1.{GO} or later: where Debian's is older, take it from https://go.dev/dl)"
            )
        } else {
            String::new()
        },
    );
    Ok(())
}

/// Installs packages.
pub(super) fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(" "));
    let mut apt = Command::new("apt-get");
    workspace::output(apt.args(["update", "-qq"])).context("packages are installed by apt-get")?;
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt.args(["install", "-y", "-qq", "--no-install-recommends"]).args(missing);
    workspace::output(&mut apt).map(drop)
}

/// Fails if this Go is too old to get what is asked for.
pub(super) fn check_go() -> Result<()> {
    let version = workspace::output(Command::new("go").args(["env", "GOVERSION"]))?;
    ensure!(
        minor(&version).is_none_or(|minor| minor >= GO),
        "{} is too old to compile Kubernetes: take Go 1.{GO} or later, from https://go.dev/dl",
        version.trim()
    );
    Ok(())
}

/// 26 of `go1.26.8`; `None` for a version of nobody's release.
fn minor(version: &str) -> Option<u32> {
    version.trim().strip_prefix("go1.")?.split('.').next()?.parse().ok()
}

/// True for a program that needs no library, which would be missing in its image.
fn is_static(file: &Path) -> bool {
    const INTERPRETER: &[u8] = b"/ld-";
    std::fs::read(file)
        .is_ok_and(|bytes| !bytes[..bytes.len().min(4096)].windows(4).any(|part| part == INTERPRETER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_versions_of_go() {
        assert_eq!(minor("go1.26.8\n"), Some(26));
        assert_eq!(minor("go1.19"), Some(19));
        assert_eq!(minor("devel +abc"), None);
    }

    #[test]
    fn says_how_to_install() {
        let problem = |missing: &[&str]| check(missing).expect_err("something is missing").to_string();
        assert!(problem(&["runc", "iptables"]).contains("install --no-install-recommends runc iptables`"));
        assert!(problem(&["golang-go"]).contains("1.21 or later"));
        check(&[]).expect("nothing is missing");
    }

    #[test]
    fn tells_static_programs() {
        assert!(!is_static(Path::new("/proc/self/exe")));
        assert!(!is_static(Path::new("/nowhere")));
    }
}
