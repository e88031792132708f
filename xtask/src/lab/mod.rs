//! `cargo xtask lab`: a real Kubernetes of one or two nodes on this machine, with no container engine and no download of
//! images. docs/lab.md says what it is made of.

mod binaries;
mod cgroups;
pub(crate) mod check;
mod cluster;
mod cni;
mod controller;
mod down;
mod image;
mod lock;
mod namespaces;
mod needs;
mod network;
mod node;
mod pki;
pub(crate) mod place;
mod process;
mod remains;
mod status;
mod template;
mod up;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use self::place::Lab;
use crate::workspace;

/// Arguments of `cargo xtask lab`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of the lab: labs of different names can run beside each other.
    #[arg(long, global = true, default_value = place::DEFAULT_NAME)]
    name: String,
    /// Folder for the state of labs; each has a folder of its name in it.
    #[arg(long, global = true, env = place::STATE, default_value = place::DEFAULT_STATE)]
    state: PathBuf,
    /// Folder for compiled programs [default: mesh-lab in $XDG_CACHE_HOME or ~/.cache].
    #[arg(long, global = true, env = place::CACHE)]
    cache: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Compile Kubernetes and CoreDNS into the cache, unless they are there (nine minutes on two cores; needs Go).
    Build,
    /// Start a cluster and wait until it is ready.
    Up(up::Options),
    /// Stop the cluster and remove all that it made.
    Down,
    /// Say what runs; fails unless all of the cluster does.
    Status,
    /// See that labs work and leave nothing: a stage of `cargo xtask test --with-lab`.
    Test,
    /// Import images (docker-archive or OCI layout, as tar) into all nodes.
    Load {
        /// Their files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Run a command, or a shell, in the network of the first node, with kubectl and KUBECONFIG.
    Shell {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// Does one of the lab's commands.
pub(crate) fn run(args: &Args) -> Result<()> {
    let lab = Lab::new(&args.name, &args.state, args.cache.as_deref())?;
    match &args.what {
        What::Build => {
            needs::check(&needs::to_build(&lab)?)?;
            binaries::build(&lab)
        }
        What::Up(options) => up::run(&lab, options),
        What::Down => down::run(&lab),
        What::Status => status::run(&lab),
        What::Test => check::run_alone(),
        What::Load { files } => load(&lab, files),
        What::Shell { command } => shell(&lab, command),
    }
}

/// Starts a lab of so many nodes.
pub(crate) fn start(lab: &Lab, nodes: u8) -> Result<()> {
    up::run(lab, &up::Options { nodes, install: false })
}

/// Packs the folder `root` in `folder` as an image of these names.
pub(crate) fn pack(folder: &Path, names: &[&str], file: &Path) -> Result<()> {
    image::pack(folder, names, file)
}

/// Ends a lab, if it is up.
pub(crate) fn end(lab: &Lab) -> Result<()> {
    down::run(lab)
}

/// Imports image files into all nodes.
pub(crate) fn load(lab: &Lab, files: &[PathBuf]) -> Result<()> {
    require_up(lab)?;
    for file in files {
        ensure!(file.is_file(), "{} is not a file", file.display());
    }
    for node in lab.nodes() {
        for file in files {
            image::import(&node, file)?;
            println!("{}: {}", node.name(), file.display());
        }
    }
    Ok(())
}

/// Becomes the command, in the network of the first node.
fn shell(lab: &Lab, command: &[OsString]) -> Result<()> {
    require_up(lab)?;
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let (program, args) = match command {
        [] => (&shell, command),
        [program, args @ ..] => (program, args),
    };
    let Some(node) = lab.nodes().into_iter().next() else { bail!("{lab} has no node") };
    let mut inside = node.in_network(Path::new(program));
    inside.args(args).env("PATH", path(lab)?);
    inside.env("KUBECONFIG", lab.kubeconfig()).env("KUBECACHEDIR", lab.kubectl_cache());
    let error = inside.exec();
    Err(error).context("cannot start nsenter: install the package util-linux")
}

/// PATH with our kubectl before others.
fn path(lab: &Lab) -> Result<OsString> {
    let others = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(lab.binaries()).chain(std::env::split_paths(&others));
    std::env::join_paths(folders).context("the folder of the cache cannot stand in PATH: it has a colon")
}

fn require_up(lab: &Lab) -> Result<()> {
    needs::check_root()?;
    ensure!(lab.is_ready(), "{lab} is not up: `{}` starts it", lab.command("up"));
    Ok(())
}

/// Runs a command that says little, and fails with what it said if it fails.
fn quietly(command: &mut Command) -> Result<()> {
    workspace::output(command).map(drop)
}

/// `kubectl` as administrator; it says little, and fails with what it said if it fails.
fn kubectl<A: AsRef<OsStr>>(lab: &Lab, args: &[A]) -> Result<()> {
    quietly(lab.kubectl([]).args(args))
}
