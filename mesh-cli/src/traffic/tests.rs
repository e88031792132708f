//! Both sides' reports become one record a call.

use mesh_core::{name::ObjectRef, reason::Reason};
use proptest::prelude::*;

use super::*;

fn id(account: &str) -> Option<SpiffeId> {
    Some(format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap())
}

fn port(name: &str) -> Option<ServicePort> {
    Some(ServicePort::new("shop", name, 8080))
}

fn totals(requests: u64, failures: u64, reasons: &[(Reason, u64)]) -> EdgeTotals {
    let mut totals = EdgeTotals { requests, failures, connections: 1, ..EdgeTotals::default() };
    totals.reasons = reasons.iter().copied().collect();
    (0..requests).for_each(|_| totals.latency.record(1000));
    totals
}

/// storefront calls catalog; the route sends it to `backend`.
fn out(backend: &str, counted: EdgeTotals) -> Report {
    Report {
        reporter: WorkloadRef::new("shop", "storefront"),
        key: EdgeKey {
            direction: Direction::Outbound,
            source: id("storefront"),
            destination: id("catalog"),
            service: port("catalog"),
            backend: port(backend),
            destination_workload: Some(WorkloadRef::new("shop", backend)),
            rule: Some(ObjectRef::new("TrafficSplit", "shop", "catalog")),
            protocol: Protocol::Http1,
            secured: true,
        },
        totals: counted,
        covered_millis: 10_000,
    }
}

/// The same calls, as the callee's proxy reports them.
fn inbound(workload: &str, source: Option<SpiffeId>, counted: EdgeTotals) -> Report {
    Report {
        reporter: WorkloadRef::new("shop", workload),
        key: EdgeKey {
            direction: Direction::Inbound,
            secured: source.is_some(),
            source,
            destination: id("catalog"),
            service: None,
            backend: None,
            destination_workload: Some(WorkloadRef::new("shop", workload)),
            rule: Some(ObjectRef::new("Namespace", "", "shop")),
            protocol: Protocol::Http1,
        },
        totals: counted,
        covered_millis: 10_000,
    }
}

/// One line a flow: "service->backend workload secured requests/failures".
fn summary(reports: &[Report]) -> Vec<String> {
    let name = |port: &Option<ServicePort>| port.as_ref().map_or_else(|| "?".into(), |p| p.name.to_string());
    let line = |f: &Flow| {
        let workload = f.workload.as_ref().map_or_else(|| "?".into(), |w| w.name.to_string());
        let (service, backend, secured) = (name(&f.service), name(&f.backend), f.secured.as_str());
        format!("{service}->{backend} {workload} {secured} {}/{}", f.stats.requests, f.stats.failures)
    };
    flows(reports).iter().map(line).collect()
}

#[test]
fn a_call_that_both_sides_report_counts_once() {
    let reports = [
        out("catalog-v1", totals(90, 0, &[])),
        out("catalog-v2", totals(10, 1, &[])),
        inbound("catalog-v1", id("storefront"), totals(91, 0, &[])),
        inbound("catalog-v2", id("storefront"), totals(10, 0, &[])),
    ];
    let expected = ["catalog->catalog-v1 catalog-v1 yes 90/0", "catalog->catalog-v2 catalog-v2 yes 10/1"];
    assert_eq!(summary(&reports), expected);
    let all = group(&flows(&reports), |flow| flow.service.iter().chain(&flow.backend).cloned().collect());
    let requests: Vec<u64> = all.values().map(|stats| stats.requests).collect();
    assert_eq!(requests, [100, 90, 10]);
}

#[test]
fn one_side_alone_is_said_to_be_alone() {
    assert_eq!(
        summary(&[out("catalog-v1", totals(5, 0, &[]))]),
        ["catalog->catalog-v1 catalog-v1 caller 5/0"]
    );
    let callee = [inbound("catalog-v1", id("storefront"), totals(5, 0, &[]))];
    assert_eq!(summary(&callee), ["?->? catalog-v1 callee 5/0"]);
}

#[test]
fn calls_from_outside_the_mesh_come_from_the_callee() {
    let reports = [
        out("catalog-v1", totals(90, 0, &[])),
        inbound("catalog-v1", id("storefront"), totals(90, 0, &[])),
        inbound("catalog-v1", None, totals(7, 2, &[])),
    ];
    assert_eq!(summary(&reports), ["catalog->catalog-v1 catalog-v1 yes 90/0", "?->? catalog-v1 no 7/2"]);
}

#[test]
fn the_callee_adds_reasons_that_only_it_knows() {
    let denied = [(Reason::AuthzDenied, 12)];
    let reports =
        [out("cart", totals(12, 0, &[])), inbound("cart", id("storefront"), totals(12, 12, &denied))];
    let flows = flows(&reports);
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].stats.top_reason(), Some((Reason::AuthzDenied, 12)));
    assert_eq!(flows[0].stats.failures, 12);
    // Known on both sides: still 12.
    let reports =
        [out("cart", totals(12, 12, &denied)), inbound("cart", id("storefront"), totals(12, 12, &denied))];
    assert_eq!(super::flows(&reports)[0].stats.refused(), 12);
}

#[test]
fn plaintext_on_either_side_is_not_secured() {
    let mut callee = inbound("catalog-v1", id("storefront"), totals(3, 0, &[]));
    callee.key.secured = false;
    assert_eq!(
        summary(&[out("catalog-v1", totals(3, 0, &[])), callee]),
        ["catalog->catalog-v1 catalog-v1 no 3/0"]
    );
}

#[test]
fn nothing_reached_is_neither_secured_nor_plaintext() {
    let mut report = out("catalog-v1", totals(4, 4, &[(Reason::NoHealthyEndpoint, 4)]));
    report.key.destination = None;
    report.key.destination_workload = None;
    report.key.secured = false;
    assert_eq!(summary(&[report.clone()]), ["catalog->catalog-v1 ? - 4/4"]);
    report.totals = totals(4, 0, &[]);
    assert_eq!(summary(&[report]), ["catalog->catalog-v1 ? no 4/0"]);
}

#[test]
fn edges_without_activity_are_left_out() {
    let idle = EdgeTotals::default();
    assert!(flows(&[out("catalog-v1", idle.clone()), inbound("catalog-v1", None, idle)]).is_empty());
}

#[test]
fn rates_add_up_over_reporters() {
    let mut late = out("catalog-v1", totals(10, 0, &[]));
    late.reporter = WorkloadRef::new("shop", "storefront-2");
    late.covered_millis = 1000;
    let flows = flows(&[out("catalog-v1", totals(10, 0, &[])), late]);
    assert_eq!(flows.len(), 1);
    assert!((flows[0].stats.rate - 11.0).abs() < 1e-9, "{}", flows[0].stats.rate);
}

#[test]
fn a_report_that_covers_no_time_has_no_rate() {
    let mut report = out("catalog-v1", totals(10, 0, &[]));
    report.covered_millis = 0;
    assert_eq!(flows(&[report])[0].stats.rate, 0.0);
}

proptest! {
    /// Whatever is reported, nothing is counted that a caller did not report, but for what only callees can know.
    #[test]
    fn never_counts_a_call_twice(
        outbound in prop::collection::vec((0usize..3, 1u64..1000), 0..6),
        meshed in prop::collection::vec((0usize..3, 1u64..1000), 0..6),
        outside in prop::collection::vec((0usize..3, 1u64..1000), 0..6),
    ) {
        let names = ["catalog-v1", "catalog-v2", "catalog-v3"];
        let counted = |n: u64| totals(n, 0, &[]);
        let mut reports: Vec<Report> = outbound.iter().map(|(at, n)| out(names[*at], counted(*n))).collect();
        reports.extend(meshed.iter().map(|(at, n)| inbound(names[*at], id("storefront"), counted(*n))));
        reports.extend(outside.iter().map(|(at, n)| inbound(names[*at], None, counted(*n))));
        let called = |at: usize| outbound.iter().any(|(other, _)| *other == at);
        let expected: u64 = outbound.iter().map(|(_, n)| n).sum::<u64>()
            + meshed.iter().filter(|(at, _)| !called(*at)).map(|(_, n)| n).sum::<u64>()
            + outside.iter().map(|(_, n)| n).sum::<u64>();
        prop_assert_eq!(flows(&reports).iter().map(|flow| flow.stats.requests).sum::<u64>(), expected);
    }
}
