//! `cargo xtask bench`: what a request costs through two sidecars, ours and Envoy's, measured in one run.
//!
//! Both pairs do the same work: HTTP/1.1 in, mutual TLS 1.3 between the proxies with the SPIFFE ID checked on both
//! sides, authorisation of each request by caller, method and path, HTTP/1.1 out. Each proxy has one worker.

mod envoy;
mod load;
mod ours;
mod process;
mod report;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use self::load::{Load, Upstream};
use self::process::Process;
use self::report::{Report, Run, Series};
use crate::{demo, workspace};

/// The bar: CPU per request of our pair over that of Envoy's.
const MAX_RATIO: f64 = 0.5;
/// The bar: memory of each of our proxies when idle, in bytes.
const MAX_IDLE_RSS: u64 = 14_000_000;
/// Connections that the load keeps busy.
const CONNECTIONS: usize = 32;

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Three short rounds instead of five long ones; at most two minutes after the build.
    #[arg(long)]
    quick: bool,
    /// Fail if Envoy cannot be had, instead of reporting without it.
    #[arg(long)]
    require_envoy: bool,
}

/// How long to measure.
struct Plan {
    name: &'static str,
    rounds: usize,
    run: Duration,
    idle: Duration,
}

const QUICK: Plan =
    Plan { name: "quick", rounds: 3, run: Duration::from_secs(4), idle: Duration::from_secs(5) };
const FULL: Plan =
    Plan { name: "full", rounds: 5, run: Duration::from_secs(10), idle: Duration::from_secs(30) };

/// Two proxies, one behind the other, and where to send requests to them.
struct Pair {
    name: &'static str,
    entry: SocketAddr,
    host: &'static str,
    proxies: [Process; 2],
}

/// Measures, prints, writes the report, and fails if the bar is missed.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(Path::new("/proc/self/stat").exists(), "the bench reads CPU time from /proc: run it on Linux");
    let plan = if args.quick { QUICK } else { FULL };
    let target = workspace::target_directory()?;
    let folder = target.join("bench");
    // Of an earlier run: its certificates, data and logs.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    workspace::status(&mut workspace::cargo(["build", "--profile", "dist", "--locked", "-p", "mesh-proxy"]))?;
    workspace::status(workspace::cargo(["build", "--release", "--locked"]).args(demo::PACKAGES))?;
    let envoy = match envoy::find() {
        Ok(program) => Some(program),
        Err(error) if args.require_envoy => return Err(error),
        Err(error) => {
            println!("without Envoy: {error:#}");
            None
        }
    };

    let upstream = Upstream::start()?;
    let (_controller, ours) = ours::start(&target, &folder, upstream.address())?;
    let mut pairs = vec![ours];
    if let Some(program) = envoy {
        pairs.push(envoy::start(&program, &folder, upstream.address())?);
    }
    let report = measure(&plan, &pairs, upstream.address())?;
    report.print();
    let file = folder.join(format!("{}.json", plan.name));
    std::fs::write(&file, report.to_json()).with_context(|| format!("cannot write {}", file.display()))?;
    println!("written to {}", file.display());
    hold_bars(&report)
}

/// Fails when we are slower or larger than we say.
fn hold_bars(report: &Report) -> Result<()> {
    let ours = report.series.iter().filter(|series| series.name == ours::NAME);
    if let Some(rss) = ours.flat_map(|series| &series.idle_rss).find(|rss| **rss > MAX_IDLE_RSS) {
        bail!("an idle proxy takes {rss} bytes, more than {MAX_IDLE_RSS}");
    }
    match report.ratio() {
        Some(ratio) if ratio > MAX_RATIO => {
            bail!("CPU per request is {ratio:.2} of Envoy's, more than {MAX_RATIO}")
        }
        _ => Ok(()),
    }
}

/// All series: straight to the upstream, then each pair, round by round.
fn measure(plan: &Plan, pairs: &[Pair], upstream: SocketAddr) -> Result<Report> {
    for pair in pairs {
        check_policy(pair)?;
    }
    println!(
        "idle for {} s, then {} rounds of {} s each",
        plan.idle.as_secs(),
        plan.rounds,
        plan.run.as_secs()
    );
    std::thread::sleep(plan.idle);
    let mut direct = Series::new("direct");
    let mut series = Vec::new();
    for pair in pairs {
        let mut of_pair = Series::new(pair.name);
        of_pair.idle_rss = pair.proxies.iter().map(Process::resident).collect::<Result<_>>()?;
        series.push(of_pair);
        load::run(pair.entry, pair.host, CONNECTIONS, Duration::from_secs(1))?;
    }
    for _ in 0..plan.rounds {
        let load = load::run(upstream, "upstream", CONNECTIONS, plan.run)?;
        direct.runs.push(Run { load: checked("direct", load)?, cpu: None });
        for (pair, series) in pairs.iter().zip(&mut series) {
            let before = cpu_of(pair)?;
            let load = load::run(pair.entry, pair.host, CONNECTIONS, plan.run)?;
            let cpu = cpu_of(pair)?.saturating_sub(before);
            series.runs.push(Run { load: checked(pair.name, load)?, cpu: Some(cpu) });
        }
    }
    series.insert(0, direct);
    Ok(Report { plan: plan.name, connections: CONNECTIONS, series })
}

/// Passes on a load in which every request was answered as it should be.
fn checked(name: &str, load: Load) -> Result<Load> {
    ensure!(load.failed == 0, "{name}: {} of {} requests failed", load.failed, load.failed + load.requests());
    ensure!(load.requests() > 0, "{name}: no request was answered");
    Ok(load)
}

/// CPU time that both proxies used since they started.
fn cpu_of(pair: &Pair) -> Result<Duration> {
    pair.proxies.iter().map(Process::cpu).sum()
}

/// Makes sure that the pair authorises: what is allowed passes, what is not does not.
fn check_policy(pair: &Pair) -> Result<()> {
    for (method, expected) in [("GET", 200), ("POST", 403)] {
        let status = load::status(pair.entry, pair.host, method)?;
        ensure!(status == expected, "{}: {method} got {status} instead of {expected}", pair.name);
    }
    Ok(())
}
