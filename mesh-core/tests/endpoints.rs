//! Properties of affinity, ejection, health and locality.

use std::time::Duration;

use mesh_core::{
    balance::{
        hash::hash,
        health::Checked,
        locality::local_share,
        maglev::Maglev,
        outlier::{Record, most_ejected},
        ring::Ring,
        slow_start::factor,
    },
    settings::{HealthCheck, HealthKind, Outlier, Share},
};
use proptest::{collection::vec, prelude::*};

const SECOND: u64 = 1_000_000_000;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("10.0.{}.{}:80", i / 256, i % 256)).collect()
}

/// Calls of `keys` keys, by endpoint.
fn spread(count: usize, keys: u64, pick: impl Fn(u64) -> Option<usize>) -> Vec<u32> {
    let mut found = vec![0; count];
    for key in 0..keys {
        let picked = pick(hash(&key.to_be_bytes(), 0));
        assert!(picked.is_some(), "nobody for {key}");
        found[picked.unwrap_or_default()] += 1;
    }
    found
}

#[test]
fn keys_spread_over_all_endpoints() {
    let all = names(10);
    let (ring, maglev) = (Ring::new(&all), Maglev::new(&all));
    let by_ring = spread(10, 20_000, |hash| ring.pick(hash, |_| true));
    let by_maglev = spread(10, 20_000, |hash| maglev.pick(hash, |_| true));
    assert!(by_ring.iter().all(|n| (1_200..3_200).contains(n)), "{by_ring:?}");
    assert!(by_maglev.iter().all(|n| (1_800..2_200).contains(n)), "{by_maglev:?}");
}

#[test]
fn when_one_goes_the_keys_of_the_others_stay() {
    let all = names(20);
    let (ring, maglev) = (Ring::new(&all), Maglev::new(&all));
    let fewer = &all[..19];
    let (small_ring, small_maglev) = (Ring::new(fewer), Maglev::new(fewer));
    let mut moved = [0; 2];
    for key in 0..10_000_u64 {
        let hash = hash(&key.to_be_bytes(), 0);
        let before = ring.pick(hash, |_| true).unwrap();
        if before != 19 {
            // One that is left out, or gone, takes nobody else's keys along.
            assert_eq!(ring.pick(hash, |e| e != 19), Some(before));
            assert_eq!(small_ring.pick(hash, |_| true), Some(before));
        }
        let before = maglev.pick(hash, |_| true).unwrap();
        if before != 19 {
            assert_eq!(maglev.pick(hash, |e| e != 19), Some(before));
            moved[1] += u32::from(small_maglev.pick(hash, |_| true) != Some(before));
        }
    }
    assert!(moved[1] < 1_000, "Maglev moves few: {moved:?}");
}

#[test]
fn large_sets_and_small_ones() {
    for count in [0, 1, 2, 500, 10_000] {
        let all = names(count);
        let (ring, maglev) = (Ring::new(&all), Maglev::new(&all));
        for key in 0..100_u64 {
            let (by_ring, by_maglev) =
                (ring.pick(hash(&[7], key), |_| true), maglev.pick(hash(&[7], key), |_| true));
            assert_eq!(by_ring.is_some(), count > 0);
            assert!(by_ring.is_none_or(|e| e < count) && by_maglev.is_none_or(|e| e < count));
            assert_eq!(by_maglev.is_some(), count > 0);
            assert_eq!(ring.pick(key, |_| false), None);
            assert_eq!(maglev.pick(key, |_| false), None);
        }
    }
}

proptest! {
    #[test]
    fn affinity_does_not_depend_on_the_order(count in 1_usize..40, turn in 0_usize..40, key: u64) {
        let all = names(count);
        let mut turned = all.clone();
        turned.rotate_left(turn % count);
        let same = |a: Option<usize>, b: Option<usize>| a.map(|i| &all[i]) == b.map(|i| &turned[i]);
        prop_assert!(same(Ring::new(&all).pick(key, |_| true), Ring::new(&turned).pick(key, |_| true)));
        prop_assert!(same(Maglev::new(&all).pick(key, |_| true), Maglev::new(&turned).pick(key, |_| true)));
    }

    /// Only failures eject, only after enough of them, and never for longer than the limit.
    #[test]
    fn ejection_is_bounded(calls in vec((any::<bool>(), 0..40 * SECOND), 0..200), limit in 1_u32..6) {
        let settings = Outlier { consecutive: Some(limit), ..Outlier::default() };
        let (mut record, mut now, mut row) = (Record::default(), 0, 0);
        for (failed, after) in calls {
            now += after;
            let out = record.is_ejected(now);
            let ejected = record.count(now, failed, &settings);
            prop_assert!(!(out && ejected), "once is enough");
            row = if out { 0 } else if failed { row + 1 } else { 0 };
            prop_assert_eq!(ejected, row >= limit && !out);
            if ejected {
                row = 0;
                let until = record.ejected_until() - now;
                prop_assert!((30 * SECOND..=300 * SECOND).contains(&until));
            }
        }
    }

    #[test]
    fn one_endpoint_always_stays(count in 0_usize..10_000, percent in 0_u32..=100) {
        let settings = Outlier { max_ejected: Share::of(percent, 100), ..Outlier::default() };
        prop_assert!(most_ejected(count, &settings) <= count.saturating_sub(1));
    }

    #[test]
    fn health_needs_a_row_of_answers(answers in vec(any::<bool>(), 0..60), unhealthy in 1_u32..5, healthy in 1_u32..5) {
        let second = Duration::from_secs(1);
        let settings = HealthCheck { kind: HealthKind::Tcp, interval: second, timeout: second, unhealthy, healthy };
        let mut checked = Checked::default();
        for end in 1..=answers.len() {
            let (before, good) = (checked.is_healthy(), answers[end - 1]);
            let changed = checked.count(good, &settings);
            prop_assert_eq!(changed, before != checked.is_healthy());
            if changed {
                let needed = if good { healthy } else { unhealthy } as usize;
                prop_assert!(end >= needed && answers[end - needed..end].iter().all(|a| *a == good));
            }
        }
    }

    #[test]
    fn the_own_zone_takes_what_it_can_bear(usable in 0_usize..50, more in 0_usize..50, elsewhere in 0_usize..50) {
        let all = usable + more;
        let share = local_share(usable, all, elsewhere);
        prop_assert_eq!(share == Share::default(), usable == 0);
        if usable > 0 && (elsewhere == 0 || usable * 14 >= all * 10) {
            prop_assert_eq!(share, Share::ALL);
        }
    }
}

#[test]
fn a_low_success_rate_ejects_and_repeats_cost_more() {
    let settings = Outlier {
        consecutive: None,
        success_rate: Some(Share::of(80, 100)),
        min_requests: 10,
        ..Outlier::default()
    };
    let mut record = Record::default();
    let mut out = Vec::new();
    for round in 0..3_u64 {
        let begin = record.ejected_until().max(round);
        let calls =
            (0..30).find(|call| record.count(begin + call, call % 3 == 2, &settings)).expect("ejected");
        assert!(calls >= 9, "enough calls before it is judged: {calls}");
        out.push((record.ejected_until() - begin) / SECOND);
    }
    assert_eq!(out, [30, 60, 90]);
}

#[test]
fn a_new_endpoint_begins_slowly() {
    let window = Duration::from_secs(10);
    let at = |seconds: u64| factor(Duration::from_secs(seconds), window);
    assert_eq!((at(0), at(5), at(10), at(11)), (0.1, 0.5, 1.0, 1.0));
    assert_eq!(factor(Duration::ZERO, Duration::ZERO), 1.0);
}
