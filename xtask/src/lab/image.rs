//! The image of the lab: busybox, which waits for ever when it is not told what to do. Pods' sandboxes are of it too.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::node::Node;
use super::quietly;
use crate::image::archive::{self, Entry};
use crate::workspace;

/// Its name.
pub(super) const BUSYBOX: &str = "lab.local/busybox:1";
/// The same image as kubelet and containerd know it, so that nobody cleans it up.
pub(super) const PAUSE: &str = "lab.local/pause:1";

/// Imports the images of a file into a node.
pub(super) fn import(node: &Node<'_>, file: &Path) -> Result<()> {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(node.containerd());
    quietly(ctr.args(["--namespace", "k8s.io", "images", "import"]).arg(file))
        .with_context(|| format!("cannot import {} into {}", file.display(), node.name()))
}

/// Writes the image into the file, in Docker's format. `folder` is for what it takes on the way.
pub(super) fn make(folder: &Path, file: &Path) -> Result<()> {
    let root = folder.join("root");
    let bin = root.join("bin");
    for path in [&bin, &root.join("tmp"), &root.join("etc")] {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    let busybox = workspace::find("busybox").context("no busybox: install the package busybox-static")?;
    fs::copy(&busybox, bin.join("busybox")).with_context(|| format!("cannot copy {}", busybox.display()))?;
    for applet in workspace::output(Command::new(&busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            symlink("busybox", bin.join(applet)).with_context(|| format!("cannot link {applet}"))?;
        }
    }
    pack(folder, &[BUSYBOX, PAUSE], file)
}

/// Writes the folder `root` in `folder` as an image of these names into the file. Its containers wait for ever unless told
/// what to do.
pub(super) fn pack(folder: &Path, names: &[&str], file: &Path) -> Result<()> {
    let (root, layer) = (folder.join("root"), folder.join("layer.tar"));
    let own = ["--owner=0", "--group=0", "--sort=name"];
    quietly(Command::new("tar").args(own).arg("-cf").arg(&layer).arg("-C").arg(&root).arg("."))?;
    let layer = fs::read(&layer).with_context(|| format!("cannot read {}", layer.display()))?;
    let config = json!({
        "architecture": architecture()?,
        "os": "linux",
        "config": {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", archive::sha256(&layer))]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]);
    let (manifest, config) = (archive::pretty(&manifest)?, archive::pretty(&config)?);
    let parts = [("manifest.json", &manifest), ("config.json", &config), ("layer.tar", &layer)];
    let parts = parts.map(|(path, bytes)| Entry { path, mode: 0o644, bytes });
    archive::replace(file, &archive::tar(&parts)?)
}

/// What images call the architecture of this machine.
fn architecture() -> Result<&'static str> {
    Ok(match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("the lab knows no name for {other} in images: only for x86_64 and aarch64"),
    })
}
