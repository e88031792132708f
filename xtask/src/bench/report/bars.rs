//! The bars: how our pair must stand beside Envoy's and beside the bare one.

use std::fmt;

use crate::bench::results::{Results, find};

/// CPU of our pair over that of the bare one, in each cell that has a bar.
const BARE: f64 = 1.2;
/// p99 at the fixed rate, over Envoy's.
const LATENCY: f64 = 0.5;
/// Memory when idle, over Envoy's.
const MEMORY: f64 = 0.22;

/// One of them.
pub(super) struct Bar {
    /// What is compared, in a word or two.
    what: String,
    /// Whom it is compared with.
    with: &'static str,
    /// Ours over theirs; None: not measured.
    pub(super) ratio: Option<f64>,
    limit: f64,
}

impl Bar {
    /// True if it was measured and is too much.
    pub(super) fn missed(&self) -> bool {
        self.ratio.is_some_and(|ratio| ratio > self.limit)
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, with, ratio, limit } = self;
        let what = format!("{what}, mesh / {with}:");
        match ratio {
            Some(ratio) => {
                let verdict = if self.missed() { "MISSED" } else { "holds" };
                write!(f, "{what:<44}{ratio:>6.3}  at most {limit:<5} {verdict}")
            }
            None => write!(f, "{what:<44}     -  at most {limit:<5} not measured"),
        }
    }
}

/// All bars.
pub(super) fn all(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    for measured in &results.cells {
        let Some(limit) = measured.cell.envoy_bar else { continue };
        for (with, limit) in [("envoy", limit), ("bare", BARE)] {
            let ratio = ratio(measured.cost("mesh"), measured.cost(with));
            bars.push(Bar { what: format!("CPU {}", measured.cell.name), with, ratio, limit });
        }
    }
    let p99 = |name| find(&results.paced, name)?.latency(1);
    let latency = ratio(p99("mesh"), p99("envoy"));
    bars.push(Bar { what: "p99".to_owned(), with: "envoy", ratio: latency, limit: LATENCY });
    let idle = |name| {
        let memory = results.memory.iter().find(|memory| memory.arrangement == name)?;
        memory.both(0).map(|bytes| bytes as f64)
    };
    let memory = ratio(idle("mesh"), idle("envoy"));
    bars.push(Bar { what: "idle memory".to_owned(), with: "envoy", ratio: memory, limit: MEMORY });
    bars
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    Some(ours? / theirs?).filter(|ratio| ratio.is_finite())
}

/// All of them in one line.
pub(super) fn verdict(bars: &[Bar]) -> String {
    let with = |name| {
        let ratios: Vec<String> = bars
            .iter()
            .filter(|bar| bar.with == name)
            .filter_map(|bar| {
                let mark = if bar.missed() { "!" } else { "" };
                Some(format!("{} {:.2}{mark}", bar.what.trim_start_matches("CPU "), bar.ratio?))
            })
            .collect();
        if ratios.is_empty() { "not measured".to_owned() } else { ratios.join(", ") }
    };
    let missed = bars.iter().filter(|bar| bar.missed()).count();
    let verdict = match missed {
        0 => "all bars hold".to_owned(),
        missed => format!("{missed} of {} bars missed", bars.len()),
    };
    format!("{verdict}; mesh / envoy: {}; mesh / bare: {}", with("envoy"), with("bare"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn bars_are_held_against_medians() {
        let bars = all(&results());
        let ratios: Vec<String> = bars.iter().map(|bar| format!("{:.3}", bar.ratio.unwrap_or(0.0))).collect();
        assert_eq!(ratios, ["0.227", "1.171", "1.000", "0.188"]);
        let missed: Vec<bool> = bars.iter().map(Bar::missed).collect();
        assert_eq!(missed, [false, false, true, false]);
        assert_eq!(
            verdict(&bars),
            "1 of 4 bars missed; mesh / envoy: http1 0.23, p99 1.00!, idle memory 0.19; mesh / bare: http1 1.17"
        );
    }

    #[test]
    fn what_was_not_measured_is_not_missed() {
        let mut results = results();
        results.cells[0].series.retain(|series| series.arrangement != "envoy");
        let bars = all(&results);
        assert!(bars[0].ratio.is_none() && !bars[0].missed());
        assert!(bars[0].to_string().ends_with("not measured"), "{}", bars[0]);
    }
}
