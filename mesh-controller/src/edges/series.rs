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

/// Reports that come faster than that replace the newest sample.
const DENSE: Duration = Duration::from_millis(500);

/// One edge of one reporter, over restarts of the reporter.
pub(super) struct Series {
    /// Totals of processes that ended.
    ended: Compact,
    /// Totals of the processes that report, by their number.
    current: Vec<(u64, Compact)>,
    /// Oldest first; never empty.
    samples: VecDeque<Sample>,
    origin: Instant,
    /// When it was last reported.
    reported: Instant,
}

/// What the totals were from `at` to `until`.
struct Sample {
    at: Instant,
    until: Instant,
    totals: Compact,
}

/// Totals without the buckets that are empty: a full histogram takes 1.6 kB.
#[derive(Default, PartialEq)]
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
    /// An edge that began at `origin`.
    pub(super) fn new(origin: Instant, now: Instant) -> Self {
        let zero = Sample { at: origin, until: origin, totals: Compact::default() };
        Self {
            ended: Compact::default(),
            current: Vec::new(),
            samples: VecDeque::from([zero]),
            origin,
            reported: now,
        }
    }

    /// Takes newer totals of a process. Totals that went back mean that the proxy forgot the edge and began anew;
    /// unless `is_sum`: an edge may leave the overflow edge. Keeps at most `room` samples.
    pub(super) fn push(
        &mut self,
        process: u64,
        totals: &EdgeTotals,
        is_sum: bool,
        room: usize,
        now: Instant,
    ) {
        let went_back =
            |old: &Compact| totals.requests < old.requests || totals.connections < old.connections;
        if !is_sum && self.current.iter().any(|(number, old)| *number == process && went_back(old)) {
            self.end(process);
        }
        let newest = Compact::of(totals);
        match self.current.iter_mut().find(|(number, _)| *number == process) {
            Some((_, held)) => *held = newest,
            None => self.current.push((process, newest)),
        }
        self.reported = now;
        self.sample(now);
        self.thin(room, now);
    }

    /// A process ended: what it counted stays.
    pub(super) fn end(&mut self, process: u64) {
        let Some(at) = self.current.iter().position(|(number, _)| *number == process) else { return };
        let (_, last) = self.current.swap_remove(at);
        let mut sum = self.ended.expand();
        add(&mut sum, &last.expand());
        self.ended = Compact::of(&sum);
    }

    /// When it was last reported.
    pub(super) fn reported(&self) -> Instant {
        self.reported
    }

    fn sample(&mut self, now: Instant) {
        let totals = Compact::of(&self.sum());
        let before = self.samples.len().checked_sub(2).and_then(|i| self.samples.get(i));
        let is_dense = before.is_some_and(|before| now.saturating_duration_since(before.until) < DENSE);
        match self.samples.back_mut() {
            Some(last) if last.totals == totals => last.until = now,
            Some(last) if is_dense => *last = Sample { at: now, until: now, totals },
            _ => self.samples.push_back(Sample { at: now, until: now, totals }),
        }
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
        let mut sum = self.ended.expand();
        self.current.iter().for_each(|(_, totals)| add(&mut sum, &totals.expand()));
        sum
    }

    /// Drops samples that are too dense for their age, and those older than any window but the newest of them.
    fn thin(&mut self, room: usize, now: Instant) {
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
        while self.samples.len() > room.max(2) {
            let densest = self.densest(now);
            self.samples.remove(densest);
        }
    }

    /// The sample whose loss makes windows least inexact, relative to their length: neither the first nor the last.
    fn densest(&self, now: Instant) -> usize {
        let gap = |i: usize| {
            let (before, sample, after) =
                (self.samples.get(i - 1)?, self.samples.get(i)?, self.samples.get(i + 1)?);
            let age = now.saturating_duration_since(sample.until).as_secs_f64() + 1.0;
            Some(after.at.saturating_duration_since(before.until).as_secs_f64() / age)
        };
        let inner = 1..self.samples.len().saturating_sub(1);
        let gaps = inner.filter_map(|i| Some((i, gap(i)?)));
        gaps.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i)
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

/// Adds `more` to `sum`.
pub(super) fn add(sum: &mut EdgeTotals, more: &EdgeTotals) {
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
