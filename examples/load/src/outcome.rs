//! What clients saw: latencies and failures.

use std::time::Duration;

use serde_json::{Value, json};

/// What one or more clients saw.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Nanoseconds of each exchange that went well.
    latencies: Vec<u64>,
    /// Exchanges that did not.
    failed: u64,
}

impl Outcome {
    /// Notes an exchange that went well.
    pub(crate) fn passed(&mut self, latency: Duration) {
        self.latencies.push(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Notes an exchange that failed.
    pub(crate) fn failed(&mut self) {
        self.failed += 1;
    }

    /// Adds what another client saw.
    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.failed += other.failed;
    }

    /// Count, failures, seconds, and percentiles in microseconds.
    pub(crate) fn into_json(mut self, took: Duration) -> Value {
        self.latencies.sort_unstable();
        json!({
            "requests": self.latencies.len(),
            "failed": self.failed,
            "seconds": took.as_secs_f64(),
            "p50_us": percentile(&self.latencies, 0.5),
            "p99_us": percentile(&self.latencies, 0.99),
            "p999_us": percentile(&self.latencies, 0.999),
            "max_us": percentile(&self.latencies, 1.0),
        })
    }
}

#[cfg(test)]
impl Outcome {
    /// Sum of all latencies.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.latencies.iter().sum())
    }
}

/// Microseconds that a share of `quantile` (0 to 1) did not exceed, of nanoseconds in ascending order: nearest rank.
pub(crate) fn percentile(sorted: &[u64], quantile: f64) -> f64 {
    let rank = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).map_or(0.0, |nanoseconds| *nanoseconds as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let sorted: Vec<u64> = (1..=1000).map(|value| value * 1000).collect();
        assert_eq!(percentile(&sorted, 0.5), 500.0);
        assert_eq!(percentile(&sorted, 0.99), 990.0);
        assert_eq!(percentile(&sorted, 0.999), 999.0);
        assert_eq!(percentile(&sorted, 1.0), 1000.0);
        assert_eq!(percentile(&[7000], 0.5), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn outcomes_add_up() {
        let (mut one, mut two) = (Outcome::default(), Outcome::default());
        one.passed(Duration::from_micros(30));
        one.failed();
        two.passed(Duration::from_micros(10));
        one.add(two);
        let told = one.into_json(Duration::from_secs(2));
        assert_eq!((told["requests"].as_u64(), told["failed"].as_u64()), (Some(2), Some(1)));
        assert_eq!((told["p50_us"].as_f64(), told["max_us"].as_f64()), (Some(10.0), Some(30.0)));
    }
}
