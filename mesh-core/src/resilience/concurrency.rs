//! A limit of requests in flight that follows the application: while it answers as fast as it can, the limit grows;
//! when answers take longer than they used to, requests queue somewhere, and the limit shrinks by that ratio.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::settings::AdaptiveConcurrency;

/// Shortest time between two adjustments, in nanoseconds: 100 ms.
const WINDOW: u64 = 100_000_000;
/// Fewest answers that an adjustment is made of.
const MIN_SAMPLES: u32 = 10;
/// How much slower than usual answers may be before the limit shrinks.
const TOLERANCE: f64 = 1.5;
/// Share of a new measurement in the usual latency.
const LEARNING: f64 = 0.2;
/// Share of the new limit in the next one.
const SMOOTHING: f64 = 0.5;

/// The state, shared by workers.
#[derive(Debug)]
pub struct Concurrency {
    in_flight: AtomicU32,
    limit: AtomicU32,
    /// Most in flight at a time, in this window.
    peak: AtomicU32,
    samples: AtomicU32,
    sum: AtomicU64,
    began: AtomicU64,
    adjusting: AtomicBool,
    /// Usual latency in nanoseconds; 0: not known yet.
    usual: AtomicU64,
}

impl Concurrency {
    /// Begins in the middle: ten times the smallest limit.
    #[must_use]
    pub fn new(settings: &AdaptiveConcurrency) -> Self {
        let limit = settings.min.saturating_mul(10).clamp(settings.min.max(1), settings.max.max(1));
        Self {
            in_flight: AtomicU32::new(0),
            limit: AtomicU32::new(limit),
            peak: AtomicU32::new(0),
            samples: AtomicU32::new(0),
            sum: AtomicU64::new(0),
            began: AtomicU64::new(0),
            adjusting: AtomicBool::new(false),
            usual: AtomicU64::new(0),
        }
    }

    /// The limit of this moment.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Begins a request; false: there are too many. Each that began must [`Self::end`].
    #[must_use]
    pub fn begin(&self) -> bool {
        let limit = self.limit();
        let more = |count: u32| (count < limit).then_some(count + 1);
        match self.in_flight.try_update(Relaxed, Relaxed, more) {
            Ok(before) => {
                self.peak.fetch_max(before + 1, Relaxed);
                true
            }
            Err(_) => {
                self.peak.fetch_max(limit, Relaxed);
                false
            }
        }
    }

    /// Ends a request at `now` (nanoseconds of a monotonic clock). `latency` is in nanoseconds; None: it ended without
    /// an answer, which says nothing.
    pub fn end(&self, settings: &AdaptiveConcurrency, now: u64, latency: Option<u64>) {
        self.in_flight.fetch_sub(1, Relaxed);
        let Some(latency) = latency else { return };
        self.sum.fetch_add(latency, Relaxed);
        let samples = self.samples.fetch_add(1, Relaxed) + 1;
        let due = now.saturating_sub(self.began.load(Relaxed)) >= WINDOW && samples >= MIN_SAMPLES;
        if due && !self.adjusting.swap(true, Relaxed) {
            self.adjust(settings, now);
            self.adjusting.store(false, Relaxed);
        }
    }

    fn adjust(&self, settings: &AdaptiveConcurrency, now: u64) {
        let samples = self.samples.swap(0, Relaxed);
        let sum = self.sum.swap(0, Relaxed);
        let peak = self.peak.swap(self.in_flight(), Relaxed);
        self.began.store(now, Relaxed);
        if samples == 0 {
            return;
        }
        let latency = sum as f64 / f64::from(samples);
        let before = f64::from_bits(self.usual.load(Relaxed));
        let limit = f64::from(self.limit());
        let min = settings.min.max(1);
        // Slower answers become usual only while no queue of the limit's own making can be why: else the limit would
        // follow the queue that it allows.
        let unhurried = f64::from(peak) * 2.0 < limit || self.limit() <= min;
        let usual = match before {
            0.0 => latency,
            _ if latency < before || unhurried => latency * LEARNING + before * (1.0 - LEARNING),
            _ => before,
        };
        self.usual.store(usual.to_bits(), Relaxed);
        let gradient = (usual * TOLERANCE / latency.max(1.0)).clamp(0.5, 1.0);
        let wanted = if gradient < 1.0 {
            limit * gradient
        } else if f64::from(peak) * 2.0 >= limit {
            // Only a limit that is nearly reached tells something by being higher.
            limit + limit.sqrt()
        } else {
            limit
        };
        let next = limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        // Rounded away from where it is, so that it moves at all.
        let next = if wanted > limit { next.ceil() } else { next.floor() };
        self.limit.store((next as u32).clamp(min, settings.max.max(min)), Relaxed);
    }
}
