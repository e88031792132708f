//! What is told of the results: on the terminal, as JSON, as a plot, and in docs.

mod bars;
mod document;
mod json;
mod plot;
mod table;

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::results::Results;
use crate::page;

/// What it ran on: CPUs and kernel, and nothing that names the machine.
pub(crate) fn machine() -> String {
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown CPU", |(_, model)| model.trim());
    let release = read("/proc/sys/kernel/osrelease");
    let kernel: Vec<&str> = release.trim().split('.').take(2).collect();
    format!("{cpus} CPUs ({model}), Linux {}", kernel.join("."))
}

/// Prints the tables, and writes JSON and plot into `folder`.
pub(crate) fn write(results: &Results, folder: &Path) -> Result<()> {
    println!("{}", table::text(results));
    write_files(results, folder, results.plan)
}

/// Writes JSON and plot into `docs/bench`, and the tables into `docs/benchmarks.md`.
pub(crate) fn save(results: &Results, docs: &Path) -> Result<()> {
    let folder = docs.join("bench");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    write_files(results, &folder, "results")?;
    page::save(&docs.join("benchmarks.md"), "bench", &document::tables(results))
}

fn write_files(results: &Results, folder: &Path, name: &str) -> Result<()> {
    for (ending, text) in [("json", json::text(results)), ("svg", plot::svg(results))] {
        let file = folder.join(format!("{name}.{ending}"));
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        println!("written to {}", file.display());
    }
    Ok(())
}

/// Says in one line whether the bars hold; an error if one is missed and that counts.
pub(crate) fn conclude(results: &Results, gated: bool) -> Result<()> {
    let bars = bars::all(results);
    for bar in &bars {
        println!("{bar}");
    }
    let verdict = bars::verdict(&bars);
    if gated && bars.iter().any(|bar| bar.missed()) {
        bail!(verdict);
    }
    println!("{verdict}");
    Ok(())
}
