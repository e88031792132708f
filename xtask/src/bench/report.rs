//! What was measured, as a table and as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::load::Load;

/// One run of the load.
pub(crate) struct Run {
    pub(crate) load: Load,
    /// CPU time that the two proxies used; none if there were none.
    pub(crate) cpu: Option<Duration>,
}

/// All runs of one path.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    /// Bytes that each proxy held before the load: client's side, server's side.
    pub(crate) idle_rss: Vec<u64>,
    pub(crate) runs: Vec<Run>,
}

impl Series {
    /// Without any run yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, idle_rss: Vec::new(), runs: Vec::new() }
    }

    /// Median over the runs of something that is measured in each.
    fn median(&self, of: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.runs.iter().filter_map(of).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// Microseconds of CPU that both proxies together spend on one request.
    fn cpu_per_request(&self) -> Option<f64> {
        self.median(|run| Some(run.cpu?.as_secs_f64() * 1e6 / run.load.requests() as f64))
    }

    fn rate(&self) -> Option<f64> {
        self.median(|run| Some(run.load.requests() as f64 / run.load.took.as_secs_f64()))
    }

    /// Milliseconds.
    fn latency(&self, quantile: f64) -> Option<f64> {
        self.median(|run| Some(run.load.latency(quantile).as_secs_f64() * 1e3))
    }

    fn to_json(&self) -> Value {
        json!({
            "name": self.name,
            "cpu_us_per_request": self.cpu_per_request(),
            "requests_per_second": self.rate(),
            "p50_ms": self.latency(0.5),
            "p99_ms": self.latency(0.99),
            "idle_rss_bytes": self.idle_rss,
            "requests": self.runs.iter().map(|run| run.load.requests()).collect::<Vec<_>>(),
            "cpu_seconds": self.runs.iter().filter_map(|run| Some(run.cpu?.as_secs_f64())).collect::<Vec<_>>(),
        })
    }
}

/// All series of one bench; the first is the way without proxies, then ours, then Envoy's if it ran.
pub(crate) struct Report {
    pub(crate) plan: &'static str,
    pub(crate) connections: usize,
    pub(crate) series: Vec<Series>,
}

impl Report {
    /// CPU per request of our pair over that of Envoy's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let cpu = |name| self.series.iter().find(|series| series.name == name)?.cpu_per_request();
        Some(cpu(super::ours::NAME)? / cpu("envoy")?)
    }

    /// Prints the table of medians.
    pub(crate) fn print(&self) {
        println!(
            "\nHTTP/1.1 through two sidecars, {} connections, 1 KiB responses, medians",
            self.connections
        );
        println!(
            "{:<8}{:>16}{:>10}{:>10}{:>10}{:>26}",
            "path", "CPU us/request", "req/s", "p50 ms", "p99 ms", "idle RSS MB (2 proxies)"
        );
        for series in &self.series {
            let number = |value: Option<f64>, digits| {
                value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
            };
            let rss: Vec<String> =
                series.idle_rss.iter().map(|bytes| format!("{:.1}", *bytes as f64 / 1e6)).collect();
            println!(
                "{:<8}{:>16}{:>10}{:>10}{:>10}{:>26}",
                series.name,
                number(series.cpu_per_request(), 1),
                number(series.rate(), 0),
                number(series.latency(0.5), 2),
                number(series.latency(0.99), 2),
                if rss.is_empty() { "-".to_owned() } else { rss.join(" + ") },
            );
        }
        match self.ratio() {
            Some(ratio) => println!("CPU per request, mesh / envoy: {ratio:.2}"),
            None => println!("no ratio: Envoy did not run"),
        }
    }

    /// The same as JSON.
    pub(crate) fn to_json(&self) -> String {
        let series: Vec<Value> = self.series.iter().map(Series::to_json).collect();
        let report = json!({
            "plan": self.plan,
            "connections": self.connections,
            "ratio": self.ratio(),
            "series": series,
        });
        format!("{report:#}\n")
    }
}
