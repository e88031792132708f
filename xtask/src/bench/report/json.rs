//! The results as JSON.

use serde_json::{Value, json};

use super::bars;
use crate::bench::cells::Unit;
use crate::bench::results::{Measured, Results, Series};

/// The document.
pub(super) fn text(results: &Results) -> String {
    let memory: Vec<Value> = results
        .memory
        .iter()
        .map(|memory| {
            let held = memory
                .held
                .iter()
                .map(|(connections, bytes)| json!({"connections": connections, "resident_bytes": bytes}));
            json!({"name": memory.arrangement, "held": held.collect::<Vec<_>>()})
        })
        .collect();
    let bars: Vec<Value> = bars::all(results)
        .iter()
        .map(|bar| json!({"bar": bar.to_string(), "ratio": bar.ratio, "missed": bar.missed()}))
        .collect();
    let report = json!({
        "plan": results.plan,
        "rounds": results.rounds,
        "machine": results.machine,
        "versions": results.versions,
        "cells": results.cells.iter().map(cell).collect::<Vec<_>>(),
        "memory": memory,
        "fixed_rate": {
            "requests_per_second": results.rate,
            "arrangements": results.paced.iter().map(paced).collect::<Vec<_>>(),
        },
        "bars": bars,
    });
    format!("{report:#}\n")
}

fn cell(measured: &Measured) -> Value {
    let unit = measured.cell.unit;
    let cost = if unit == Unit::Gigabyte { "cpu_s_per_gb" } else { "cpu_us_per_unit" };
    let series = measured.series.iter().map(|series| {
        json!({
            "name": series.arrangement,
            cost: {
                "both": series.cost(unit),
                "client": series.cost_of(0, unit),
                "server": series.cost_of(1, unit),
                "range": series.cost_range(unit).filter(|_| series.cost(unit).is_some()),
            },
            "units_per_second": series.rate(),
            "busy_p50_us": series.latency(0),
            "busy_p99_us": series.latency(1),
        })
    });
    json!({
        "name": measured.cell.name,
        "title": measured.cell.title,
        "unit": unit.name(),
        "arrangements": series.collect::<Vec<_>>(),
    })
}

fn paced(series: &Series) -> Value {
    json!({
        "name": series.arrangement,
        "p50_us": series.latency(0),
        "p99_us": series.latency(1),
        "p999_us": series.latency(2),
        "client_late_p99_us": series.late(),
        "cpu_us_per_request": series.cost(Unit::Request),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn medians_and_bars_are_there() {
        let value: Value = serde_json::from_str(&text(&results())).expect("it is JSON");
        assert_eq!(value["cells"][0]["arrangements"][0]["cpu_us_per_unit"]["both"], 41.0);
        assert_eq!(value["fixed_rate"]["arrangements"][2]["p99_us"], 200.0);
        assert_eq!(value["memory"][0]["held"][1]["resident_bytes"][0], 12_000_100);
        assert_eq!(value["bars"][2]["missed"], true);
    }
}
