//! The order of measuring: memory while nothing has happened yet, then round by round each cell of each arrangement,
//! then latency at a rate that all of them can bear.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::arrange::{Arrangement, Protocol};
use super::cells::{self, Cell, MAIN, Traffic};
use super::client::Client;
use super::plan::Plan;
use super::probe;
use super::results::{Measured, Memory, Sample, Series, find};
use crate::workspace;

/// Share of the slowest pair's rate at which latency is measured.
const SHARE: f64 = 0.3;
/// Connections at which memory is measured.
const CONNECTIONS: [usize; 2] = [100, 1000];

/// What measuring needs.
pub(crate) struct Bench<'a> {
    pub(crate) plan: &'a Plan,
    /// The program of the clients.
    pub(crate) load: &'a Path,
    /// Ours first.
    pub(crate) arrangements: &'a [Arrangement],
}

impl Bench<'_> {
    /// Makes sure that who says so authorises: what is allowed passes, what is not does not.
    pub(crate) fn check_policy(&self) -> Result<()> {
        for arrangement in self.arrangements.iter().filter(|arrangement| arrangement.authorises) {
            for protocol in [Protocol::Http1, Protocol::Http1OverHttp2] {
                let Some(way) = arrangement.way(protocol) else { continue };
                for (method, expected) in [("GET", 200), ("POST", 403)] {
                    let status = probe::status(way.entry, way.host, method, "/bytes/64")?;
                    let name = arrangement.name;
                    ensure!(status == expected, "{name}: {method} got {status} instead of {expected}");
                }
            }
            if let Some(way) = arrangement.way(Protocol::Grpc) {
                let mut call = Command::new(self.load);
                call.args(["refused", "--to", &way.entry.to_string(), "--host", way.host]);
                workspace::output(&mut call).with_context(|| format!("through {}", arrangement.name))?;
            }
        }
        Ok(())
    }

    /// Memory of each pair: idle, then with busy connections.
    pub(crate) fn memory(&self) -> Result<Vec<Memory>> {
        println!("idle for {} s", self.plan.idle);
        std::thread::sleep(Duration::from_secs_f64(self.plan.idle));
        let pairs = self.arrangements.iter().filter(|arrangement| arrangement.is_pair(Protocol::Http1));
        pairs.map(|pair| self.memory_of(pair)).collect()
    }

    fn memory_of(&self, pair: &Arrangement) -> Result<Memory> {
        let way = pair.way(Protocol::Http1).context("a pair without HTTP/1.1")?;
        let mut held = vec![(0, pair.resident(way)?)];
        for connections in CONNECTIONS {
            let traffic = cells::memory(connections);
            let mut client = Client::start(self.load, way, &traffic, self.plan.memory)
                .with_context(|| format!("{} with {connections} connections", pair.name))?;
            let seen = client.run()?;
            let name = pair.name;
            ensure!(seen.failed == 0, "{name}: {} requests failed on {connections} connections", seen.failed);
            held.push((connections, pair.resident(way)?));
        }
        Ok(Memory { arrangement: pair.name, held })
    }

    /// All cells, round by round.
    pub(crate) fn rounds(&self, cells: &[Cell]) -> Result<Vec<Measured>> {
        let mut measured: Vec<Measured> =
            cells.iter().map(|cell| Measured { cell: cell.clone(), series: self.series_of(cell) }).collect();
        for round in 0..self.plan.rounds {
            println!("round {} of {}", round + 1, self.plan.rounds);
            for Measured { cell, series } in &mut measured {
                let Some(seconds) = self.plan.seconds(cell) else { continue };
                self.one_round(round, series, cell.protocol, &cell.traffic, seconds)
                    .with_context(|| format!("while measuring {}", cell.name))?;
            }
        }
        Ok(measured)
    }

    /// Who is measured in a cell: every pair; the others only where there is a bar.
    fn series_of(&self, cell: &Cell) -> Vec<Series> {
        let wanted = |arrangement: &&Arrangement| {
            arrangement.is_pair(cell.protocol)
                || (arrangement.way(cell.protocol).is_some() && cell.envoy_bar.is_some())
        };
        self.arrangements.iter().filter(wanted).map(|arrangement| Series::new(arrangement.name)).collect()
    }

    /// Latency of every arrangement at one rate, and the rate.
    pub(crate) fn paced(&self, measured: &[Measured]) -> Result<(f64, Vec<Series>)> {
        let main = measured.iter().find(|measured| measured.cell.name == MAIN);
        let Some(main) = main else { return Ok((0.0, Vec::new())) };
        let pairs = self.arrangements.iter().filter(|arrangement| arrangement.is_pair(Protocol::Http1));
        let rates = pairs.filter_map(|pair| find(&main.series, pair.name)?.rate());
        let slowest = rates.min_by(f64::total_cmp).context("no pair has a rate")?;
        let rate = (slowest * SHARE).round();
        println!("latency at {rate} requests a second");
        let traffic = cells::paced(rate);
        let mut series = self.series_of(&main.cell);
        for round in 0..self.plan.rounds {
            self.one_round(round, &mut series, Protocol::Http1, &traffic, self.plan.paced)
                .context("while measuring latency")?;
        }
        Ok((rate, series))
    }

    /// Adds a sample to each series; each round begins with another one.
    fn one_round(
        &self,
        round: usize,
        series: &mut [Series],
        protocol: Protocol,
        traffic: &Traffic,
        seconds: f64,
    ) -> Result<()> {
        let first = round % series.len().max(1);
        series.rotate_left(first);
        for series in series.iter_mut() {
            let arrangement =
                self.arrangements.iter().find(|arrangement| arrangement.name == series.arrangement);
            let arrangement = arrangement.context("a series of nobody")?;
            let sample = self
                .sample(arrangement, protocol, traffic, seconds)
                .with_context(|| format!("through {}", arrangement.name))?;
            series.samples.push(sample);
        }
        series.rotate_right(first);
        Ok(())
    }

    /// One run, in which everything went well.
    fn sample(
        &self,
        arrangement: &Arrangement,
        protocol: Protocol,
        traffic: &Traffic,
        seconds: f64,
    ) -> Result<Sample> {
        let way = arrangement.way(protocol).context("there is no way")?;
        let mut client = Client::start(self.load, way, traffic, seconds)?;
        let before = arrangement.cpu(way)?;
        let seen = client.run()?;
        let after = arrangement.cpu(way)?;
        let cpu = after.iter().zip(&before).map(|(after, before)| after.saturating_sub(*before)).collect();
        ensure!(seen.failed == 0, "{} of {} failed", seen.failed, seen.count + seen.failed as f64);
        ensure!(seen.count > 0.0, "nothing was answered");
        Ok(Sample { seen, cpu })
    }
}
