//! What was counted, added up, and the numbers that people read from it.

use std::collections::BTreeMap;

use mesh_core::{edge::EdgeTotals, histogram::Histogram, reason::Reason};
use serde::Serialize;

/// Counters of one or more edges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    /// Requests that ended (TCP: connections).
    pub(crate) requests: u64,
    /// Of these: those that failed.
    pub(crate) failures: u64,
    /// Of these: those over mesh TLS.
    pub(crate) secured: u64,
    /// Requests per second.
    pub(crate) rate: f64,
    /// Requests that a proxy ended, by reason.
    pub(crate) reasons: BTreeMap<Reason, u64>,
    /// Latencies.
    pub(crate) latency: Histogram,
    /// Bytes from caller to callee.
    pub(crate) request_bytes: u64,
    /// Bytes from callee to caller.
    pub(crate) response_bytes: u64,
    /// Connections opened.
    pub(crate) connections: u64,
}

impl Stats {
    /// What one report says.
    pub(crate) fn of(totals: &EdgeTotals, covered_millis: u64, secured: bool) -> Self {
        let seconds = covered_millis as f64 / 1000.0;
        Self {
            requests: totals.requests,
            failures: totals.failures.min(totals.requests),
            secured: if secured { totals.requests } else { 0 },
            rate: if covered_millis == 0 { 0.0 } else { totals.requests as f64 / seconds },
            reasons: totals
                .reasons
                .iter()
                .filter(|(_, n)| **n > 0)
                .map(|(reason, n)| (*reason, *n))
                .collect(),
            latency: totals.latency.clone(),
            request_bytes: totals.request_bytes,
            response_bytes: totals.response_bytes,
            connections: totals.connections,
        }
    }

    /// True when nothing happened.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests == 0 && self.connections == 0 && self.request_bytes == 0 && self.response_bytes == 0
    }

    /// Adds other calls.
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        self.secured = self.secured.saturating_add(other.secured);
        self.rate += other.rate;
        for (reason, count) in &other.reasons {
            let sum = self.reasons.entry(*reason).or_default();
            *sum = sum.saturating_add(*count);
        }
        self.latency.merge(&other.latency);
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
        self.connections = self.connections.saturating_add(other.connections);
    }

    /// Notes what the other side says about the *same* calls: reasons and failures that only it knows.
    pub(crate) fn confirm(&mut self, other_side: &Self) {
        for (reason, count) in &other_side.reasons {
            let known = self.reasons.entry(*reason).or_default();
            *known = (*known).max((*count).min(self.requests));
        }
        self.reasons.retain(|_, count| *count > 0);
        self.failures = self.failures.max(other_side.failures.min(self.requests));
    }

    /// Requests that a proxy ended.
    pub(crate) fn refused(&self) -> u64 {
        self.reasons.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Requests that did not fail.
    pub(crate) fn successes(&self) -> u64 {
        self.requests.saturating_sub(self.failures)
    }

    /// The most frequent reason.
    pub(crate) fn top_reason(&self) -> Option<(Reason, u64)> {
        self.reasons.iter().max_by_key(|(_, count)| **count).map(|(reason, count)| (*reason, *count))
    }

    /// A quantile of the latency in microseconds; None when nothing was measured.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<u64> {
        (self.latency.count() > 0).then(|| self.latency.quantile(quantile))
    }

    /// The numbers, for documents.
    pub(crate) fn numbers(&self) -> Numbers {
        let ratio = |part: u64| (self.requests > 0).then(|| round(part as f64 / self.requests as f64, 6));
        let millis = |q| self.quantile(q).map(|micros| micros as f64 / 1000.0);
        Numbers {
            requests: self.requests,
            failures: self.failures,
            requests_per_second: round(self.rate, 3),
            success_ratio: ratio(self.successes()),
            secured_ratio: ratio(self.secured),
            p50_millis: millis(0.5),
            p95_millis: millis(0.95),
            p99_millis: millis(0.99),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            connections: self.connections,
            reasons: self.reasons.iter().map(|(reason, count)| (reason.code(), *count)).collect(),
        }
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// Numbers of one row, in JSON and YAML. Ratios are from 0 to 1; null: nothing to measure.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Numbers {
    requests: u64,
    failures: u64,
    requests_per_second: f64,
    success_ratio: Option<f64>,
    secured_ratio: Option<f64>,
    p50_millis: Option<f64>,
    p95_millis: Option<f64>,
    p99_millis: Option<f64>,
    request_bytes: u64,
    response_bytes: u64,
    connections: u64,
    reasons: BTreeMap<&'static str, u64>,
}
