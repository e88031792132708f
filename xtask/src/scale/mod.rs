//! `cargo xtask scale`: what thousands of idle connections cost in memory, on each side of the pair.
//!
//! The mesh is that of `cargo xtask bench`. docs/scale.md has the method in full.

mod callers;
mod report;

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::bench::arrange::{Arrangement, Places, Protocol, Way, mesh, socket};
use crate::bench::cells::{Load, Traffic};
use crate::bench::client::{Application, Client};
use crate::workspace;

/// Most connections that a pool may have to the next hop.
const MOST_POOLED: usize = 64;

/// Arguments of `cargo xtask scale`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// See whether it works, with few connections and the release profile; its numbers are held against no bar.
    #[arg(long, conflicts_with = "save")]
    smoke: bool,
    /// Also write the results into docs/scale.md.
    #[arg(long)]
    save: bool,
}

/// How much is measured, and for how long.
struct Plan {
    http: usize,
    opaque: usize,
    /// Before memory counts as idle.
    idle: Duration,
    /// How long connections are held before memory counts.
    held: Duration,
    /// How long after their end it is looked at again.
    closed: Duration,
    /// True if missing a bar is a failure.
    gated: bool,
}

const FULL: Plan = Plan {
    http: 10_000,
    opaque: 8_000,
    idle: Duration::from_secs(10),
    held: Duration::from_secs(30),
    closed: Duration::from_secs(5),
    gated: true,
};

const SMOKE: Plan = Plan {
    http: 400,
    opaque: 200,
    idle: Duration::from_secs(1),
    held: Duration::from_secs(1),
    closed: Duration::from_secs(1),
    gated: false,
};

/// One proxy with its connections.
struct Side {
    /// Which one, and what it carries.
    name: &'static str,
    connections: usize,
    /// Bytes of memory before, with, and after them.
    idle: u64,
    held: u64,
    closed: u64,
    /// Open files and sockets before and with them.
    descriptors: [usize; 2],
}

/// Measures, prints, and fails if a bar is missed.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(Path::new("/proc/self/status").exists(), "memory is read from /proc: run it on Linux");
    let (plan, profile) = if args.smoke { (SMOKE, "release") } else { (FULL, "dist") };
    let target = workspace::target_directory()?;
    build(profile)?;
    let places = Places { folder: target.join("scale"), target, profile, others: "release" };
    let case = Case { plan: &plan, places: &places, load: places.target.join("release").join("load") };
    let mut sides = Vec::new();
    for measure in [Case::outbound_http, Case::inbound_http, Case::opaque] {
        let measured = measure(&case)?;
        measured.iter().for_each(|side| println!("{side}"));
        sides.extend(measured);
    }
    if args.save {
        report::save(&sides)?;
    }
    report::conclude(&sides, plan.gated)
}

/// Builds what is measured as it is shipped, and the rest as it comes.
pub(crate) fn build(profile: &str) -> Result<()> {
    let measured = ["build", "--profile", profile, "--locked", "-p", "mesh-proxy"];
    workspace::status(&mut workspace::cargo(measured))?;
    let rest = ["build", "--release", "--locked", "-p", "mesh-controller", "-p", "load", "-p", "bare-pair"];
    workspace::status(&mut workspace::cargo(rest))
}

/// Makes an empty folder for what a run writes.
pub(crate) fn empty(folder: &Path) -> Result<()> {
    // Of an earlier run: its certificates, data and logs.
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// What each case needs; each has a mesh of its own.
struct Case<'a> {
    plan: &'a Plan,
    places: &'a Places,
    /// The program of both ends.
    load: PathBuf,
}

impl Case<'_> {
    /// Many callers of the client's proxy, few connections behind it.
    fn outbound_http(&self) -> Result<Vec<Side>> {
        let (application, _controller, pair) = self.start()?;
        let way = pair.way(Protocol::Http1).context("the pair carries no HTTP/1.1")?;
        let hold = || Ok(vec![self.hold(way, false, self.plan.http)?]);
        let [outbound, _] = self.measure(&pair, way, self.plan.http, hold)?;
        drop(application);
        let outbound = Side { name: "HTTP/1.1, outbound (plaintext)", ..outbound };
        outbound.check_pool()?;
        Ok(vec![outbound])
    }

    /// Many peers of the server's proxy, which need TLS; few connections behind it.
    fn inbound_http(&self) -> Result<Vec<Side>> {
        let (application, _controller, pair) = self.start()?;
        let peer = socket(mesh::SERVER, 8080)?;
        let callers = callers::start(self.places, peer)?;
        let way = pair.way(Protocol::Http1).context("the pair carries no HTTP/1.1")?;
        let hold = || {
            let each = self.plan.http / callers.len();
            let start = |(_, entry): &_| {
                self.hold(&Way::new(Protocol::Http1, *entry, "server:8080", &[]), false, each)
            };
            callers.iter().map(start).collect()
        };
        let [_, inbound] = self.measure(&pair, way, self.plan.http, hold)?;
        drop(application);
        let inbound = Side { name: "HTTP/1.1, inbound (mutual TLS)", ..inbound };
        inbound.check_pool()?;
        Ok(vec![inbound])
    }

    /// Opaque connections through both: each has one of its own behind each proxy.
    fn opaque(&self) -> Result<Vec<Side>> {
        let (application, _controller, pair) = self.start()?;
        let way = pair.way(Protocol::Tcp).context("the pair carries no bytes")?;
        let hold = || Ok(vec![self.hold(way, true, self.plan.opaque)?]);
        let [outbound, inbound] = self.measure(&pair, way, self.plan.opaque, hold)?;
        drop(application);
        Ok(vec![
            Side { name: "opaque, outbound (plaintext to TLS)", ..outbound },
            Side { name: "opaque, inbound (TLS to plaintext)", ..inbound },
        ])
    }

    fn start(&self) -> Result<(Application, crate::bench::process::Process, Arrangement)> {
        empty(&self.places.folder)?;
        let application = Application::start(&self.load)?;
        let (controller, pair) = mesh::start(self.places, &application)?;
        Ok((application, controller, pair))
    }

    /// Opens connections, each with one request.
    fn hold(&self, way: &Way, opaque: bool, connections: usize) -> Result<Client> {
        let traffic = Traffic { load: Load::Hold { opaque }, connections };
        Client::start(&self.load, way, &traffic, 0.0)
    }

    /// Memory of both proxies on the way: idle, with the clients that `hold` starts, and after these. That the connections
    /// stood all the time is seen from a last request on each.
    fn measure(
        &self,
        pair: &Arrangement,
        way: &Way,
        connections: usize,
        hold: impl Fn() -> Result<Vec<Client>>,
    ) -> Result<[Side; 2]> {
        sleep(self.plan.idle);
        let (idle, before) = (pair.resident(way)?, pair.descriptors(way)?);
        let mut clients = hold()?;
        println!("{connections} connections are held for {:?}", self.plan.held);
        sleep(self.plan.held);
        let (held, with) = (pair.resident(way)?, pair.descriptors(way)?);
        for client in &mut clients {
            let seen = client.run()?;
            ensure!(seen.failed == 0, "{} of {connections} connections did not last", seen.failed);
        }
        drop(clients);
        sleep(self.plan.closed);
        let closed = pair.resident(way)?;
        let side = |index: usize| -> Result<Side> {
            let of = |bytes: &[u64]| bytes.get(index).copied().context("a way without two proxies");
            let files = |counts: &[usize]| counts.get(index).copied().context("a way without two proxies");
            Ok(Side {
                name: "",
                connections,
                idle: of(&idle)?,
                held: of(&held)?,
                closed: of(&closed)?,
                descriptors: [files(&before)?, files(&with)?],
            })
        };
        Ok([side(0)?, side(1)?])
    }
}

impl Side {
    /// Makes sure that what is measured are the callers' connections, and that no large pool stands behind them.
    fn check_pool(&self) -> Result<()> {
        let [before, with] = self.descriptors;
        let behind = (with.saturating_sub(before)).checked_sub(self.connections);
        let behind = behind.with_context(|| format!("{}: not all connections stand", self.name))?;
        ensure!(behind <= MOST_POOLED, "{}: {behind} connections in the pool", self.name);
        Ok(())
    }
}
