//! Properties of balancing among endpoints.

use mesh_core::balance::{
    ewma::{DECAY_NANOS, INITIAL_NANOS, PeakEwma},
    p2c,
};
use proptest::{collection::vec, prelude::*};

const MILLI: u64 = 1_000_000;

proptest! {
    #[test]
    fn picks_the_cheaper_of_two_different(costs in vec(0.0..1e12_f64, 1..20), random: u64) {
        let mut asked = Vec::new();
        let picked = p2c::pick(costs.len(), random, |index| { asked.push(index); costs[index] });
        asked.sort_unstable();
        asked.dedup();
        let picked = picked.expect("not empty");
        if costs.len() > 1 {
            prop_assert_eq!(asked.len(), 2, "two that differ");
            prop_assert!(asked.contains(&picked));
            prop_assert!(asked.iter().all(|other| costs[picked] <= costs[*other]));
        }
    }

    #[test]
    fn everyone_gets_a_turn_and_the_worst_none(count in 2_usize..12, seed: u64) {
        let mut picked = vec![0_u32; count];
        let mut random = seed | 1;
        for _ in 0..200 * count {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mixed = random ^ (random >> 29) ^ (random << 17);
            picked[p2c::pick(count, mixed, |index| if index == 0 { 1.0 } else { 0.0 }).expect("not empty")] += 1;
        }
        prop_assert_eq!(picked[0], 0, "the dearest loses every comparison");
        prop_assert!(picked[1..].iter().all(|n| *n > 0), "{picked:?}");
    }

    #[test]
    fn cost_is_always_a_number(events in vec((0..4_u8, any::<u64>(), any::<u64>()), 0..50), start: u64) {
        let mut load = PeakEwma::new(start);
        for (event, now, latency) in events {
            match event {
                0 => load.start(),
                1 => load.abandon(),
                _ => load.finish(now, latency),
            }
            let cost = load.cost(now);
            prop_assert!(cost.is_finite() && cost >= 0.0, "{cost}");
        }
    }

    #[test]
    fn a_peak_counts_at_once_and_fades(latency in 31 * MILLI..10_000 * MILLI, later in 1..20_u64) {
        let mut load = PeakEwma::new(0);
        load.start();
        load.finish(0, latency);
        prop_assert_eq!(load.cost(0), latency as f64);
        let faded = load.cost(later * DECAY_NANOS);
        let wanted = latency as f64 * (-(later as f64)).exp();
        prop_assert!((faded - wanted).abs() <= wanted * 1e-9);
    }

    #[test]
    fn between_peak_and_sample(peak in 40 * MILLI..1000 * MILLI, sample in 0..30 * MILLI, after in 0..DECAY_NANOS * 3) {
        let mut load = PeakEwma::new(0);
        load.finish(0, peak);
        load.finish(after, sample);
        let cost = load.cost(after);
        prop_assert!(cost <= peak as f64 && cost >= sample as f64 - 1.0, "{cost}");
    }

    #[test]
    fn each_request_in_flight_costs(pending in 1..50_u32) {
        let mut load = PeakEwma::new(0);
        for _ in 0..pending {
            load.start();
        }
        prop_assert_eq!(load.cost(0), INITIAL_NANOS * f64::from(pending + 1));
        prop_assert_eq!(load.pending(), pending);
        load.abandon();
        prop_assert_eq!(load.pending(), pending - 1);
    }
}

#[test]
fn nobody_and_somebody() {
    assert_eq!(p2c::pick(0, 7, |_| 0.0), None);
    assert_eq!(p2c::pick(1, u64::MAX, |_| f64::NAN), Some(0));
    for random in [0, 1, u64::MAX, u64::MAX << 32, u64::MAX >> 32] {
        assert!(p2c::pick(3, random, |_| 0.0).is_some_and(|index| index < 3));
    }
}

#[test]
fn a_response_that_was_not_asked_for_changes_no_count() {
    let mut load = PeakEwma::new(0);
    load.finish(1, 1);
    load.abandon();
    assert_eq!(load.pending(), 0);
}
