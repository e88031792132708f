//! What proxies counted, kept for ten minutes: totals, and what happened within a window.
//!
//! Proxies report totals since their start. Each total is kept as a sample; a window is the difference of two.

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

/// Longest window.
pub(crate) const MAX_WINDOW: Duration = Duration::from_secs(600);
/// A reporter that was silent for so long is forgotten.
const SILENCE: Duration = Duration::from_secs(600);
/// Most edges of one reporter.
const MAX_EDGES: usize = 1000;
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

/// All edges.
#[derive(Default)]
pub(crate) struct Edges {
    reporters: Mutex<HashMap<WorkloadRef, Reporter>>,
}

struct Reporter {
    instance: String,
    last: Instant,
    edges: HashMap<EdgeKey, Series>,
}

impl Edges {
    /// Takes a report. Returns how many edges were left out because there are too many.
    pub(crate) fn take(&self, workload: &WorkloadRef, report: Report, now: Instant) -> usize {
        let mut reporters = self.lock();
        let all: usize = reporters.values().map(|reporter| reporter.edges.len()).sum();
        let mut room = MAX_ALL_EDGES.saturating_sub(all);
        let started = now.checked_sub(report.uptime).unwrap_or(now);
        let is_known = reporters.contains_key(workload);
        let reporter = reporters.entry(workload.clone()).or_insert_with(|| Reporter {
            instance: report.instance.clone(),
            last: started,
            edges: HashMap::new(),
        });
        if reporter.instance != report.instance {
            reporter.instance = report.instance;
            reporter.edges.values_mut().for_each(Series::restart);
        }
        // An edge that was not there at the last report began after it.
        let origin = if is_known { reporter.last.max(started) } else { started };
        reporter.last = now;
        let mut dropped = 0;
        for (key, totals) in report.edges {
            if let Some(series) = reporter.edges.get_mut(&key) {
                series.push(totals, now);
            } else if reporter.edges.len() < MAX_EDGES && room > 0 {
                room -= 1;
                reporter.edges.insert(key, Series::new(origin, totals, now));
            } else {
                dropped += 1;
            }
        }
        dropped
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

    /// Forgets reporters that are silent.
    pub(crate) fn expire(&self, now: Instant) {
        self.lock().retain(|_, reporter| now.saturating_duration_since(reporter.last) < SILENCE);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkloadRef, Reporter>> {
        self.reporters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
