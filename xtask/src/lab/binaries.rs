//! Kubernetes and CoreDNS, compiled from their Go modules at the versions that `go/` pins, and kept in the cache.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::needs;
use super::place::Lab;
use crate::workspace;

/// A program and what it is compiled from.
struct Program {
    name: &'static str,
    source: [(&'static str, &'static str); 3],
    /// The module whose version it tells when it is asked for its own.
    module: &'static str,
    /// The names by which it is called.
    links: &'static [&'static str],
}

const PROGRAMS: [Program; 2] = [
    Program {
        name: "kube",
        source: [
            ("main.go", include_str!("go/kube/main.go")),
            ("go.mod", include_str!("go/kube/go.mod")),
            ("go.sum", include_str!("go/kube/go.sum")),
        ],
        module: "k8s.io/kubernetes",
        links: &[
            "kube-apiserver",
            "kube-controller-manager",
            "kube-proxy",
            "kube-scheduler",
            "kubectl",
            "kubelet",
        ],
    },
    Program {
        name: "coredns",
        source: [
            ("main.go", include_str!("go/coredns/main.go")),
            ("go.mod", include_str!("go/coredns/go.mod")),
            ("go.sum", include_str!("go/coredns/go.sum")),
        ],
        module: "github.com/coredns/coredns",
        links: &[],
    },
];

/// True if the cache has all programs, compiled from these sources.
pub(super) fn are_built(lab: &Lab) -> Result<bool> {
    for program in &PROGRAMS {
        if !program.is_built(lab)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Compiles what the cache does not have.
pub(super) fn build(lab: &Lab) -> Result<()> {
    if are_built(lab)? {
        return Ok(());
    }
    needs::check_go()?;
    let folder = lab.binaries();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Labs share the cache.
    let lock = lab.cache().join("lock");
    let file = File::create(&lock).with_context(|| format!("cannot write {}", lock.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", lock.display()))?;
    for program in &PROGRAMS {
        if !program.is_built(lab)? {
            program.build(lab)?;
        }
    }
    Ok(())
}

impl Program {
    fn folder(&self, lab: &Lab) -> PathBuf {
        lab.cache().join("src").join(self.name)
    }

    /// The sources beside it are written before it is compiled, and it is removed before they are.
    fn is_built(&self, lab: &Lab) -> Result<bool> {
        for (name, text) in self.source {
            if read(&self.folder(lab).join(name))?.as_deref() != Some(text) {
                return Ok(false);
            }
        }
        Ok(std::iter::once(&self.name).chain(self.links).all(|name| lab.binaries().join(name).is_file()))
    }

    fn build(&self, lab: &Lab) -> Result<()> {
        let version = self.version().with_context(|| format!("no version of {} is pinned", self.module))?;
        println!("compiling {} {version} into {}", self.module, lab.binaries().display());
        let (folder, program) = (self.folder(lab), lab.binaries().join(self.name));
        remove(&program)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, text) in self.source {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        // Whole or not at all, whatever ends us.
        let part = lab.binaries().join(format!("{}.part", self.name));
        remove(&part)?;
        let mut go = Command::new("go");
        go.args(["build", "-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags"]);
        go.arg(format!("-s -w {}", self.stamp(version))).arg("-o").arg(&part).arg(".");
        go.current_dir(&folder).env("CGO_ENABLED", "0").env("GOFLAGS", "").env("GOWORK", "off");
        workspace::status(&mut go)
            .context("Go must be able to reach a module proxy (see `go env GOPROXY`)")?;
        fs::rename(&part, &program).with_context(|| format!("cannot move {} there", part.display()))?;
        for name in self.links {
            let link = lab.binaries().join(name);
            remove(&link)?;
            symlink(self.name, &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
        Ok(())
    }

    /// The version of its module in go.mod.
    fn version(&self) -> Option<&'static str> {
        let (_, modules) = self.source.iter().find(|(name, _)| *name == "go.mod")?;
        modules.lines().find_map(|line| {
            let line = line.trim().trim_start_matches("require ");
            line.strip_prefix(self.module)?.strip_prefix(' ')?.split(' ').next()
        })
    }

    /// Linker flags that let Kubernetes know its own version, which clients ask for.
    fn stamp(&self, version: &str) -> String {
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        let values = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)];
        let packages = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
        let flags = packages
            .iter()
            .flat_map(|package| values.map(|(name, value)| format!("-X {package}.{name}={value}")));
        flags.collect::<Vec<_>>().join(" ")
    }
}

/// The text of a file, if there is one.
fn read(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_pinned() {
        let [kube, coredns] = &PROGRAMS;
        let version = kube.version().expect("a version");
        assert!(version.starts_with("v1."), "{version}");
        let minor = version.split('.').nth(1).expect("a minor version");
        assert!(kube.stamp(version).contains(&format!("version.gitMinor={minor}")));
        assert!(coredns.version().expect("a version").starts_with("v1."));
    }

    #[test]
    fn nothing_is_built_in_an_empty_cache() {
        let folder = tempfile::tempdir().expect("a folder");
        let lab = Lab::new("a", folder.path(), Some(folder.path())).expect("a lab");
        assert!(!are_built(&lab).expect("an answer"));
    }
}
