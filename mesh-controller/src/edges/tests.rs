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
fn edges_are_bounded() {
    let (edges, cart) = (Edges::default(), WorkloadRef::new("shop", "cart-1"));
    let now = Instant::now();
    let all = (0..1500).map(|i| (key(i), totals(1))).collect();
    let report = Report { instance: "a".into(), uptime: Duration::ZERO, edges: all };
    assert_eq!(edges.take(&cart, report, now), 500);
    assert_eq!(edges.list(None, now, |_, _| true).len(), MAX_EDGES);
}
