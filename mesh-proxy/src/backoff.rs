//! Waits between attempts: exponential, with jitter, so that proxies do not come back all at once.

use std::time::Duration;

/// Waits that double from `first` up to `most`, each drawn from its upper half.
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from `first` to `most`.
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next wait. `random` is uniform over 0 to 1.
    pub(crate) fn next(&mut self, random: f64) -> Duration {
        let wait = self.next.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0));
        self.next = self.next.saturating_mul(2).min(self.most);
        wait
    }

    /// Begins anew: the last attempt worked.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_most_and_begins_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let waits: Vec<u128> = (0..8).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.next(0.0).as_millis(), 2500);
        backoff.reset();
        assert_eq!(backoff.next(0.0).as_millis(), 50);
    }
}
