//! Windows, restarts and limits, with an injected clock.

use mesh_core::{edge::Direction, protocol::Protocol, reason::Reason};

use super::*;

fn key(rule: u16) -> EdgeKey {
    EdgeKey {
        direction: Direction::Outbound,
        source: None,
        destination: None,
        service: Some(mesh_core::name::ServicePort::new("shop", "cart", rule + 1)),
        backend: None,
        destination_workload: None,
        rule: None,
        protocol: Protocol::Http1,
        secured: true,
    }
}

fn totals(requests: u64) -> EdgeTotals {
    let mut totals = EdgeTotals { requests, connections: requests / 10, ..EdgeTotals::default() };
    totals.reasons.insert(Reason::AuthzDenied, requests / 2);
    (0..requests).for_each(|_| totals.latency.record(1000));
    totals
}

fn report(instance: &str, uptime: u64, requests: u64) -> Report {
    Report {
        instance: instance.into(),
        uptime: Duration::from_secs(uptime),
        edges: vec![(key(0), totals(requests))],
    }
}

fn one(edges: &Edges, window: Option<u64>, now: Instant) -> (u64, u64) {
    let rows = edges.list(window.map(Duration::from_secs), now, |_, _| true);
    assert_eq!(rows.len(), 1);
    let totals = &rows[0].totals;
    assert_eq!(totals.latency.count(), totals.requests);
    (totals.requests, rows[0].covered.as_secs())
}

#[test]
fn a_window_is_the_difference_of_two_samples() {
    let (edges, cart) = (Edges::default(), WorkloadRef::new("shop", "cart-1"));
    let start = Instant::now() + Duration::from_secs(10_000);
    let at = |second: u64| start + Duration::from_secs(second);
    for second in 1..=900 {
        edges.take(&cart, report("a", second, second * 7), at(second));
    }
    assert_eq!(one(&edges, Some(10), at(900)), (70, 10));
    assert_eq!(one(&edges, Some(60), at(900)), (420, 60));
    let (requests, covered) = one(&edges, Some(600), at(900));
    assert_eq!(requests, covered * 7);
    assert!((597..=605).contains(&covered), "{covered}");
    assert_eq!(one(&edges, None, at(900)), (6300, 900));
    let samples = edges.lock().values().next().unwrap().edges.values().next().unwrap().len();
    assert!(samples < 200, "{samples} samples are kept");
    // Silence: nothing happened within the last ten seconds.
    assert_eq!(one(&edges, Some(10), at(915)), (0, 10));
    edges.expire(at(1400));
    assert_eq!(edges.list(None, at(1400), |_, _| true).len(), 1);
    edges.expire(at(1501));
    assert_eq!(edges.list(None, at(1501), |_, _| true), []);
}

#[test]
fn an_idle_edge_keeps_its_last_sample_valid() {
    let (edges, cart) = (Edges::default(), WorkloadRef::new("shop", "cart-1"));
    let start = Instant::now() + Duration::from_secs(10_000);
    for second in 1..=100 {
        let requests = if second <= 99 { 10 } else { 25 };
        edges.take(&cart, report("a", second, requests), start + Duration::from_secs(second));
    }
    let now = start + Duration::from_secs(100);
    assert_eq!(one(&edges, Some(5), now), (15, 5));
    assert_eq!(one(&edges, Some(30), now), (15, 30));
}

#[test]
fn a_restarted_proxy_goes_on_counting_and_an_old_one_is_not_taken_for_a_burst() {
    let (edges, cart) = (Edges::default(), WorkloadRef::new("shop", "cart-1"));
    let start = Instant::now() + Duration::from_secs(10_000);
    let at = |second: u64| start + Duration::from_secs(second);
    // The controller meets a proxy that has run for an hour.
    edges.take(&cart, report("a", 3600, 36_000), at(0));
    assert_eq!(one(&edges, Some(10), at(0)).0, 0);
    edges.take(&cart, report("a", 3601, 36_010), at(1));
    assert_eq!(one(&edges, Some(10), at(1)), (10, 1));
    assert_eq!(one(&edges, None, at(1)), (36_010, 3601));
    // It restarts, and then forgets an idle edge.
    edges.take(&cart, report("b", 1, 5), at(2));
    assert_eq!(one(&edges, None, at(2)).0, 36_015);
    edges.take(&cart, report("b", 2, 20), at(3));
    edges.take(&cart, report("b", 3, 1), at(4));
    assert_eq!(one(&edges, None, at(4)).0, 36_031);
}

#[test]
fn edges_are_bounded_and_what_exceeds_is_summed() {
    let (edges, cart) = (Edges::default(), WorkloadRef::new("shop", "cart-1"));
    let start = Instant::now() + Duration::from_secs(10_000);
    let at = |second: u64| start + Duration::from_secs(second);
    let take = |count: u16, uptime: u64| {
        let all = (0..count).map(|i| (key(i), totals(1))).collect();
        let report = Report { instance: "a".into(), uptime: Duration::from_secs(uptime), edges: all };
        edges.take(&cart, report, at(uptime))
    };
    let overflowed = |now| {
        let rows = edges.list(None, now, |_, key| *key == EdgeKey::unknown(Direction::Outbound));
        rows.first().map(|row| row.totals.requests)
    };
    assert_eq!(take(2050, 1), Taken::All { overflowed: 50 });
    assert_eq!(edges.list(None, at(1), |_, _| true).len(), MAX_EDGES + 1);
    assert_eq!(overflowed(at(1)), Some(50));
    assert_eq!(take(2010, 2), Taken::All { overflowed: 10 });
    assert_eq!(overflowed(at(2)), Some(10), "edges that left the overflow are not counted twice");
    // The proxy lives, but has forgotten its edges.
    take(3, 599);
    edges.expire(at(601));
    assert_eq!(edges.list(None, at(601), |_, _| true).len(), MAX_EDGES + 1);
    edges.expire(at(602));
    assert_eq!(edges.list(None, at(602), |_, _| true).len(), 3);
}

#[test]
fn processes_of_one_workload_add_up() {
    let (edges, cart) = (Edges::default(), WorkloadRef::new("shop", "cart-1"));
    let start = Instant::now() + Duration::from_secs(10_000);
    let at = |second: u64| start + Duration::from_secs(second);
    for second in 1..=30 {
        edges.take(&cart, report("a", second, 10 * second), at(second));
        edges.take(&cart, report("b", second, second), at(second));
    }
    assert_eq!(one(&edges, None, at(30)).0, 330);
    assert_eq!(one(&edges, Some(10), at(30)).0, 110);
    assert_eq!(edges.take(&cart, report("a", 29, 290), at(31)), Taken::Stale);
    assert_eq!(one(&edges, None, at(31)).0, 330, "a late report changes nothing");
    // As many as may be; one that ended makes room, and what it counted stays.
    for instance in ["c", "d", "e", "f", "g", "h"] {
        edges.take(&cart, report(instance, 1, 1), at(31));
    }
    assert_eq!(edges.take(&cart, report("i", 1, 1), at(31)), Taken::TooManyProcesses);
    for second in 32..=50 {
        for instance in ["b", "c", "d", "e", "f", "g", "h"] {
            edges.take(&cart, report(instance, second, 40), at(second));
        }
    }
    assert_eq!(edges.take(&cart, report("i", 1, 7), at(50)), Taken::All { overflowed: 0 });
    assert_eq!(one(&edges, None, at(50)).0, 300 + 7 * 40 + 7);
}

#[test]
fn fast_reports_neither_pile_up_nor_spoil_windows() {
    let (edges, cart) = (Edges::default(), WorkloadRef::new("shop", "cart-1"));
    let start = Instant::now() + Duration::from_secs(10_000);
    let at = |millis: u64| start + Duration::from_millis(millis);
    let mut most = 0;
    for tick in 1..=6000 {
        let mut report = report("a", 0, tick);
        report.uptime = Duration::from_millis(tick * 10);
        edges.take(&cart, report, at(tick * 10));
        let samples = edges.lock().values().next().unwrap().edges.values().next().unwrap().len();
        most = most.max(samples);
    }
    assert!(most <= 160, "{most} samples are kept");
    let (requests, covered) = one(&edges, Some(10), at(60_000));
    assert!((950..=1050).contains(&requests), "{requests} in {covered} s");

    // A reporter of many edges keeps few samples of each, near ones closer together.
    let mut series = Series::new(start, start);
    for second in 1..=900 {
        series.push(1, &totals(second), false, MIN_SAMPLES, at(second * 1000));
        assert!(series.len() <= MIN_SAMPLES);
    }
    for window in [10, 60, 300] {
        let (within, covered) = series.within(Duration::from_secs(window), at(900_000), at(900_000));
        assert_eq!(within.requests, covered.as_secs());
        assert!(covered.as_secs().abs_diff(window) <= window / 4, "{window}: {covered:?}");
    }
}

#[test]
fn a_workload_reports_only_so_often() {
    let (edges, cart) = (Edges::default(), WorkloadRef::new("shop", "cart-1"));
    let now = Instant::now();
    assert_eq!((0..100).filter(|_| edges.admit(&cart, now)).count(), REPORT_BURST as usize);
    assert!(edges.admit(&WorkloadRef::new("shop", "web-1"), now), "others are not held up");
    let per_second = (1..=20).filter(|s| edges.admit(&cart, now + Duration::from_secs(*s))).count();
    assert_eq!(per_second, 20);
    edges.expire(now + Duration::from_secs(1000));
    assert!(edges.buckets.lock().unwrap().is_empty());
}
