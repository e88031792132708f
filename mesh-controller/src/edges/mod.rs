//! What proxies counted, kept for ten minutes: totals, and what happened within a window.
//!
//! Proxies report totals since their start. Each total is kept as a sample; a window is the difference of two. More
//! than one process may report for a workload, as when a new proxy takes over from an old one: their totals add up.

mod series;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use mesh_core::{
    edge::{EdgeKey, EdgeTotals},
    name::WorkloadRef,
};

use self::series::Series;
use crate::limit::Bucket;

/// Longest window.
pub(crate) const MAX_WINDOW: Duration = Duration::from_secs(600);
/// A reporter that was silent for so long is forgotten, and an edge that was not reported.
const SILENCE: Duration = Duration::from_secs(600);
/// Most edges of one reporter that are kept apart, as a proxy keeps; more go to the overflow edge of their direction.
const MAX_EDGES: usize = 2000;
/// Most processes that report for one workload: its proxy, and those that it took over from.
const MAX_PROCESSES: usize = 8;
/// A process that was silent for so long makes room for another.
const PROCESS_SILENCE: Duration = Duration::from_secs(15);
/// Reports of one workload that are taken at once.
const REPORT_BURST: u32 = 20;
/// Reports of one workload per second in the long run: each process sends one.
const REPORTS_PER_SECOND: f64 = 5.0;
/// Most samples of one edge.
const MAX_SAMPLES: usize = 256;
/// Samples that one reporter may keep, whatever its number of edges; each edge has [`MIN_SAMPLES`] nevertheless.
const REPORTER_SAMPLES: usize = 64_000;
/// Samples that each edge may keep.
const MIN_SAMPLES: usize = 32;
/// Most edges of all reporters together.
const MAX_ALL_EDGES: usize = 50_000;

/// One report of one proxy.
pub(crate) struct Report {
    /// Name of the process.
    pub(crate) instance: String,
    /// Time since its start.
    pub(crate) uptime: Duration,
    /// All its edges.
    pub(crate) edges: Vec<(EdgeKey, EdgeTotals)>,
}

/// One edge, as one proxy counted it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// The proxy.
    pub(crate) reporter: WorkloadRef,
    /// The edge.
    pub(crate) key: EdgeKey,
    /// What was counted.
    pub(crate) totals: EdgeTotals,
    /// The time that this covers.
    pub(crate) covered: Duration,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was taken.
    All {
        /// Edges that were counted in the overflow edge, or not at all.
        overflowed: usize,
    },
    /// It is older than what the process reported before.
    Stale,
    /// Too many processes report for this workload.
    TooManyProcesses,
}

/// All edges.
#[derive(Default)]
pub(crate) struct Edges {
    reporters: Mutex<HashMap<WorkloadRef, Reporter>>,
    buckets: Mutex<HashMap<WorkloadRef, (Bucket, Instant)>>,
}

struct Reporter {
    last: Instant,
    edges: HashMap<EdgeKey, Series>,
    processes: Vec<Process>,
    /// Number of the newest process.
    newest: u64,
}

/// A process that reports.
struct Process {
    number: u64,
    instance: String,
    uptime: Duration,
    last: Instant,
}

impl Edges {
    /// Whether a report of this workload is looked at, or comes too soon after others.
    pub(crate) fn admit(&self, workload: &WorkloadRef, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let (bucket, last) = buckets
            .entry(workload.clone())
            .or_insert_with(|| (Bucket::new(REPORT_BURST, REPORTS_PER_SECOND, now), now));
        *last = now;
        bucket.take(now)
    }

    /// Takes a report.
    pub(crate) fn take(&self, workload: &WorkloadRef, report: Report, now: Instant) -> Taken {
        let mut reporters = self.lock();
        let all: usize = reporters.values().map(|reporter| reporter.edges.len()).sum();
        let mut room = MAX_ALL_EDGES.saturating_sub(all);
        let started = now.checked_sub(report.uptime).unwrap_or(now);
        let reporter = reporters.entry(workload.clone()).or_insert_with(|| Reporter {
            last: started,
            edges: HashMap::new(),
            processes: Vec::new(),
            newest: 0,
        });
        let is_known = reporter.newest > 0;
        let process = match reporter.process(&report, now) {
            Ok(process) => process,
            Err(refused) => return refused,
        };
        // An edge that was not there at the last report began after it.
        let origin = if is_known { reporter.last.max(started) } else { started };
        reporter.last = now;
        let samples = (REPORTER_SAMPLES / report.edges.len().max(1)).clamp(MIN_SAMPLES, MAX_SAMPLES);
        let mut overflowed = 0;
        let mut sums: HashMap<EdgeKey, EdgeTotals> = HashMap::new();
        for (key, totals) in report.edges {
            let overflow = EdgeKey::unknown(key.direction);
            if key == overflow {
                series::add(sums.entry(overflow).or_default(), &totals);
            } else if let Some(series) = reporter.edges.get_mut(&key) {
                series.push(process, &totals, false, samples, now);
            } else if reporter.edges.len() < MAX_EDGES && room > 0 {
                room -= 1;
                let mut series = Series::new(origin, now);
                series.push(process, &totals, false, samples, now);
                reporter.edges.insert(key, series);
            } else {
                overflowed += 1;
                series::add(sums.entry(overflow).or_default(), &totals);
            }
        }
        for (key, totals) in sums {
            let series = reporter.edges.entry(key).or_insert_with(|| Series::new(origin, now));
            series.push(process, &totals, true, samples, now);
        }
        Taken::All { overflowed }
    }

    /// All edges that `wanted` lets through; None: totals since the start.
    pub(crate) fn list(
        &self,
        window: Option<Duration>,
        now: Instant,
        wanted: impl Fn(&WorkloadRef, &EdgeKey) -> bool,
    ) -> Vec<Row> {
        let reporters = self.lock();
        let mut rows = Vec::new();
        for (workload, reporter) in &*reporters {
            for (key, series) in reporter.edges.iter().filter(|(key, _)| wanted(workload, key)) {
                let (totals, covered) = match window {
                    None => series.totals(),
                    Some(window) => series.within(window.min(MAX_WINDOW), reporter.last, now),
                };
                rows.push(Row { reporter: workload.clone(), key: key.clone(), totals, covered });
            }
        }
        rows.sort_by(|a, b| (&a.reporter, &a.key).cmp(&(&b.reporter, &b.key)));
        rows
    }

    /// Forgets reporters that are silent, and edges that are not reported any more.
    pub(crate) fn expire(&self, now: Instant) {
        let is_fresh = |last: Instant| now.saturating_duration_since(last) < SILENCE;
        let mut reporters = self.lock();
        reporters.retain(|_, reporter| is_fresh(reporter.last));
        for reporter in reporters.values_mut() {
            reporter.edges.retain(|_, series| is_fresh(series.reported()));
        }
        drop(reporters);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.retain(|_, (_, last)| is_fresh(*last));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkloadRef, Reporter>> {
        self.reporters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reporter {
    /// The number of the process that reports.
    fn process(&mut self, report: &Report, now: Instant) -> Result<u64, Taken> {
        if let Some(process) = self.processes.iter_mut().find(|process| process.instance == report.instance) {
            if report.uptime < process.uptime {
                return Err(Taken::Stale);
            }
            (process.uptime, process.last) = (report.uptime, now);
            return Ok(process.number);
        }
        if self.processes.len() >= MAX_PROCESSES {
            let silent = self.processes.iter().enumerate().min_by_key(|(_, process)| process.last);
            let silent = silent.filter(|(_, p)| now.saturating_duration_since(p.last) > PROCESS_SILENCE);
            let Some((at, _)) = silent else { return Err(Taken::TooManyProcesses) };
            let ended = self.processes.swap_remove(at);
            self.edges.values_mut().for_each(|series| series.end(ended.number));
        }
        self.newest += 1;
        let (instance, uptime) = (report.instance.clone(), report.uptime);
        self.processes.push(Process { number: self.newest, instance, uptime, last: now });
        Ok(self.newest)
    }
}

#[cfg(test)]
mod tests;
