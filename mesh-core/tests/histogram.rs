//! Properties of the latency histogram.

use mesh_core::histogram::{BUCKETS, Histogram, bucket, upper_bound};
use proptest::{collection::vec, prelude::*};

/// Largest value that has a bucket of its own, in microseconds.
const LARGEST: u64 = (1 << 27) - 1;

fn filled(values: &[u64]) -> Histogram {
    let mut histogram = Histogram::default();
    values.iter().for_each(|value| histogram.record(*value));
    histogram
}

fn value() -> impl Strategy<Value = u64> {
    (0..27_u32, any::<u64>()).prop_map(|(power, bits)| bits % (1 << power).max(1))
}

#[test]
fn buckets_are_inverse_to_their_bounds() {
    assert_eq!(upper_bound(BUCKETS - 2), LARGEST);
    for index in 0..BUCKETS - 1 {
        let upper = upper_bound(index);
        assert_eq!(bucket(upper), index, "the bound belongs to the bucket");
        assert_eq!(bucket(upper + 1), index + 1, "and the next value to the next");
        assert!(upper_bound(index + 1) > upper);
    }
    assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    assert_eq!(upper_bound(usize::MAX), u64::MAX);
}

proptest! {
    #[test]
    fn buckets_are_monotone_and_narrow(one: u64, other in value()) {
        let (low, high) = (one.min(other), one.max(other));
        prop_assert!(bucket(low) <= bucket(high));
        prop_assert!(bucket(high) < BUCKETS);
        let upper = upper_bound(bucket(other));
        prop_assert!(upper >= other && upper - other <= other / 8, "{other} is told as {upper}");
    }

    /// Against the exact quantile: never below, at most 12.5 % above.
    #[test]
    fn quantiles_are_near(mut values in vec(value(), 1..200), quantile in 0.0..=1.0_f64) {
        let told = filled(&values).quantile(quantile);
        values.sort_unstable();
        let rank = ((values.len() as f64 * quantile).ceil() as usize).max(1);
        let exact = values[rank - 1];
        prop_assert!(told >= exact && told as f64 <= exact as f64 * 1.125, "{told} for {exact}");
    }

    #[test]
    fn merged_is_recorded_together(one in vec(value(), 0..50), other in vec(value(), 0..50)) {
        let mut merged = filled(&one);
        merged.merge(&filled(&other));
        let together: Vec<u64> = one.iter().chain(&other).copied().collect();
        prop_assert_eq!(&merged, &filled(&together));
        prop_assert_eq!(merged.count(), together.len() as u64);
        prop_assert_eq!(merged.sum_micros(), together.iter().sum::<u64>());
        prop_assert_eq!(merged.since(&filled(&one)), filled(&other));
        prop_assert_eq!(merged.since(&merged).count(), 0);
    }

    /// Peers send counts: nothing overflows.
    #[test]
    fn totals_saturate(counts in vec((any::<usize>(), any::<u64>(), any::<u64>()), 0..10), quantile: f64) {
        let mut histogram = Histogram::default();
        for (index, count, sum) in &counts {
            histogram.add(*index, *count, *sum);
        }
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        prop_assert!(twice.count() >= histogram.count());
        prop_assert_eq!(twice.quantile(quantile) == 0, twice.quantile(quantile) < 1);
        prop_assert_eq!(Histogram::default().since(&twice), Histogram::default());
    }
}

#[test]
fn ends_of_the_scale() {
    assert_eq!(Histogram::default().quantile(0.99), 0);
    let huge = filled(&[u64::MAX]);
    assert_eq!((huge.quantile(0.5), huge.sum_micros()), (LARGEST + 1, u64::MAX));
    assert_eq!(filled(&[5, 6]).quantile(f64::NAN), 5, "not a number counts as 0");
}
