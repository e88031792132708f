//! What was measured, and the medians of it.

use std::time::Duration;

use super::cells::{Cell, Unit};
use super::client::Seen;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) seen: Seen,
    /// CPU time that each process on the way used: the client's side, the server's side.
    pub(crate) cpu: Vec<Duration>,
}

/// All runs of one arrangement in one cell.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) arrangement: &'static str,
    pub(crate) samples: Vec<Sample>,
}

impl Series {
    /// Without any run yet.
    pub(crate) fn new(arrangement: &'static str) -> Self {
        Self { arrangement, samples: Vec::new() }
    }

    /// CPU of all processes on the way for each `unit`: seconds for a GB, else microseconds.
    pub(crate) fn cost(&self, unit: Unit) -> Option<f64> {
        self.median(|sample| cost(sample, unit, sample.cpu.iter().sum()).filter(|_| !sample.cpu.is_empty()))
    }

    /// The same of one process.
    pub(crate) fn cost_of(&self, process: usize, unit: Unit) -> Option<f64> {
        self.median(|sample| cost(sample, unit, *sample.cpu.get(process)?))
    }

    /// Lowest and highest of [`Self::cost`] among the runs.
    pub(crate) fn cost_range(&self, unit: Unit) -> Option<[f64; 2]> {
        let costs: Vec<f64> =
            self.samples.iter().filter_map(|sample| cost(sample, unit, sample.cpu.iter().sum())).collect();
        let low = costs.iter().copied().min_by(f64::total_cmp)?;
        Some([low, costs.iter().copied().max_by(f64::total_cmp)?])
    }

    /// Units a second.
    pub(crate) fn rate(&self) -> Option<f64> {
        self.median(|sample| Some(sample.seen.count / sample.seen.seconds))
    }

    /// p50, p99 or p99.9 (0, 1, 2) in microseconds.
    pub(crate) fn latency(&self, which: usize) -> Option<f64> {
        self.median(|sample| sample.seen.latencies?.get(which).copied())
    }

    /// By how much the client itself was late at the 99th percentile, in microseconds.
    pub(crate) fn late(&self) -> Option<f64> {
        self.median(|sample| sample.seen.late)
    }

    fn median(&self, of: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(self.samples.iter().filter_map(of).collect())
    }
}

fn cost(sample: &Sample, unit: Unit, cpu: Duration) -> Option<f64> {
    let scale = if unit == Unit::Gigabyte { 1.0 } else { 1e6 };
    Some(cpu.as_secs_f64() * scale / sample.seen.count).filter(|cost| cost.is_finite())
}

/// The middle of `values`; of an even number, the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    values.get(values.len() / 2 - 1).map(|lower| f64::midpoint(*lower, upper))
}

/// All arrangements in one cell.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) cell: Cell,
    pub(crate) series: Vec<Series>,
}

impl Measured {
    /// CPU for each unit of an arrangement.
    pub(crate) fn cost(&self, arrangement: &str) -> Option<f64> {
        find(&self.series, arrangement)?.cost(self.cell.unit)
    }
}

/// The series of an arrangement.
pub(crate) fn find<'a>(series: &'a [Series], arrangement: &str) -> Option<&'a Series> {
    series.iter().find(|series| series.arrangement == arrangement)
}

/// Bytes that the two proxies of a pair held.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    pub(crate) arrangement: &'static str,
    /// Before any load, then with so many busy connections: the client's side, the server's side.
    pub(crate) held: Vec<(usize, Vec<u64>)>,
}

impl Memory {
    /// Bytes of both at so many connections; 0: idle.
    pub(crate) fn both(&self, connections: usize) -> Option<u64> {
        self.held.iter().find(|(at, _)| *at == connections).map(|(_, bytes)| bytes.iter().sum())
    }
}

/// Everything.
pub(crate) struct Results {
    /// Name of the plan.
    pub(crate) plan: &'static str,
    pub(crate) rounds: usize,
    /// What it ran on.
    pub(crate) machine: String,
    /// Names and versions of others' programs.
    pub(crate) versions: Vec<String>,
    pub(crate) cells: Vec<Measured>,
    pub(crate) memory: Vec<Memory>,
    /// Requests a second of `paced`.
    pub(crate) rate: f64,
    /// Latency at that rate.
    pub(crate) paced: Vec<Series>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A series whose runs answered 1000 requests in half a second, with so many milliseconds of CPU on each side.
    pub(crate) fn series(arrangement: &'static str, cpu: &[[u64; 2]]) -> Series {
        let sample = |cpu: &[u64; 2]| Sample {
            seen: Seen {
                count: 1000.0,
                failed: 0,
                seconds: 0.5,
                latencies: Some([100.0, 200.0, 300.0]),
                late: Some(5.0),
            },
            cpu: cpu.iter().map(|ms| Duration::from_millis(*ms)).collect(),
        };
        Series { arrangement, samples: cpu.iter().map(sample).collect() }
    }

    /// Results of two pairs in one cell.
    pub(crate) fn results() -> Results {
        let cell = crate::bench::cells::all().remove(0);
        let both =
            vec![series("mesh", &[[20, 21]]), series("bare", &[[18, 17]]), series("envoy", &[[90, 91]])];
        let memory = |arrangement, bytes| Memory {
            arrangement,
            held: [0, 100, 1000].map(|at| (at, vec![bytes + at as u64, bytes])).to_vec(),
        };
        Results {
            plan: "full",
            rounds: 1,
            machine: "2 CPUs".to_owned(),
            versions: vec!["Envoy 1.40.0".to_owned()],
            cells: vec![Measured { cell, series: both.clone() }],
            memory: vec![memory("mesh", 12_000_000), memory("envoy", 64_000_000)],
            rate: 1500.0,
            paced: both,
        }
    }

    #[test]
    fn medians_are_of_the_runs() {
        let series = series("mesh", &[[20, 20], [10, 20], [300, 20]]);
        assert_eq!(series.cost(Unit::Request), Some(40.0));
        assert_eq!(series.cost_of(0, Unit::Request), Some(20.0));
        assert_eq!(series.cost_of(2, Unit::Request), None);
        assert_eq!(series.cost_range(Unit::Request), Some([30.0, 320.0]));
        assert_eq!(series.rate(), Some(2000.0));
        assert_eq!(series.latency(1), Some(200.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn without_proxies_there_is_no_cost() {
        let mut direct = series("direct", &[[1, 1]]);
        direct.samples[0].cpu.clear();
        assert_eq!(direct.cost(Unit::Request), None);
    }
}
