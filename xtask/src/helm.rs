//! `cargo xtask helm`: Helm itself, at one version, for the test that `meshctl` renders the chart as it does.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::workspace;

/// The module of Helm, and the version that is used.
const MODULE: &str = "helm.sh/helm/v3";
const VERSION: &str = "v3.19.2";

/// Builds it, and says where it is.
pub(crate) fn run() -> Result<()> {
    println!("{}", build()?.display());
    Ok(())
}

/// Where it is, or will be.
pub(crate) fn place() -> Result<PathBuf> {
    Ok(workspace::target_directory()?.join("helm/helm"))
}

/// Builds it, once for each version.
pub(crate) fn build() -> Result<PathBuf> {
    let folder = workspace::target_directory()?.join("helm");
    let definition = format!("module helm.local\n\ngo 1.24\n\nrequire {MODULE} {VERSION}\n");
    let (tool, built) = (place()?, folder.join("version"));
    if tool.is_file() && fs::read_to_string(&built).is_ok_and(|version| version == VERSION) {
        return Ok(tool);
    }
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("go.mod"), definition)?;
    let mut go = Command::new("go");
    go.args([
        "build",
        "-mod=mod",
        "-trimpath",
        "-ldflags=-s -w",
        "-o",
        "helm",
        &format!("{MODULE}/cmd/helm"),
    ]);
    workspace::status(go.current_dir(&folder))
        .context("Helm is a Go program: install Go, and let it reach a module proxy")?;
    fs::write(built, VERSION)?;
    Ok(tool)
}
