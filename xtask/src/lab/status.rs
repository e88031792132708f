//! `lab status`: what runs.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::needs;
use super::place::Lab;
use super::process::Record;
use crate::workspace;

/// Prints the lab's processes and nodes; fails unless all of them are there.
pub(super) fn run(lab: &Lab) -> Result<()> {
    needs::check_root()?;
    ensure!(lab.is_begun(), "{lab} is not up");
    println!("{lab}: {}", lab.folder().display());
    for (name, alive) in processes(lab)? {
        println!("  {name:<32}{}", if alive { "runs" } else { "has ended" });
    }
    let ended = ended(lab)?;
    ensure!(ended.is_empty(), "{lab} has lost {}; see {}", ended.join(", "), lab.logs().display());
    ensure!(lab.is_ready(), "{lab} is not ready: it is just starting, or was left half-way");
    workspace::status(&mut lab.kubectl(["get", "nodes", "-o", "wide"]))
}

/// Names of the processes that were started and do not run any more.
pub(super) fn ended(lab: &Lab) -> Result<Vec<String>> {
    Ok(processes(lab)?.into_iter().filter(|(_, alive)| !alive).map(|(name, _)| name).collect())
}

/// The processes that were started, with true for those that run.
fn processes(lab: &Lab) -> Result<Vec<(String, bool)>> {
    let folder = lab.processes();
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.push((name, Record::read(&path).is_some_and(|record| record.is_alive())));
    }
    found.sort();
    Ok(found)
}
