//! Calls of one of several workloads with one identity.

use mesh_core::{
    config::WorkloadConfig,
    edge::EdgeTotals,
    name::{ObjectRef, ServicePort},
    policy::{DefaultAction, PolicySet, TlsMode},
    protocol::Protocol,
    reason::Reason,
};

use super::*;

fn id(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
}

fn workload(name: &str, account: &str) -> WorkloadView {
    let config = WorkloadConfig {
        workload: WorkloadRef::new("shop", name),
        identity: id(account),
        address: Some([127, 1, 0, 4].into()),
        zone: "".into(),
        inbound: Vec::new(),
        upstreams: Vec::new(),
        policy: PolicySet {
            tls_mode: TlsMode::Permissive,
            default_action: DefaultAction::Allow,
            default_source: ObjectRef::new("Mesh", "", "default"),
            rules: Vec::new(),
        },
    };
    WorkloadView { config, labels: Vec::new(), proxy: None }
}

/// Calls of an instance of the storefront to cart, `denied` of which cart's proxy ended.
fn report(direction: Direction, reporter: &str, requests: u64, denied: u64) -> Report {
    let outbound = direction == Direction::Outbound;
    let service = || outbound.then(|| ServicePort::new("shop", "cart", 8080));
    let mut totals = EdgeTotals { requests, failures: denied, ..EdgeTotals::default() };
    totals.reasons.insert(Reason::AuthzDenied, denied);
    Report {
        reporter: WorkloadRef::new("shop", reporter),
        key: EdgeKey {
            direction,
            source: Some(id("storefront")),
            destination: Some(id("cart")),
            service: service(),
            backend: service(),
            destination_workload: Some(WorkloadRef::new("shop", "cart")),
            rule: None,
            protocol: Protocol::Http1,
            secured: true,
        },
        totals,
        covered_millis: 10_000,
    }
}

fn mesh(workloads: &[&str], reports: Vec<Report>) -> Mesh {
    let mut all: Vec<WorkloadView> = workloads.iter().map(|name| workload(name, "storefront")).collect();
    all.push(workload("cart", "cart"));
    Mesh { workloads: all, services: Vec::new(), reports, generation: 1, now_millis: 0 }
}

/// Requests, failures, the most frequent reason, who says that they were secured.
type Seen = (u64, u64, Option<(Reason, u64)>, Secured);

fn calls(mesh: &Mesh, name: &str) -> Vec<Seen> {
    let flows = mesh.calls(Kind::Workload, &("shop".into(), name.into()));
    let line = |f: &Flow| (f.stats.requests, f.stats.failures, f.stats.top_reason(), f.secured);
    flows.iter().map(line).collect()
}

#[test]
fn failures_of_a_sibling_are_not_ones_own() {
    let reports = vec![
        report(Direction::Outbound, "storefront-1", 100, 0),
        report(Direction::Outbound, "storefront-2", 50, 50),
        report(Direction::Inbound, "cart", 150, 50),
    ];
    let denied = Some((Reason::AuthzDenied, 50));
    // The second is known by its configuration, or only by what it reported.
    for known in [&["storefront-1", "storefront-2"][..], &["storefront-1"]] {
        let mesh = mesh(known, reports.clone());
        assert_eq!(calls(&mesh, "storefront-1"), [(100, 0, None, Secured::Both)], "{known:?}");
        assert_eq!(calls(&mesh, "cart"), [(150, 50, denied, Secured::Both)], "{known:?}");
    }
    let mesh = mesh(&["storefront-1", "storefront-2"], reports);
    assert_eq!(calls(&mesh, "storefront-2"), [(50, 50, denied, Secured::Both)]);
}

#[test]
fn alone_the_callee_tells_what_it_denied() {
    let reports =
        vec![report(Direction::Outbound, "storefront-1", 50, 0), report(Direction::Inbound, "cart", 50, 50)];
    let denied = Some((Reason::AuthzDenied, 50));
    assert_eq!(calls(&mesh(&["storefront-1"], reports), "storefront-1"), [(50, 50, denied, Secured::Both)]);
}
