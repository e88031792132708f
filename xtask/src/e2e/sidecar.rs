//! What a sidecar takes, against what is asked for it by default.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::cluster::Cluster;
use super::within::Inside;

/// Requests a second that one sidecar carries.
const RATE: u32 = 300;
/// Connections of the application to it.
const CONNECTIONS: u32 = 200;
/// How long it is watched, in seconds.
const WATCH: f64 = 15.0;
/// How long the load is there before and after.
const MARGIN: Duration = Duration::from_secs(5);
/// Thousandths of a processor that it may take, on a machine that is idle otherwise: there each request wakes it twice, and
/// costs thrice what it does under load. What is asked for it by default, 20, is what it gets when others want all.
const CPU: f64 = 60.0;
/// Longest time of 99 in 100 requests, in milliseconds.
const LATE: f64 = 100.0;
/// Memory that is asked for it, in MB (24 MiB).
const MEMORY: f64 = 25.17;

/// The default requests suffice the sidecar of a busy caller: it takes no more, and nothing holds it back.
pub(super) fn frugal(cluster: &Cluster<'_>) -> Result<()> {
    let Some(lab) = cluster.lab else {
        println!("what a sidecar takes is read on the node: only in a lab");
        return Ok(());
    };
    let args = [
        "load".to_owned(),
        "--target=storefront:80".to_owned(),
        format!("--rate={RATE}"),
        format!("--callers={CONNECTIONS}"),
        format!("--concurrency={CONNECTIONS}"),
        format!("--duration={}", WATCH + 2.0 * MARGIN.as_secs_f64()),
    ];
    let load = cluster.start("busy", "load", &args)?;
    load.running()?;
    let pod = load.pod()?;
    thread::sleep(MARGIN);
    let sidecar = Inside::find(lab, "mesh-proxy", &format!("MESH_WORKLOAD=shop/{pod}"))?;
    let (begun, before) = (Instant::now(), sidecar.cpu()?);
    thread::sleep(Duration::from_secs_f64(WATCH));
    let cpu = (sidecar.cpu()? - before) / begun.elapsed().as_secs_f64() * 1e3;
    let (memory, held_back) = (sidecar.memory()?, sidecar.throttled()?);
    let (code, summary) = load.finish()?;
    println!(
        "a sidecar with {RATE} requests a second over {CONNECTIONS} connections: {cpu:.1} m CPU, {memory:.1} MB, held back \
         {held_back} times"
    );
    ensure!(code == 0, "requests failed: {summary}");
    ensure!(cpu <= CPU, "a sidecar takes {cpu:.1} m CPU, and may take {CPU} m");
    let late = summary["latency_micros"]["p99"].as_f64().unwrap_or(f64::MAX) / 1e3;
    ensure!(late <= LATE, "99 of 100 requests took up to {late:.0} ms, and may take {LATE}");
    ensure!(memory <= MEMORY, "a sidecar takes {memory:.1} MB, and {MEMORY} MB are asked for it");
    ensure!(held_back == 0, "a sidecar was held back {held_back} times");
    Ok(())
}

impl Inside {
    /// Seconds of CPU that its process has taken.
    fn cpu(&self) -> Result<f64> {
        let stat = self.read("stat")?;
        // The name, in brackets, may have blanks; the times are the 14th and 15th word, in ticks.
        let words = stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace();
        let ticks: Vec<f64> = words.skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
        ensure!(ticks.len() == 2, "no times in {stat}");
        Ok((ticks[0] + ticks[1]) / rustix::param::clock_ticks_per_second() as f64)
    }

    /// How often its container had to wait for its share of the processor.
    fn throttled(&self) -> Result<u64> {
        let groups = self.read("cgroup")?;
        let parts = groups.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
        for [_, controllers, path] in parts.map(|parts: [&str; 3]| parts) {
            if !controllers.is_empty() && !controllers.split(',').any(|name| name == "cpu") {
                continue;
            }
            if let Ok(stat) = std::fs::read_to_string(format!("/sys/fs/cgroup/{controllers}{path}/cpu.stat"))
            {
                let count = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
                return Ok(count.context("no nr_throttled")?.trim().parse()?);
            }
        }
        bail!("no cpu.stat for the groups\n{groups}")
    }
}
