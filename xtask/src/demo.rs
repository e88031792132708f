//! `cargo xtask demo`: builds what the demo starts, then becomes `meshctl demo`.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::workspace;

/// The packages whose binaries make a mesh with something to show. Always built together, so that the features of
/// shared dependencies are the same and nothing is built twice.
pub(crate) const PACKAGES: [&str; 8] =
    ["-p", "mesh-proxy", "-p", "mesh-controller", "-p", "mesh-cli", "-p", "shop"];

/// Arguments of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Given to `meshctl demo` as they are, for example --once.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// Builds, then replaces this process by meshctl, so that Ctrl-C and the exit code are the demo's own.
pub(crate) fn run(args: &Args) -> Result<()> {
    workspace::status(workspace::cargo(["build", "--release", "--locked"]).args(PACKAGES))?;
    let meshctl = workspace::target_directory()?.join("release").join("meshctl");
    let error = Command::new(&meshctl).arg("demo").args(&args.args).exec();
    Err(error).with_context(|| format!("cannot start {}", meshctl.display()))
}
