//! `cargo xtask e2e`: the whole mesh on a real cluster, from install to uninstall, as its users have it. docs/lab.md says
//! where it runs.

mod changes;
mod cluster;
mod ingress;
mod install;
mod left;
mod objects;
mod pods;
mod scale;
mod shop;
mod sidecar;
pub(crate) mod sniff;
mod within;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use self::cluster::Cluster;
use crate::lab::{self, place::Lab};
use crate::stages::Stages;
use crate::{image, workspace};

/// One after the other, each on what the one before has left.
const PARTS: [Part; 15] = [
    ("e2e: what is there", left::remember),
    ("e2e: install", install::install),
    ("e2e: shop", shop::deploy),
    ("e2e: encryption", shop::encryption),
    ("e2e: split", shop::split),
    ("e2e: policy", shop::policy),
    ("e2e: bad objects", objects::refused),
    ("e2e: odd pods", pods::check),
    ("e2e: ingress", ingress::check),
    ("e2e: a sidecar's share", sidecar::frugal),
    ("e2e: rollouts", changes::rollouts),
    ("e2e: scale and kill", changes::scale_and_kill),
    ("e2e: upgrade", install::upgrade),
    ("e2e: no controller", changes::no_controller),
    ("e2e: uninstall", install::uninstall),
];

type Part = (&'static str, fn(&Cluster<'_>) -> Result<()>);

/// Arguments of `cargo xtask e2e`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Use the cluster of this kubeconfig, which must be able to get the images, and not a lab of our own.
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Leave the lab as it is at the end, to look into.
    #[arg(long)]
    keep: bool,
    /// Begin with the stage of this name, on the lab that `--keep` or a failure left.
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["cluster", "scale"])]
    from: Option<String>,
    /// Do not build the images again.
    #[arg(long)]
    no_build: bool,
    /// Only install, fill the cluster with a thousand Services, and see what the controller takes (a lab only).
    #[arg(long, conflicts_with = "cluster")]
    scale: bool,
    /// For the test itself: watch this network namespace until standard input ends.
    #[arg(long, hide = true)]
    sniff: bool,
}

/// Runs all of it and says how long each part took.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.sniff {
        return sniff::watch();
    }
    let mut stages = Stages::default();
    let done = begin(args, &mut stages);
    stages.print();
    done
}

/// All of it on a lab, as a part of `cargo xtask test --with-lab`.
pub(crate) fn all(stages: &mut Stages) -> Result<()> {
    let args = Args { cluster: None, keep: false, from: None, no_build: false, scale: false, sniff: false };
    begin(&args, stages)
}

fn begin(args: &Args, stages: &mut Stages) -> Result<()> {
    stages.run("e2e: binaries", || {
        workspace::status(&mut workspace::cargo(["build", "--workspace", "--bins", "--locked"]))
    })?;
    if !args.no_build {
        stages.run("e2e: images", || image::archives(&[]))?;
    }
    match &args.cluster {
        Some(kubeconfig) => parts(&Cluster::named(kubeconfig)?, None, stages),
        None => in_lab(args, stages),
    }
}

/// On a cluster of our own. When something fails, it is left as it is.
fn in_lab(args: &Args, stages: &mut Stages) -> Result<()> {
    let lab = Lab::from_environment("e2e")?;
    if args.from.is_none() {
        stages.run("e2e: lab: up", || {
            lab::end(&lab)?;
            lab::start(&lab, 1)?;
            lab::load(&lab, &image::made(&[])?)
        })?;
    }
    let cluster = Cluster::lab(&lab)?;
    let done =
        if args.scale { large(&cluster, stages) } else { parts(&cluster, args.from.as_deref(), stages) };
    if done.is_err() || args.keep {
        println!(
            "{lab} is left: `{}` looks into it, `{}` ends it",
            lab.command("shell"),
            lab.command("down")
        );
        return done;
    }
    stages.run("e2e: lab: down", || lab::end(&lab))
}

fn large(cluster: &Cluster<'_>, stages: &mut Stages) -> Result<()> {
    stages.run("e2e: install", || install::install(cluster))?;
    stages.run("e2e: a large cluster", || scale::run(cluster))
}

fn parts(cluster: &Cluster<'_>, from: Option<&str>, stages: &mut Stages) -> Result<()> {
    let first = match from {
        None => 0,
        Some(name) => {
            PARTS.iter().position(|(part, _)| part.trim_start_matches("e2e: ") == name).with_context(
                || format!("no stage `{name}`: there are {}", PARTS.map(|(name, _)| name).join(", ")),
            )?
        }
    };
    PARTS[first..].iter().try_for_each(|(name, part)| stages.run(name, || part(cluster)))
}
