//! Counters of edges: one writer (the worker), relaxed atomics, any number of readers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use mesh_core::{
    edge::{Direction, EdgeKey, EdgeTotals},
    histogram::{self, BUCKETS},
    protocol::Protocol,
    reason::Reason,
};

/// Edges that one shard keeps apart; more go to the overflow edge of their direction.
pub(crate) const MAX_EDGES: usize = 2000;

/// Number of reasons.
const REASONS: usize = Reason::ALL.len();

/// How a request (or TCP connection) ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    /// HTTP status; None for TCP or when there was no response.
    pub status: Option<u16>,
    /// It counts as failed.
    pub failed: bool,
    /// Why the proxy answered or ended it itself; None: it did not.
    pub reason: Option<Reason>,
    /// Time it took, in microseconds.
    pub micros: u64,
    /// Bytes from caller to callee.
    pub request_bytes: u64,
    /// Bytes from callee to caller.
    pub response_bytes: u64,
}

/// A counter with one writer: an addition needs no locked instruction.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker counted on one edge.
pub(crate) struct EdgeStats {
    key: EdgeKey,
    requests: Counter,
    failures: Counter,
    connections: Counter,
    request_bytes: Counter,
    response_bytes: Counter,
    sum_micros: Counter,
    status_classes: [Counter; 5],
    buckets: [Counter; BUCKETS],
    /// Requests with a reason, by status class (0: none) and reason; rare, so a small list is enough.
    reasons: Mutex<Vec<(u8, Reason, u64)>>,
    /// Requests and connections at the last sweep, and how many sweeps ago that changed: to expire idle edges.
    swept: AtomicU64,
    idle_sweeps: AtomicU64,
}

impl EdgeStats {
    fn new(key: EdgeKey) -> Self {
        Self {
            key,
            requests: Counter::default(),
            failures: Counter::default(),
            connections: Counter::default(),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            sum_micros: Counter::default(),
            status_classes: std::array::from_fn(|_| Counter::default()),
            buckets: std::array::from_fn(|_| Counter::default()),
            reasons: Mutex::default(),
            swept: AtomicU64::new(0),
            idle_sweeps: AtomicU64::new(0),
        }
    }

    /// Which edge.
    pub(crate) fn key(&self) -> &EdgeKey {
        &self.key
    }

    /// Counts one opened connection.
    pub(crate) fn connection(&self) {
        self.connections.add(1);
    }

    /// Counts one ended request (TCP: connection).
    pub(crate) fn finished(&self, outcome: &Outcome) {
        let class = status_class(outcome.status);
        if let Some(counter) = class.checked_sub(1).and_then(|c| self.status_classes.get(usize::from(c))) {
            counter.add(1);
        }
        if let Some(reason) = outcome.reason {
            let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
            match reasons.iter_mut().find(|(c, r, _)| (*c, *r) == (class, reason)) {
                Some((_, _, count)) => *count += 1,
                None => reasons.push((class, reason, 1)),
            }
        }
        if let Some(bucket) = self.buckets.get(histogram::bucket(outcome.micros)) {
            bucket.add(1);
        }
        self.sum_micros.add(outcome.micros);
        self.request_bytes.add(outcome.request_bytes);
        self.response_bytes.add(outcome.response_bytes);
        self.failures.add(u64::from(outcome.failed));
        self.requests.add(1);
    }
}

/// Class of a status: 1 to 5; 0 when there is none.
fn status_class(status: Option<u16>) -> u8 {
    match status {
        Some(status @ 100..600) => (status / 100) as u8,
        _ => 0,
    }
}

/// What one worker counts.
pub(crate) struct Shard {
    edges: Mutex<HashMap<EdgeKey, Arc<EdgeStats>>>,
    refused: [[Counter; REASONS]; 2],
    opened: [Counter; 2],
    closed: [Counter; 2],
}

impl Shard {
    /// A shard that has counted nothing.
    pub(crate) fn new() -> Self {
        Self {
            edges: Mutex::default(),
            refused: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
            opened: std::array::from_fn(|_| Counter::default()),
            closed: std::array::from_fn(|_| Counter::default()),
        }
    }

    /// The counters of an edge. Takes a lock: ask once and keep them. Beyond [`MAX_EDGES`]: the overflow edge.
    pub(crate) fn edge(&self, key: &EdgeKey) -> Arc<EdgeStats> {
        let mut edges = self.edges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(edge) = edges.get(key) {
            return Arc::clone(edge);
        }
        let key = if edges.len() < MAX_EDGES { key.clone() } else { overflow(key.direction) };
        Arc::clone(edges.entry(key.clone()).or_insert_with(|| Arc::new(EdgeStats::new(key))))
    }

    /// Counts a connection that was refused before its edge was known.
    pub(crate) fn refused(&self, direction: Direction, reason: Reason) {
        if let Some(counter) = self.refused[side(direction)].get(reason.index()) {
            counter.add(1);
        }
    }

    /// Counts an accepted connection.
    pub(crate) fn connection_opened(&self, direction: Direction) {
        self.opened[side(direction)].add(1);
    }

    /// Counts the end of an accepted connection.
    pub(crate) fn connection_closed(&self, direction: Direction) {
        self.closed[side(direction)].add(1);
    }
}

fn side(direction: Direction) -> usize {
    match direction {
        Direction::Outbound => 0,
        Direction::Inbound => 1,
    }
}

/// The edge that takes what exceeds the limit.
fn overflow(direction: Direction) -> EdgeKey {
    EdgeKey {
        direction,
        source: None,
        destination: None,
        service: None,
        backend: None,
        destination_workload: None,
        rule: None,
        protocol: Protocol::Undeclared,
        secured: false,
    }
}
