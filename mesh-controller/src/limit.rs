//! A token bucket, for what callers may do only so often. The clock is a parameter.

use std::time::{Duration, Instant};

/// Allows `burst` at once and `per_second` in the long run.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    burst: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(burst: u32, per_second: f64, now: Instant) -> Self {
        Self { burst: f64::from(burst), per_second, left: f64::from(burst), at: now }
    }

    /// Takes one; false when it is empty.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let has = self.left >= 1.0;
        if has {
            self.left -= 1.0;
        }
        has
    }

    /// Takes `count`, going into debt if need be, and says how long the debtor must wait.
    pub(crate) fn charge(&mut self, count: usize, now: Instant) -> Duration {
        self.refill(now);
        self.left -= count as f64;
        Duration::from_secs_f64((-self.left).max(0.0) / self.per_second)
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + gained).min(self.burst);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_then_trickles() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, 2.0, start);
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert!(!bucket.take(start + Duration::from_millis(400)));
        assert!(bucket.take(start + Duration::from_millis(600)));
        let later = start + Duration::from_secs(60);
        assert_eq!(bucket.charge(3, later), Duration::ZERO);
        assert_eq!(bucket.charge(4, later), Duration::from_secs(2));
    }
}
