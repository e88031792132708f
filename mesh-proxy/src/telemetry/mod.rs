//! Counting: per-worker shards, summed by whoever reads.

pub(crate) mod access_log;
mod edges;
mod metrics;
mod report;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use mesh_core::{
    edge::{Direction, EdgeKey},
    reason::Reason,
};

pub(crate) use self::{
    edges::{EdgeCounts, EdgeStats, LeftOut, Outcome, Shard},
    metrics::{CONTENT_TYPE as METRICS_CONTENT_TYPE, Metrics},
    report::{report_once, run},
};

/// Sweeps, one a minute, after which an unchanged edge is forgotten.
const IDLE_SWEEPS: u64 = 15;

/// Where what is refused on connections of one side of a worker is counted. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Refusals {
    shard: Arc<Shard>,
    direction: Direction,
}

impl Refusals {
    /// In a worker's shard.
    pub(crate) fn new(shard: &Arc<Shard>, direction: Direction) -> Self {
        Self { shard: Arc::clone(shard), direction }
    }

    /// Counts one.
    pub(crate) fn count(&self, reason: Reason) {
        self.shard.refused(self.direction, reason);
        tracing::debug!(direction = self.direction.as_str(), reason = reason.code(), "connection refused");
    }
}

/// All that is counted. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Telemetry {
    shards: Arc<[Arc<Shard>]>,
    started: Instant,
    instance: Arc<str>,
}

impl Telemetry {
    /// Counters for this many workers; `instance` names the process.
    pub(crate) fn new(workers: usize, instance: &str) -> Self {
        Self {
            shards: (0..workers).map(|_| Arc::new(Shard::new())).collect(),
            started: Instant::now(),
            instance: instance.into(),
        }
    }

    /// One per worker.
    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// When counting began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Totals of all edges.
    pub(crate) fn edges(&self) -> BTreeMap<EdgeKey, EdgeCounts> {
        edges::sum(&self.shards)
    }

    /// Forgets edges that have been idle for long; called once a minute.
    fn sweep(&self) {
        edges::expire(&self.shards, IDLE_SWEEPS);
    }
}
