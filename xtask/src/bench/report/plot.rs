//! The results as a plot: one small chart of bars for each thing that was measured.

use std::fmt::Write as _;

use crate::bench::cells::Unit;
use crate::bench::results::{Measured, Memory, Results, Series};

/// Charts beside each other.
const COLUMNS: usize = 3;
/// Of one chart, in pixels.
const WIDTH: usize = 380;
const HEAD: usize = 46;
const BAR: usize = 20;
const FOOT: usize = 16;
/// Room for names left of the bars, and for numbers right of them.
const NAMES: usize = 64;
const NUMBERS: usize = 70;
/// Above all charts.
const TITLE: usize = 64;

/// One chart.
struct Chart {
    title: String,
    unit: String,
    digits: usize,
    /// Names and lengths.
    bars: Vec<(&'static str, f64)>,
}

/// The plot.
pub(super) fn svg(results: &Results) -> String {
    let charts = charts(results);
    let (width, full) = (COLUMNS * WIDTH, TITLE + charts.chunks(COLUMNS).map(height).sum::<usize>());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{full}\" \
         viewBox=\"0 0 {width} {full}\" font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <rect width=\"{width}\" height=\"{full}\" fill=\"#fff\"/>\n"
    );
    text(
        &mut svg,
        12,
        28,
        "font-size=\"18\" font-weight=\"bold\"",
        "Two sidecars with mutual TLS: what it costs",
    );
    let about = format!(
        "{}; {}; medians of {} runs; less is better",
        results.machine,
        results.versions.join(", "),
        results.rounds
    );
    text(&mut svg, 12, 48, "fill=\"#666\"", &about);
    let mut top = TITLE;
    for row in charts.chunks(COLUMNS) {
        for (column, chart) in row.iter().enumerate() {
            draw(&mut svg, chart, column * WIDTH, top);
        }
        top += height(row);
    }
    svg += "</svg>\n";
    svg
}

/// Of charts beside each other: the one with the most bars needs it.
fn height(row: &[Chart]) -> usize {
    HEAD + row.iter().map(|chart| chart.bars.len()).max().unwrap_or(0) * BAR + FOOT
}

fn charts(results: &Results) -> Vec<Chart> {
    let mut charts: Vec<Chart> = results.cells.iter().map(costs).collect();
    for (which, name) in [(0, "p50"), (1, "p99"), (2, "p99.9")] {
        charts.push(Chart {
            title: format!("Latency {name}, HTTP/1.1, 1 KiB"),
            unit: format!("µs at {} requests a second", results.rate),
            digits: 0,
            bars: values(&results.paced, |series| series.latency(which)),
        });
    }
    for connections in results.memory.first().map_or(&[][..], |memory| &memory.held).iter().map(|held| held.0)
    {
        let when =
            if connections == 0 { "idle".to_owned() } else { format!("{connections} busy connections") };
        let megabytes = |memory: &Memory| Some((memory.arrangement, memory.both(connections)? as f64 / 1e6));
        charts.push(Chart {
            title: format!("Resident memory, {when}"),
            unit: "MB, both proxies".to_owned(),
            digits: 1,
            bars: results.memory.iter().filter_map(megabytes).collect(),
        });
    }
    charts.retain(|chart| !chart.bars.is_empty());
    charts
}

fn costs(measured: &Measured) -> Chart {
    let unit = measured.cell.unit;
    let (time, digits) = if unit == Unit::Gigabyte { ("s", 2) } else { ("µs", 1) };
    Chart {
        title: measured.cell.title.to_owned(),
        unit: format!("CPU {time} per {}, both proxies", unit.name()),
        digits,
        bars: values(&measured.series, |series| series.cost(unit)),
    }
}

fn values(series: &[Series], of: impl Fn(&Series) -> Option<f64>) -> Vec<(&'static str, f64)> {
    series.iter().filter_map(|series| Some((series.arrangement, of(series)?))).collect()
}

fn draw(svg: &mut String, chart: &Chart, left: usize, top: usize) {
    text(svg, left + 12, top + 18, "font-weight=\"bold\"", &chart.title);
    text(svg, left + 12, top + 34, "font-size=\"11\" fill=\"#666\"", &chart.unit);
    let longest = chart.bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
    let room = (WIDTH - NAMES - NUMBERS) as f64;
    for (index, (name, value)) in chart.bars.iter().enumerate() {
        let y = top + HEAD + index * BAR;
        let length = (room * value / longest).max(1.0);
        text(svg, left + 12, y + 12, "", name);
        let _ = writeln!(
            svg,
            "<rect x=\"{}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" rx=\"2\" fill=\"{}\"/>",
            left + NAMES,
            y,
            BAR - 5,
            colour(name)
        );
        let x = left + NAMES + length as usize + 6;
        text(svg, x, y + 12, "", &format!("{value:.*}", chart.digits));
    }
}

fn text(svg: &mut String, x: usize, y: usize, style: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {style}>{words}</text>");
}

/// Ours stands out; the yardstick and the ways without proxies are grey.
fn colour(arrangement: &str) -> &'static str {
    match arrangement {
        "mesh" => "#1667c2",
        "envoy" => "#c9569c",
        "haproxy" => "#5b9b5b",
        "nginx" => "#b8b8b8",
        _ => "#8a8a8a",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let svg = svg(&results());
        // 181 us of Envoy's pair take all the room, and 41 us of ours their share of it.
        assert!(svg.contains("width=\"246.0\" height=\"15\" rx=\"2\" fill=\"#c9569c\""), "{svg}");
        assert!(svg.contains("width=\"55.7\" height=\"15\" rx=\"2\" fill=\"#1667c2\""), "{svg}");
        assert!(svg.contains(">41.0</text>") && svg.contains(">Resident memory, idle</text>"), "{svg}");
    }

    #[test]
    fn words_are_escaped() {
        let mut svg = String::new();
        text(&mut svg, 1, 2, "", "a < b & c");
        assert_eq!(svg, "<text x=\"1\" y=\"2\" >a &lt; b &amp; c</text>\n");
    }
}
