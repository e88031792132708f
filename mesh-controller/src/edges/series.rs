//! The samples of one edge: every report of the last minute, then fewer.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use mesh_core::{edge::EdgeTotals, histogram::Histogram, reason::Reason};

use super::MAX_WINDOW;

/// For so long every report is kept.
const FINE: Duration = Duration::from_secs(60);
/// Older samples are that far apart.
const COARSE: Duration = Duration::from_secs(5);

/// One edge of one reporter, over restarts of the reporter.
pub(super) struct Series {
    /// Totals of processes that ended.
    ended: EdgeTotals,
    /// Totals of the process that reports.
    current: EdgeTotals,
    /// Oldest first; never empty.
    samples: VecDeque<Sample>,
    origin: Instant,
}

/// What the totals were from `at` to `until`.
struct Sample {
    at: Instant,
    until: Instant,
    totals: Compact,
}

/// Totals without the buckets that are empty: a full histogram takes 1.6 kB.
#[derive(PartialEq)]
struct Compact {
    requests: u64,
    failures: u64,
    reasons: Box<[(Reason, u64)]>,
    latency: Box<[(u16, u64)]>,
    sum_micros: u64,
    request_bytes: u64,
    response_bytes: u64,
    connections: u64,
    status_classes: [u64; 5],
}

impl Series {
    /// An edge that began at `origin` and has these totals now.
    pub(super) fn new(origin: Instant, totals: EdgeTotals, now: Instant) -> Self {
        let zero = Sample { at: origin, until: origin, totals: Compact::of(&EdgeTotals::default()) };
        let mut series = Self {
            ended: EdgeTotals::default(),
            current: EdgeTotals::default(),
            samples: VecDeque::from([zero]),
            origin,
        };
        series.push(totals, now);
        series
    }

    /// Takes newer totals. Totals that went back mean that the reporter began anew.
    pub(super) fn push(&mut self, totals: EdgeTotals, now: Instant) {
        if totals.requests < self.current.requests || totals.connections < self.current.connections {
            self.restart();
        }
        self.current = totals;
        let compact = Compact::of(&self.sum());
        match self.samples.back_mut() {
            Some(last) if last.totals == compact => last.until = now,
            _ => self.samples.push_back(Sample { at: now, until: now, totals: compact }),
        }
        self.thin(now);
    }

    /// The reporter's process ended: what it counted stays.
    pub(super) fn restart(&mut self) {
        add(&mut self.ended, &self.current);
        self.current = EdgeTotals::default();
    }

    /// Totals since the start, and the time that they cover.
    pub(super) fn totals(&self) -> (EdgeTotals, Duration) {
        let until = self.samples.back().map_or(self.origin, |last| last.until);
        (self.sum(), until.saturating_duration_since(self.origin))
    }

    /// What happened within `window` before `now`, and the time that this covers. `reported` is when the reporter was
    /// last heard.
    pub(super) fn within(&self, window: Duration, reported: Instant, now: Instant) -> (EdgeTotals, Duration) {
        let begin = now.checked_sub(window).unwrap_or(self.origin);
        if reported <= begin {
            return (EdgeTotals::default(), window);
        }
        let after = self.samples.partition_point(|sample| sample.at <= begin);
        // The sample before holds up to when it was last confirmed; the one after is taken when it is nearer.
        let before = after.checked_sub(1).and_then(|i| self.samples.get(i)).map(|s| (s.until.min(begin), s));
        let next = self.samples.get(after).map(|s| (s.at, s));
        let (from, base) = match (before, next) {
            (Some(b), Some(n)) if begin.duration_since(b.0) <= n.0.duration_since(begin) => b,
            (_, Some(n)) => n,
            (Some(b), None) => b,
            (None, None) => return (EdgeTotals::default(), window),
        };
        (since(&self.sum(), &base.totals.expand()), reported.saturating_duration_since(from))
    }

    fn sum(&self) -> EdgeTotals {
        let mut sum = self.ended.clone();
        add(&mut sum, &self.current);
        sum
    }

    /// Drops samples that are too dense for their age, and those older than any window but the newest of them.
    fn thin(&mut self, now: Instant) {
        let age = |sample: &Sample| now.saturating_duration_since(sample.until);
        while self.samples.get(1).is_some_and(|second| age(second) > MAX_WINDOW) {
            self.samples.pop_front();
        }
        let mut kept: Option<Instant> = None;
        self.samples.retain(|sample| {
            let dense = kept.is_some_and(|k| sample.at.saturating_duration_since(k) < COARSE);
            if age(sample) > FINE && dense {
                return false;
            }
            kept = Some(sample.at);
            true
        });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }
}

impl Compact {
    fn of(totals: &EdgeTotals) -> Self {
        Self {
            requests: totals.requests,
            failures: totals.failures,
            reasons: totals.reasons.iter().map(|(reason, count)| (*reason, *count)).collect(),
            latency: totals.latency.iter().map(|(bucket, count)| (bucket as u16, count)).collect(),
            sum_micros: totals.latency.sum_micros(),
            request_bytes: totals.request_bytes,
            response_bytes: totals.response_bytes,
            connections: totals.connections,
            status_classes: totals.status_classes,
        }
    }

    fn expand(&self) -> EdgeTotals {
        let mut latency = Histogram::default();
        for (bucket, count) in &self.latency {
            latency.add(usize::from(*bucket), *count, 0);
        }
        latency.add(0, 0, self.sum_micros);
        EdgeTotals {
            requests: self.requests,
            failures: self.failures,
            reasons: self.reasons.iter().copied().collect(),
            latency,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            connections: self.connections,
            status_classes: self.status_classes,
        }
    }
}

fn add(sum: &mut EdgeTotals, more: &EdgeTotals) {
    sum.requests = sum.requests.saturating_add(more.requests);
    sum.failures = sum.failures.saturating_add(more.failures);
    for (reason, count) in &more.reasons {
        let slot = sum.reasons.entry(*reason).or_default();
        *slot = slot.saturating_add(*count);
    }
    sum.latency.merge(&more.latency);
    sum.request_bytes = sum.request_bytes.saturating_add(more.request_bytes);
    sum.response_bytes = sum.response_bytes.saturating_add(more.response_bytes);
    sum.connections = sum.connections.saturating_add(more.connections);
    for (slot, count) in sum.status_classes.iter_mut().zip(more.status_classes) {
        *slot = slot.saturating_add(count);
    }
}

fn since(now: &EdgeTotals, earlier: &EdgeTotals) -> EdgeTotals {
    let mut out = now.clone();
    out.requests = out.requests.saturating_sub(earlier.requests);
    out.failures = out.failures.saturating_sub(earlier.failures);
    for (reason, count) in &mut out.reasons {
        *count = count.saturating_sub(earlier.reasons.get(reason).copied().unwrap_or(0));
    }
    out.reasons.retain(|_, count| *count > 0);
    out.latency = now.latency.since(&earlier.latency);
    out.request_bytes = out.request_bytes.saturating_sub(earlier.request_bytes);
    out.response_bytes = out.response_bytes.saturating_sub(earlier.response_bytes);
    out.connections = out.connections.saturating_sub(earlier.connections);
    for (slot, old) in out.status_classes.iter_mut().zip(earlier.status_classes) {
        *slot = slot.saturating_sub(old);
    }
    out
}
