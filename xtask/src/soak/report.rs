//! What is told of a soak: on the terminal and in docs/scale.md.

use std::fmt::Write as _;

use anyhow::{Result, bail, ensure};

use super::Soaked;
use crate::bench::report::machine;
use crate::{page, workspace};

/// Writes the tables into docs/scale.md.
pub(super) fn save(soaked: &Soaked) -> Result<()> {
    page::save(&workspace::root().join("docs").join("scale.md"), "soak", &table(soaked))
}

/// Both tables.
pub(super) fn table(soaked: &Soaked) -> String {
    let minutes = soaked.took.as_secs_f64() / 60.0;
    let mut text = format!("{}. {minutes:.1} minutes, {} changes.\n\n", machine(), soaked.changes);
    text += "| traffic | exchanges | failed | p50, ms | p99, ms |\n|---|---:|---:|---:|---:|\n";
    for carried in &soaked.carried {
        let [p50, p99, _] = carried.seen.latencies.unwrap_or_default().map(|micros| micros / 1000.0);
        let (name, count, failed) = (carried.name, carried.seen.count, carried.seen.failed);
        let _ = writeln!(text, "| {name} | {count} | {failed} | {p50:.2} | {p99:.2} |");
    }
    text += "\n| process | first third, MB | last third, MB | peak, MB | |\n|---|---:|---:|---:|---|\n";
    for series in &soaked.processes {
        let Some(growth) = series.growth() else { continue };
        let verdict = if growth.is_too_much() { "GROWS" } else { "does not grow" };
        let [first, last, peak] = [growth.first, growth.last, growth.peak].map(|bytes| bytes as f64 / 1e6);
        let _ = writeln!(text, "| {} | {first:.1} | {last:.1} | {peak:.1} | {verdict} |", series.name);
    }
    text
}

/// Says in one line how it went; an error if something failed, or grew and that counts.
pub(super) fn conclude(soaked: &Soaked, gated: bool) -> Result<()> {
    let failed: u64 = soaked.carried.iter().map(|carried| carried.seen.failed).sum();
    let carried: f64 = soaked.carried.iter().map(|carried| carried.seen.count).sum();
    ensure!(failed == 0, "{failed} exchanges failed, {carried} went well");
    let quiet = soaked.carried.iter().find(|carried| carried.seen.count == 0.0);
    ensure!(quiet.is_none(), "nothing of a kind of traffic was carried");
    let grow = |series: &&super::Series| series.growth().is_some_and(|growth| growth.is_too_much());
    let grown: Vec<&str> = soaked.processes.iter().filter(grow).map(|series| series.name).collect();
    if gated && !grown.is_empty() {
        bail!("no exchange of {carried} failed, but these grow: {}", grown.join(", "));
    }
    println!("no exchange of {carried} failed under {} changes; growing: {}", soaked.changes, grown.len());
    Ok(())
}
