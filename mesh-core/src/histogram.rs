//! Latency histogram with fixed buckets that proxies, controller and tools share.
//!
//! Buckets are log-linear: 8 per power of two of microseconds, so a quantile is off by at most 12.5 %.

/// Number of buckets: up to 2^27 µs (134 s); longer goes to the last.
pub const BUCKETS: usize = 8 + 24 * 8 + 1;

/// Index of the bucket for a value in microseconds.
#[must_use]
pub fn bucket(micros: u64) -> usize {
    if micros < 8 {
        return micros as usize;
    }
    let power = 63 - micros.leading_zeros() as usize;
    let step = (micros >> (power - 3)) as usize & 7;
    (8 + (power - 3) * 8 + step).min(BUCKETS - 1)
}

/// Largest value of a bucket, in microseconds; the last bucket has none (`u64::MAX`).
#[must_use]
pub fn upper_bound(bucket: usize) -> u64 {
    match bucket {
        0..8 => bucket as u64,
        b if b >= BUCKETS - 1 => u64::MAX,
        b => {
            let (power, step) = ((b - 8) / 8, (b - 8) % 8);
            ((8 + step as u64 + 1) << power) - 1
        }
    }
}

/// Counts by bucket, with the sum of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    sum_micros: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), sum_micros: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, micros: u64) {
        self.add(bucket(micros), 1, micros);
    }

    /// Adds `count` values to a bucket, whose sum is `sum_micros`. A bucket that does not exist counts as the last.
    pub fn add(&mut self, bucket: usize, count: u64, sum_micros: u64) {
        if let Some(slot) = self.counts.get_mut(bucket.min(BUCKETS - 1)) {
            *slot = slot.saturating_add(count);
        }
        self.sum_micros = self.sum_micros.saturating_add(sum_micros);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in other.iter() {
            self.add(bucket, count, 0);
        }
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// What was added since `earlier`, which is an older state of the same histogram.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut out = self.clone();
        for (slot, old) in out.counts.iter_mut().zip(earlier.counts.iter()) {
            *slot = slot.saturating_sub(*old);
        }
        out.sum_micros = out.sum_micros.saturating_sub(earlier.sum_micros);
        out
    }

    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Sum of the values, in microseconds.
    #[must_use]
    pub fn sum_micros(&self) -> u64 {
        self.sum_micros
    }

    /// Buckets that are not empty, ascending, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }

    /// The value, in microseconds, that a share `quantile` (0 to 1) of the values does not exceed; 0 when empty.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> u64 {
        let rank = (self.count() as f64 * quantile.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0_u64;
        for (bucket, count) in self.iter() {
            seen = count.saturating_add(seen);
            if seen >= rank {
                return upper_bound(bucket).min(upper_bound(BUCKETS - 2) + 1);
            }
        }
        0
    }
}
