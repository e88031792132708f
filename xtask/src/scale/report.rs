//! What is told of the results: on the terminal and in docs/scale.md.

use std::fmt::{self, Write as _};

use anyhow::{Result, bail};

use super::Side;
use crate::bench::report::machine;
use crate::{page, workspace};

/// Most bytes of memory of a proxy that holds its connections.
const BAR: u64 = 150_000_000;

impl Side {
    fn missed(&self) -> bool {
        self.held > BAR
    }

    /// Bytes that each connection adds.
    fn each(&self) -> u64 {
        self.held.saturating_sub(self.idle) / (self.connections as u64).max(1)
    }

    fn verdict(&self) -> &'static str {
        if self.missed() { "MISSED" } else { "holds" }
    }
}

/// Bytes as MB, a million each.
fn mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} connections, {} descriptors; {} MB idle, {} MB held ({} bytes each), {} MB after; at most {} MB: {}",
            self.name,
            self.connections,
            self.descriptors[1],
            mb(self.idle),
            mb(self.held),
            self.each(),
            mb(self.closed),
            mb(BAR),
            self.verdict()
        )
    }
}

/// Writes the table into docs/scale.md.
pub(super) fn save(sides: &[Side]) -> Result<()> {
    page::save(&workspace::root().join("docs").join("scale.md"), "scale", &table(sides))
}

fn table(sides: &[Side]) -> String {
    let mut text = format!("{}.\n\n", machine());
    text += "| proxy | connections | descriptors | idle, MB | held, MB | bytes a connection | after, MB | at most 150 MB |\n";
    text += "|---|---:|---:|---:|---:|---:|---:|---|\n";
    for side in sides {
        let (idle, held, closed) = (mb(side.idle), mb(side.held), mb(side.closed));
        let (name, connections, descriptors) = (side.name, side.connections, side.descriptors[1]);
        let (each, verdict) = (side.each(), side.verdict());
        let _ = writeln!(
            text,
            "| {name} | {connections} | {descriptors} | {idle} | {held} | {each} | {closed} | {verdict} |"
        );
    }
    text
}

/// Says in one line whether the bars hold; an error if one is missed and that counts.
pub(super) fn conclude(sides: &[Side], gated: bool) -> Result<()> {
    let missed: Vec<&str> = sides.iter().filter(|side| side.missed()).map(|side| side.name).collect();
    if missed.is_empty() {
        println!("all bars hold");
    } else if gated {
        bail!("more than {} MB: {}", mb(BAR), missed.join("; "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(held: u64) -> Side {
        Side {
            name: "some",
            connections: 10_000,
            idle: 10_000_000,
            held,
            closed: 20_000_000,
            descriptors: [20, 10_050],
        }
    }

    #[test]
    fn memory_is_held_against_the_bar() {
        let (good, bad) = (side(110_000_000), side(150_000_001));
        assert!(!good.missed() && bad.missed());
        let line = "| some | 10000 | 10050 | 10.0 | 110.0 | 10000 | 20.0 | holds |";
        assert!(table(&[good]).contains(line));
        assert!(conclude(&[side(150_000_001)], true).is_err() && conclude(&[bad], false).is_ok());
    }

    #[test]
    fn a_pool_is_small_and_no_connection_is_missing() {
        assert!(side(1).check_pool().is_ok());
        assert!(Side { descriptors: [20, 10_085], ..side(1) }.check_pool().is_err());
        assert!(Side { descriptors: [20, 10_019], ..side(1) }.check_pool().is_err());
    }
}
