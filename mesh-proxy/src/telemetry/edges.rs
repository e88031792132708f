//! Counters of edges: one writer (the worker), relaxed atomics, any number of readers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use mesh_core::{
    edge::{Direction, EdgeKey, EdgeTotals},
    histogram::{self, BUCKETS},
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
    /// How often the request was sent again.
    pub retries: u32,
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
    retries: Counter,
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
            retries: Counter::default(),
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

    /// Counts one retry, where the try before it failed.
    pub(crate) fn retried(&self) {
        self.retries.add(1);
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

    /// What this shard counted.
    #[cfg(test)]
    pub(crate) fn totals(&self) -> EdgeTotals {
        let mut counts = EdgeCounts::default();
        counts.add(self);
        counts.totals
    }

    /// How many calls in a row found nothing new.
    fn idle_sweeps(&self) -> u64 {
        let now = self.requests.get().wrapping_add(self.connections.get());
        if self.swept.swap(now, Relaxed) == now {
            self.idle_sweeps.fetch_add(1, Relaxed) + 1
        } else {
            self.idle_sweeps.store(0, Relaxed);
            0
        }
    }
}

/// Class of a status: 1 to 5; 0 when there is none.
fn status_class(status: Option<u16>) -> u8 {
    match status {
        Some(status @ 100..600) => (status / 100) as u8,
        _ => 0,
    }
}

/// Totals of one edge over all shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EdgeCounts {
    /// The totals.
    pub totals: EdgeTotals,
    /// Retries.
    pub retries: u64,
    /// Requests with a reason, by status class (0: none) and reason.
    pub by_reason: BTreeMap<(u8, Reason), u64>,
}

impl EdgeCounts {
    fn add(&mut self, edge: &EdgeStats) {
        self.retries += edge.retries.get();
        let totals = &mut self.totals;
        totals.requests += edge.requests.get();
        totals.failures += edge.failures.get();
        totals.connections += edge.connections.get();
        totals.request_bytes += edge.request_bytes.get();
        totals.response_bytes += edge.response_bytes.get();
        for (total, counter) in totals.status_classes.iter_mut().zip(&edge.status_classes) {
            *total += counter.get();
        }
        for (bucket, counter) in edge.buckets.iter().enumerate() {
            match counter.get() {
                0 => {}
                count => totals.latency.add(bucket, count, 0),
            }
        }
        totals.latency.add(0, 0, edge.sum_micros.get());
        for (class, reason, count) in edge.reasons.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            *totals.reasons.entry(*reason).or_default() += count;
            *self.by_reason.entry((*class, *reason)).or_default() += count;
        }
    }
}

/// Adds up the edges of all shards.
pub(crate) fn sum(shards: &[Arc<Shard>]) -> BTreeMap<EdgeKey, EdgeCounts> {
    let mut sums: BTreeMap<EdgeKey, EdgeCounts> = BTreeMap::new();
    for shard in shards {
        for edge in shard.edges().values() {
            match sums.get_mut(&edge.key) {
                Some(counts) => counts.add(edge),
                None => sums.entry(edge.key.clone()).or_default().add(edge),
            }
        }
    }
    sums
}

/// Forgets edges that no worker holds and that have not changed for `sweeps` calls of this function.
pub(crate) fn expire(shards: &[Arc<Shard>], sweeps: u64) {
    let mut maps: Vec<_> = shards.iter().map(|shard| shard.edges()).collect();
    let mut busy = HashSet::new();
    for edge in maps.iter().flat_map(|edges| edges.values()) {
        if Arc::strong_count(edge) > 1 || edge.idle_sweeps() < sweeps {
            busy.insert(edge.key.clone());
        }
    }
    for edges in &mut maps {
        edges.retain(|key, _| busy.contains(key));
    }
}

/// What one worker counts.
pub(crate) struct Shard {
    edges: Mutex<HashMap<EdgeKey, Arc<EdgeStats>>>,
    refused: [[Counter; REASONS]; 2],
    opened: [Counter; 2],
    closed: [Counter; 2],
    left_out: [Counter; 2],
    /// Copies of requests: dropped, sent.
    mirrored: [Counter; 2],
}

/// Why an endpoint gets no calls for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    /// Its calls fail.
    Calls,
    /// Its health checks fail.
    Checks,
}

impl LeftOut {
    /// All causes.
    pub(crate) const ALL: [Self; 2] = [Self::Calls, Self::Checks];

    /// Value of the label `cause`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Checks => "checks",
        }
    }
}

impl Shard {
    /// A shard that has counted nothing.
    pub(crate) fn new() -> Self {
        Self {
            edges: Mutex::default(),
            refused: std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())),
            opened: std::array::from_fn(|_| Counter::default()),
            closed: std::array::from_fn(|_| Counter::default()),
            left_out: std::array::from_fn(|_| Counter::default()),
            mirrored: std::array::from_fn(|_| Counter::default()),
        }
    }

    /// The counters of an edge. Takes a lock: ask once and keep them. Beyond [`MAX_EDGES`]: the overflow edge.
    pub(crate) fn edge(&self, key: &EdgeKey) -> Arc<EdgeStats> {
        let mut edges = self.edges();
        if let Some(edge) = edges.get(key) {
            return Arc::clone(edge);
        }
        let key = if edges.len() < MAX_EDGES { key.clone() } else { EdgeKey::unknown(key.direction) };
        Arc::clone(edges.entry(key.clone()).or_insert_with(|| Arc::new(EdgeStats::new(key))))
    }

    fn edges(&self) -> MutexGuard<'_, HashMap<EdgeKey, Arc<EdgeStats>>> {
        self.edges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections refused so far.
    pub(crate) fn refusals(&self, direction: Direction) -> impl Iterator<Item = (Reason, u64)> + '_ {
        let counters = &self.refused[side(direction)];
        Reason::ALL.iter().copied().zip(counters.iter().map(Counter::get)).filter(|(_, count)| *count > 0)
    }

    /// Connections that are open.
    pub(crate) fn active(&self, direction: Direction) -> u64 {
        let side = side(direction);
        // The end is read first: a connection that begins and ends meanwhile must not count negative.
        let closed = self.closed[side].get();
        self.opened[side].get().saturating_sub(closed)
    }

    /// Connections that were ever accepted.
    pub(crate) fn opened(&self, direction: Direction) -> u64 {
        self.opened[side(direction)].get()
    }

    /// Counts a connection that was refused before its edge was known.
    pub(crate) fn refused(&self, direction: Direction, reason: Reason) {
        if let Some(counter) = self.refused[side(direction)].get(reason.index()) {
            counter.add(1);
        }
    }

    /// Counts an endpoint that is left out.
    pub(crate) fn left_out(&self, cause: LeftOut) {
        self.left_out[cause as usize].add(1);
    }

    /// How often endpoints were left out.
    pub(crate) fn times_left_out(&self, cause: LeftOut) -> u64 {
        self.left_out[cause as usize].get()
    }

    /// Counts a copy of a request that was sent, or dropped.
    pub(crate) fn mirrored(&self, sent: bool) {
        self.mirrored[usize::from(sent)].add(1);
    }

    /// Copies of requests so far: dropped, sent.
    pub(crate) fn copies(&self) -> [u64; 2] {
        [self.mirrored[0].get(), self.mirrored[1].get()]
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

#[cfg(test)]
mod tests;
