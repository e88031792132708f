//! The results as the tables of docs/benchmarks.md.

use std::fmt::Write as _;

use super::table::number;
use crate::bench::cells::Unit;
use crate::bench::results::{Measured, Results, find};

/// Columns, in their order.
const ARRANGEMENTS: [&str; 6] = ["mesh", "bare", "envoy", "haproxy", "nginx", "direct"];

/// All tables.
pub(super) fn tables(results: &Results) -> String {
    let mut text = format!(
        "{}; {}. Medians of {} runs.\n\n",
        results.machine,
        results.versions.join(", "),
        results.rounds
    );
    text += "CPU of both proxies together: µs per request, message or connection; s per GB of TCP bulk.\n\n";
    heading(&mut text, "cell", &["mesh", "bare", "envoy", "haproxy", "mesh / bare", "mesh / envoy"]);
    for measured in &results.cells {
        costs(&mut text, measured);
    }
    text += "\nRates with one thread for each proxy and one for each end: requests, messages, connections or GB a second.\n\n";
    heading(&mut text, "cell", &ARRANGEMENTS);
    for measured in &results.cells {
        let digits = if measured.cell.unit == Unit::Gigabyte { 2 } else { 0 };
        let cells = ARRANGEMENTS
            .map(|name| number(find(&measured.series, name).and_then(|series| series.rate()), digits));
        row(&mut text, measured.cell.title, &cells);
    }
    let _ = write!(
        text,
        "\nLatency in µs at {} HTTP/1.1 requests a second, from when each was due.\n\n",
        results.rate
    );
    heading(&mut text, "percentile", &ARRANGEMENTS);
    for (which, name) in [(0, "p50"), (1, "p99"), (2, "p99.9")] {
        let cells = ARRANGEMENTS.map(|arrangement| {
            number(find(&results.paced, arrangement).and_then(|series| series.latency(which)), 0)
        });
        row(&mut text, name, &cells);
    }
    text += "\nResident memory in MB, client's side + server's side, with so many busy connections.\n\n";
    memory(&mut text, results);
    text
}

fn costs(text: &mut String, measured: &Measured) {
    let digits = if measured.cell.unit == Unit::Gigabyte { 2 } else { 1 };
    let over = |name| Some(measured.cost("mesh")? / measured.cost(name)?);
    let mut cells: Vec<String> = ["mesh", "bare", "envoy", "haproxy"]
        .into_iter()
        .map(|name| number(measured.cost(name), digits))
        .collect();
    cells.extend([number(over("bare"), 2), number(over("envoy"), 2)]);
    row(text, measured.cell.title, &cells);
}

fn memory(text: &mut String, results: &Results) {
    let names: Vec<&str> = results.memory.iter().map(|memory| memory.arrangement).collect();
    heading(text, "connections", &names);
    let counts = results.memory.first().map_or(&[][..], |memory| &memory.held);
    for (index, (connections, _)) in counts.iter().enumerate() {
        let cells: Vec<String> = results
            .memory
            .iter()
            .map(|memory| {
                let bytes = memory.held.get(index).map_or(&[][..], |(_, bytes)| bytes);
                let sides = bytes.iter().map(|bytes| format!("{:.1}", *bytes as f64 / 1e6));
                sides.collect::<Vec<_>>().join(" + ")
            })
            .collect();
        let name = if *connections == 0 { "none yet".to_owned() } else { connections.to_string() };
        row(text, &name, &cells);
    }
}

fn heading(text: &mut String, first: &str, rest: &[&str]) {
    let _ = writeln!(text, "| {first} | {} |", rest.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(rest.len()));
}

fn row(text: &mut String, first: &str, cells: &[String]) {
    let _ = writeln!(text, "| {first} | {} |", cells.join(" | "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn tables_have_all_results() {
        let text = tables(&results());
        assert!(
            text.contains("| HTTP/1.1, 1 KiB, 32 connections | 41.0 | 35.0 | 181.0 | - | 1.17 | 0.23 |"),
            "{text}"
        );
        assert!(text.contains("| p99 | 200 | 200 | 200 | - | - | - |"), "{text}");
        assert!(text.contains("| none yet | 12.0 + 12.0 | 64.0 + 64.0 |"), "{text}");
    }
}
