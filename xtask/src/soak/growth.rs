//! Whether a process grows, from samples of its memory.
//!
//! The first quarter of the samples is warm-up: pools, caches and the allocator fill. The rest is cut into three. The
//! process grows if the median of the last third exceeds that of the first by more than the larger of 1 MB and 5 %.
//! Medians leave out peaks, and a third of the time is long enough for what comes and goes.

/// Bytes that are no growth.
const SLACK: u64 = 1_000_000;
/// Share of the memory that is no growth.
const SHARE: f64 = 0.05;

/// Samples of one process at equal distances.
pub(super) struct Series {
    pub(super) name: &'static str,
    bytes: Vec<u64>,
}

/// What they say.
#[derive(Debug, PartialEq)]
pub(super) struct Growth {
    /// Median of the first third after warm-up, in bytes.
    pub(super) first: u64,
    /// Median of the last third.
    pub(super) last: u64,
    /// The largest sample of all.
    pub(super) peak: u64,
}

impl Series {
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, bytes: Vec::new() }
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes.push(bytes);
    }

    /// None: there are too few samples.
    pub(super) fn growth(&self) -> Option<Growth> {
        let warm = self.bytes.get(self.bytes.len() / 4..)?;
        let third = warm.len() / 3;
        let (first, last) = (warm.get(..third)?, warm.get(warm.len() - third..)?);
        Some(Growth { first: median(first)?, last: median(last)?, peak: *self.bytes.iter().max()? })
    }
}

impl Growth {
    /// True if that is more than comes and goes.
    pub(super) fn is_too_much(&self) -> bool {
        let slack = SLACK.max((self.first as f64 * SHARE) as u64);
        self.last > self.first + slack
    }
}

fn median(bytes: &[u64]) -> Option<u64> {
    let mut sorted = bytes.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(samples: impl IntoIterator<Item = u64>) -> Growth {
        let mut series = Series::new("some");
        samples.into_iter().for_each(|bytes| series.add(bytes));
        series.growth().expect("enough samples")
    }

    #[test]
    fn warm_up_and_peaks_are_no_growth() {
        let warm = (0..30).map(|step| step * 1_000_000).chain(vec![30_000_000; 90]);
        assert_eq!(growth(warm), Growth { first: 30_000_000, last: 30_000_000, peak: 30_000_000 });
        let peaks = (0..120).map(|step| if step % 10 == 0 { 90_000_000 } else { 30_000_000 });
        let peaks = growth(peaks);
        assert!(!peaks.is_too_much() && peaks.peak == 90_000_000);
    }

    #[test]
    fn a_leak_is_growth() {
        // 3 MB in all, of which half lies between the medians.
        assert!(growth((0..120).map(|step| 10_000_000 + step * 25_000)).is_too_much());
        assert!(!growth((0..120).map(|step| 10_000_000 + step * 5_000)).is_too_much());
        // 5 % of what is large is more than 1 MB.
        assert!(!growth((0..120).map(|step| 60_000_000 + step * 25_000)).is_too_much());
        assert!(Series::new("none").growth().is_none());
    }
}
