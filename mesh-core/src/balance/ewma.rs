//! Peak EWMA: an endpoint's latency as an exponentially weighted average that rises at once and falls slowly
//! (Finagle's "peak EWMA"). Cost is latency times requests in flight.

/// Time for the average to fall to 1/e without new samples, in nanoseconds: 10 s.
pub const DECAY_NANOS: u64 = 10_000_000_000;
/// Latency that an endpoint without samples is believed to have, in nanoseconds: 30 ms. New endpoints get some
/// traffic, not all of it.
pub const INITIAL_NANOS: f64 = 30_000_000.0;

/// Load of one endpoint.
#[derive(Clone, Debug)]
pub struct PeakEwma {
    average: f64,
    updated: u64,
    pending: u32,
}

impl PeakEwma {
    /// An endpoint that was never called; `now` in nanoseconds of a monotonic clock.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self { average: INITIAL_NANOS, updated: now, pending: 0 }
    }

    /// Requests in flight.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// What one more request costs here: lower is better.
    #[must_use]
    pub fn cost(&self, now: u64) -> f64 {
        self.decayed(now, 0.0) * (f64::from(self.pending) + 1.0)
    }

    /// Counts a request that was sent.
    pub fn start(&mut self) {
        self.pending = self.pending.saturating_add(1);
    }

    /// Counts a response (or failure) that took `latency` nanoseconds.
    pub fn finish(&mut self, now: u64, latency: u64) {
        self.pending = self.pending.saturating_sub(1);
        let sample = latency as f64;
        self.average = if sample > self.average { sample } else { self.decayed(now, sample) };
        self.updated = self.updated.max(now);
    }

    /// Counts a request that ended without telling anything about the endpoint (the caller went away).
    pub fn abandon(&mut self) {
        self.pending = self.pending.saturating_sub(1);
    }

    fn decayed(&self, now: u64, towards: f64) -> f64 {
        let age = now.saturating_sub(self.updated) as f64 / DECAY_NANOS as f64;
        let keep = (-age).exp();
        self.average * keep + towards * (1.0 - keep)
    }
}
