//! The results as text for a terminal.

use std::fmt::Write as _;

use crate::bench::cells::Unit;
use crate::bench::results::{Measured, Results};

/// All tables.
pub(super) fn text(results: &Results) -> String {
    let mut text = format!("\n{}; {}\n", results.machine, results.versions.join(", "));
    for measured in &results.cells {
        cell(&mut text, measured);
    }
    if !results.paced.is_empty() {
        paced(&mut text, results);
    }
    memory(&mut text, results);
    text
}

fn paced(text: &mut String, results: &Results) {
    let _ =
        writeln!(text, "\nLatency at {} requests a second, HTTP/1.1, 1 KiB, 32 connections", results.rate);
    let _ = writeln!(
        text,
        "{:<10}{:>10}{:>10}{:>10}{:>20}",
        "", "p50 us", "p99 us", "p99.9 us", "client late p99 us"
    );
    for series in &results.paced {
        let [p50, p99, p999] = [0, 1, 2].map(|which| number(series.latency(which), 0));
        let late = number(series.late(), 0);
        let _ = writeln!(text, "{:<10}{p50:>10}{p99:>10}{p999:>10}{late:>20}", series.arrangement);
    }
}

fn memory(text: &mut String, results: &Results) {
    let _ = writeln!(text, "\nResident memory, MB: client's side + server's side");
    let _ = writeln!(text, "{:<10}{:>16}{:>22}{:>22}", "", "idle", "100 connections", "1000 connections");
    for memory in &results.memory {
        let held: Vec<String> = memory
            .held
            .iter()
            .map(|(_, bytes)| {
                bytes
                    .iter()
                    .map(|bytes| format!("{:.1}", *bytes as f64 / 1e6))
                    .collect::<Vec<_>>()
                    .join(" + ")
            })
            .collect();
        let column = |index: usize| held.get(index).map_or("-", String::as_str);
        let _ =
            writeln!(text, "{:<10}{:>16}{:>22}{:>22}", memory.arrangement, column(0), column(1), column(2));
    }
}

fn cell(text: &mut String, measured: &Measured) {
    let unit = measured.cell.unit;
    let (time, digits) = if unit == Unit::Gigabyte { ("s", 2) } else { ("us", 1) };
    let _ = writeln!(text, "\n{}", measured.cell.title);
    let _ = writeln!(
        text,
        "{:<10}{:>40}{:>20}",
        "",
        format!("CPU {time}/{}: client + server = both", unit.name()),
        format!("{}s/s", unit.name())
    );
    for series in &measured.series {
        let cost = match series.cost(unit) {
            None => "-".to_owned(),
            both if series.cost_of(1, unit).is_none() => number(both, digits),
            both => {
                let [client, server] = [0, 1].map(|side| number(series.cost_of(side, unit), digits));
                format!("{client} + {server} = {:>6}", number(both, digits))
            }
        };
        let rate = number(series.rate(), if unit == Unit::Gigabyte { 2 } else { 0 });
        let _ = writeln!(text, "{:<10}{cost:>40}{rate:>20}", series.arrangement);
    }
}

/// A number, or a dash for none.
pub(super) fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn each_arrangement_has_its_line() {
        let text = text(&results());
        assert!(text.contains("20.0 + 21.0 =   41.0                2000"), "{text}");
        assert!(text.contains("12.0 + 12.0"), "{text}");
        assert!(text.contains("mesh             100       200       300"), "{text}");
    }
}
