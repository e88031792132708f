//! Budgets, limits and deadlines over time.

use std::{sync::Arc, time::Duration};

use http::Method;
use mesh_core::{
    name::ObjectRef,
    resilience::{
        breaker::{Breaker, Kind},
        budget::BudgetState,
        concurrency::Concurrency,
        deadline,
        rate::{Bucket, Buckets, Rate},
        retry::{Failed, again, backoff},
    },
    settings::{AdaptiveConcurrency, RateKey, RateLimit, Retry, RetryBudget, RetryOn, Share},
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn policy() -> ObjectRef {
    ObjectRef::new("TrafficPolicy", "shop", "catalog")
}

fn limit(requests: u32, interval: Duration, burst: u32) -> RateLimit {
    RateLimit { object: policy(), per: RateKey::Total, requests, interval, burst }
}

#[test]
fn deadlines_of_grpc() {
    for (text, expected) in [
        ("5S", Some(Duration::from_secs(5))),
        ("100m", Some(Duration::from_millis(100))),
        ("99999999n", Some(Duration::from_nanos(99_999_999))),
        ("1u", Some(Duration::from_micros(1))),
        ("2M", Some(Duration::from_secs(120))),
        ("1H", Some(Duration::from_secs(3600))),
        ("99999999H", None),
        ("0S", Some(Duration::ZERO)),
        ("", None),
        ("S", None),
        ("5", None),
        ("5s", None),
        ("-5S", None),
        ("+5S", None),
        ("123456789m", None),
        ("5é", None),
    ] {
        assert_eq!(deadline::parse_grpc(text), expected, "{text}");
    }
}

proptest! {
    #[test]
    fn what_is_left_survives_the_wire(nanos in 0..300_000_000_000_000_000_u64) {
        let left = Duration::from_nanos(nanos);
        let text = deadline::format_grpc(left);
        let read = deadline::parse_grpc(&text);
        prop_assert!(read.is_some_and(|read| read <= left && left - read <= left / 50_000 + Duration::from_nanos(1)), "{text}");
        let mesh = deadline::parse_mesh(&deadline::format_mesh(left).to_string());
        prop_assert!(mesh.is_some_and(|read| read <= left.max(Duration::from_millis(1))));
    }

    #[test]
    fn a_rate_is_never_exceeded(
        requests in 1..50_u32,
        burst in 1..20_u32,
        gaps in prop::collection::vec(0..200_000_000_u64, 1..300),
    ) {
        let rate = Rate::of(&limit(requests, Duration::from_secs(1), burst));
        let bucket = Bucket::default();
        let begin = SECOND;
        let (mut now, mut taken) = (begin, 0_u64);
        for gap in gaps {
            now += gap;
            match bucket.take(rate, now) {
                Ok(()) => taken += 1,
                // What it says about the future is true.
                Err(wait) => {
                    now += u64::try_from(wait.as_nanos()).unwrap();
                    prop_assert!(bucket.take(rate, now).is_ok());
                    taken += 1;
                }
            }
            let allowed = u64::from(burst) + (now - begin) * u64::from(requests) / SECOND + 1;
            prop_assert!(taken <= allowed, "{taken} of {allowed}");
        }
    }

    #[test]
    fn retries_are_bounded_by_requests(steps in prop::collection::vec((any::<bool>(), 0..400_u64), 1..500)) {
        let budget = RetryBudget {
            share: Share::of(20, 100),
            min_per_second: 1,
            interval: Duration::from_secs(10),
        };
        let mut state = BudgetState::default();
        let (mut now, mut requests, mut retries) = (Duration::from_secs(100), 0_u32, 0_u32);
        let begin = now;
        for (retry, gap) in steps {
            now += Duration::from_millis(gap);
            if retry {
                retries += u32::from(state.retry(&budget, now, 1));
            } else {
                state.request(&budget, now);
                requests += 1;
            }
            // Twice what is always allowed: at an interval's edge its estimate is of two of them.
            let windows = (now - begin).as_secs_f64() / 10.0 + 1.0;
            let allowed = f64::from(requests) * 0.2 + 2.0 * 10.0 * windows + 1.0;
            prop_assert!(f64::from(retries) <= allowed, "{retries} of {allowed}");
        }
    }

    #[test]
    fn waits_grow_and_stay_within_bounds(done in 0..10_u32, random: u64) {
        let retry = Retry {
            backoff: Some(Duration::from_millis(100)),
            max_backoff: Some(Duration::from_secs(1)),
            ..Retry::default()
        };
        let full = Duration::from_millis(100 << done).min(Duration::from_secs(1));
        let wait = backoff(Some(&retry), Failed::Reset, done, random);
        prop_assert!(full / 2 <= wait && wait <= full);
    }
}

#[test]
fn a_busy_service_may_retry_its_share_and_a_quiet_one_a_little() {
    let budget = RetryBudget { min_per_second: 0, ..RetryBudget::default() };
    let mut state = BudgetState::default();
    let now = Duration::from_secs(50);
    assert!(!state.retry(&budget, now, 1), "no requests, and nothing is always allowed");
    for _ in 0..100 {
        state.request(&budget, now);
    }
    let granted = (0..100).filter(|_| state.retry(&budget, now, 1)).count();
    assert_eq!(granted, 20);
    // Half of the interval before counts half.
    let later = now + Duration::from_secs(15);
    for _ in 0..10 {
        state.request(&budget, later);
    }
    assert!((0..100).filter(|_| state.retry(&budget, later, 1)).count() <= 3);
    let mut quiet = BudgetState::default();
    let little = RetryBudget { min_per_second: 1, ..RetryBudget::default() };
    assert_eq!((0..100).filter(|_| quiet.retry(&little, now, 2)).count(), 5, "shared by two workers");
}

#[test]
fn what_is_tried_again() {
    let configured = |on: &[RetryOn], non_idempotent| Retry {
        retries: 3,
        on: on.to_vec(),
        non_idempotent,
        ..Retry::default()
    };
    let everything = [
        RetryOn::ConnectFailure,
        RetryOn::Reset,
        RetryOn::Timeout,
        RetryOn::Status(429),
        RetryOn::ServerError,
        RetryOn::Grpc(14),
    ];
    let (all, bold) = (configured(&everything, false), configured(&everything, true));
    let none = configured(&[], false);
    for (failed, post_default, get_default, get_none, post_all, get_all, post_bold) in [
        (Failed::Unconnected, true, true, true, true, true, true),
        (Failed::Unprocessed, true, true, true, true, true, true),
        (Failed::Reset, false, false, false, false, true, true),
        (Failed::Timeout, false, false, false, false, true, true),
        (Failed::Status(503), false, false, false, false, true, true),
        (Failed::Status(429), false, false, false, false, true, true),
        (Failed::Status(404), false, false, false, false, false, false),
        (Failed::Grpc(14), false, false, false, true, true, true),
        (Failed::Grpc(13), false, false, false, false, false, false),
    ] {
        assert_eq!(again(None, failed, &Method::POST, 0), post_default, "{failed:?}");
        assert_eq!(again(None, failed, &Method::GET, 0), get_default, "{failed:?}");
        assert_eq!(again(Some(&none), failed, &Method::GET, 0), get_none, "{failed:?}");
        assert_eq!(again(Some(&all), failed, &Method::POST, 0), post_all, "{failed:?}");
        assert_eq!(again(Some(&all), failed, &Method::GET, 0), get_all, "{failed:?}");
        assert_eq!(again(Some(&bold), failed, &Method::POST, 0), post_bold, "{failed:?}");
    }
    assert!(again(None, Failed::Unconnected, &Method::GET, 1), "three tries");
    assert!(!again(None, Failed::Unconnected, &Method::GET, 2), "three tries");
    assert!(again(Some(&all), Failed::Status(503), &Method::GET, 2));
    assert!(!again(Some(&all), Failed::Status(503), &Method::GET, 3));
    assert_eq!(backoff(None, Failed::Unconnected, 0, u64::MAX), Duration::ZERO);
    assert!(backoff(None, Failed::Unconnected, 1, 0) > Duration::ZERO);
}

#[test]
fn a_breaker_counts_what_is_held() {
    let breaker = Arc::new(Breaker::default());
    let held: Vec<_> = (0..3).filter_map(|_| breaker.take(Kind::Requests, 2)).collect();
    assert_eq!((held.len(), breaker.count(Kind::Requests)), (2, 2));
    assert!(breaker.take(Kind::Pending, 1).is_some(), "each kind for itself");
    assert!(breaker.take(Kind::Connections, 0).is_none());
    drop(held);
    assert_eq!(breaker.count(Kind::Requests), 0);
}

#[test]
fn workers_share_a_breaker_without_exceeding_it() {
    let breaker = Arc::new(Breaker::default());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10_000 {
                    let held = breaker.take(Kind::Requests, 3);
                    assert!(breaker.count(Kind::Requests) <= 3);
                    drop(held);
                }
            });
        }
    });
    assert_eq!(breaker.count(Kind::Requests), 0);
}

#[test]
fn keys_have_buckets_of_their_own_and_a_flood_of_keys_is_bounded() {
    let rate = Rate::of(&limit(1, Duration::from_secs(60), 2));
    let buckets = Buckets::default();
    let hash = |key: u64| key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for key in 1..=100 {
        let taken = (0..5).filter(|_| buckets.take(hash(key), rate, SECOND).is_ok()).count();
        assert_eq!(taken, 2, "{key}");
    }
    for key in 1_000..200_000 {
        let _ = buckets.take(hash(key), rate, SECOND);
    }
    assert!(buckets.take(hash(7), rate, SECOND + 300 * SECOND).is_ok(), "full again");
}

#[test]
fn workers_share_a_rate() {
    let rate = Rate::of(&limit(100, Duration::from_secs(3600), 100));
    let bucket = Bucket::default();
    let taken: usize = std::thread::scope(|scope| {
        let worker = || (0..1000).filter(|_| bucket.take(rate, SECOND).is_ok()).count();
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(taken, 100);
}

/// An application that serves `width` requests at a time, each in `base` nanoseconds; others queue there. Callers always
/// have one more request. Returns the limit after a while.
fn settle(limiter: &Concurrency, settings: &AdaptiveConcurrency, width: u32, rounds: u64) -> u32 {
    let base = 10_000_000_u64;
    for round in 0..rounds {
        let began = (0..10_000).take_while(|_| limiter.begin()).count() as u64;
        // All that is in flight at once takes as many turns as it has to.
        for done in 0..began {
            let turns = 1 + done / u64::from(width);
            limiter.end(settings, (round + 1) * 110_000_000, Some(turns * base));
        }
    }
    limiter.limit()
}

#[test]
fn the_limit_follows_the_application() {
    let settings = AdaptiveConcurrency { object: policy(), min: 2, max: 1000 };
    let limiter = Concurrency::new(&settings);
    assert_eq!(limiter.limit(), 20);
    let wide = settle(&limiter, &settings, 10_000, 200);
    assert!(wide > 200, "an application that never slows down gets more: {wide}");
    let narrow = Concurrency::new(&settings);
    let limit = settle(&narrow, &settings, 20, 400);
    assert!((10..200).contains(&limit), "near what it serves at a time: {limit}");
    assert_eq!(limiter.in_flight(), 0);
}

#[test]
fn the_limit_shrinks_when_answers_become_slow_and_never_below_its_minimum() {
    let settings = AdaptiveConcurrency { object: policy(), min: 3, max: 100 };
    let limiter = Concurrency::new(&settings);
    let serve = |rounds: std::ops::Range<u64>, latency: u64| {
        for round in rounds {
            let began = (0..1000).take_while(|_| limiter.begin()).count().max(1);
            for _ in 0..began {
                limiter.end(&settings, (round + 1) * 110_000_000, Some(latency));
            }
            for _ in began..12 {
                assert!(limiter.begin());
                limiter.end(&settings, (round + 1) * 110_000_000, Some(latency));
            }
        }
    };
    serve(0..50, 1_000_000);
    let before = limiter.limit();
    serve(50..60, 100_000_000);
    let after = limiter.limit();
    assert!(after < before / 4, "{before} {after}");
    assert!(after >= 3);
    assert_eq!(limiter.in_flight(), 0);
}
