//! `cargo xtask bench`: what it costs to carry requests and bytes through two sidecars, ours and others', in one run.
//!
//! All pairs do the same work: plaintext in, mutual TLS 1.3 between the proxies with the SPIFFE ID checked on both
//! sides, authorisation of each request by caller, method and path, plaintext out. Each proxy has one worker. The bare
//! pair only has the TLS: it is the yardstick of what the rest costs. docs/benchmarks.md has the method in full.

pub(crate) mod arrange;
pub(crate) mod cells;
pub(crate) mod client;
mod measure;
pub(crate) mod peers;
mod plan;
mod probe;
pub(crate) mod process;
pub(crate) mod report;
mod results;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use self::arrange::Places;
use self::client::Application;
use self::measure::Bench;
use self::plan::{FULL, QUICK, SMOKE};
use self::results::Results;
use crate::workspace;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what has a bar, in three short rounds: at most two minutes after the build.
    #[arg(long, conflicts_with = "smoke")]
    quick: bool,
    /// See whether the bench works, in less than a minute; its numbers say little and are held against no bar.
    #[arg(long)]
    smoke: bool,
    /// Fail if Envoy, HAProxy or nginx cannot be had, instead of reporting without them.
    #[arg(long)]
    require_peers: bool,
    /// Also write the results into docs: the tables of benchmarks.md, and bench/ beside it.
    #[arg(long)]
    save: bool,
    /// Only cells whose name begins so, for example http1,tcp.
    #[arg(long, value_delimiter = ',', conflicts_with = "save")]
    only: Vec<String>,
    /// Compare only with these, for example bare,envoy.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["save", "require_peers"])]
    against: Vec<String>,
}

/// Measures, prints, writes the report, and fails if a bar is missed.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(
        Path::new("/proc/self/schedstat").exists(),
        "the bench reads CPU time from /proc: run it on Linux"
    );
    let plan = match args {
        Args { smoke: true, .. } => SMOKE,
        Args { quick: true, .. } => QUICK,
        _ => FULL,
    };
    let cells = plan.cells(&args.only);
    ensure!(!cells.is_empty(), "no cell has such a name");
    let target = workspace::target_directory()?;
    build()?;
    let peers = peers::find(&target, args.require_peers)?;
    let places = Places { folder: target.join("bench"), target, profile: "dist", others: "release" };
    // Of an earlier run: its certificates, data and logs.
    let _ = std::fs::remove_dir_all(&places.folder);
    std::fs::create_dir_all(&places.folder)
        .with_context(|| format!("cannot make {}", places.folder.display()))?;

    let load = places.target.join("release").join("load");
    let application = Application::start(&load)?;
    let wanted = |name: &str| args.against.is_empty() || args.against.iter().any(|wanted| wanted == name);
    let arrangements = arrange::start(&places, &application, &peers, wanted)?;
    let bench = Bench { plan: &plan, load: &load, arrangements: &arrangements.all };
    bench.check_policy()?;
    let memory = bench.memory()?;
    let cells = bench.rounds(&cells)?;
    let (rate, paced) = bench.paced(&cells)?;
    let results = Results {
        plan: plan.name,
        rounds: plan.rounds,
        machine: report::machine(),
        versions: peers.versions,
        cells,
        memory,
        rate,
        paced,
    };
    report::write(&results, &places.folder)?;
    if args.save {
        report::save(&results, &workspace::root().join("docs"))?;
    }
    report::conclude(&results, plan.gated)
}

/// Builds what is measured as it is shipped, and the rest as it comes.
fn build() -> Result<()> {
    let measured = ["build", "--profile", "dist", "--locked", "-p", "mesh-proxy", "-p", "bare-pair"];
    workspace::status(&mut workspace::cargo(measured))?;
    let rest = ["build", "--release", "--locked", "-p", "mesh-controller", "-p", "load"];
    workspace::status(&mut workspace::cargo(rest))
}
