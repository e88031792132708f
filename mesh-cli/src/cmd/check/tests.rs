//! Checks come out as they should.

use mesh_core::{config::WorkloadConfig, name::ObjectRef, name::WorkloadRef, policy};
use mesh_proto::{convert::Wire as _, discovery::v1::Rejected, view::v1 as pb};

use super::{
    control_plane, data_plane,
    model::{Check, Outcome, Report},
};
use crate::{Exit, cmd::version::VERSION, view::WorkloadView};

const NOW: i64 = 1_800_000_000_000;
const DAY: i64 = 86_400;

fn status() -> pb::GetStatusResponse {
    pb::GetStatusResponse {
        version: VERSION.into(),
        anchors: vec![pb::Anchor { sha256: "ab".repeat(32), not_after: NOW / 1000 + 3650 * DAY }],
        issuer_not_after: NOW / 1000 + 365 * DAY,
        generation: 7,
        now_millis: NOW,
        ..pb::GetStatusResponse::default()
    }
}

fn healthy() -> pb::Proxy {
    pb::Proxy {
        connected: true,
        version: VERSION.into(),
        since_millis: NOW - 60_000,
        certificate_not_after: NOW / 1000 + DAY,
        generation: 7,
        reported_millis: NOW - 3000,
        ..pb::Proxy::default()
    }
}

fn workload(proxy: Option<pb::Proxy>) -> WorkloadView {
    let config = WorkloadConfig {
        workload: WorkloadRef::new("shop", "cart"),
        identity: "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap(),
        address: Some([127, 1, 0, 4].into()),
        zone: "".into(),
        inbound: Vec::new(),
        upstreams: Vec::new(),
        policy: policy::PolicySet {
            tls_mode: policy::TlsMode::Permissive,
            default_action: policy::DefaultAction::Allow,
            default_source: ObjectRef::new("Mesh", "", "default"),
            rules: Vec::new(),
        },
    };
    WorkloadView { config, labels: Vec::new(), proxy }
}

/// Results that are not ok, as "result check: reason".
fn bad(checks: &[Check]) -> Vec<String> {
    let not_ok = checks.iter().filter(|check| check.result != Outcome::Ok);
    not_ok.map(|c| format!("{:?} {}: {}", c.result, c.check, c.reason.clone().unwrap_or_default())).collect()
}

fn controller(change: impl FnOnce(&mut pb::GetStatusResponse)) -> Vec<String> {
    let mut status = status();
    change(&mut status);
    bad(&control_plane::checks(&status, "127.0.0.1:15080", NOW - 3, NOW + 3))
}

fn proxies(change: impl FnOnce(&mut pb::Proxy)) -> Vec<String> {
    let mut proxy = healthy();
    change(&mut proxy);
    bad(&data_plane::checks(&status(), &[workload(Some(proxy))]))
}

#[test]
fn a_healthy_mesh_has_nothing_to_say() {
    assert_eq!(controller(|_| {}), [""; 0]);
    assert_eq!(proxies(|_| {}), [""; 0]);
    assert_eq!(bad(&control_plane::problems(&[], true)), [""; 0]);
    assert!(data_plane::is_settled(&status(), &[workload(Some(healthy())), workload(None)]));
}

#[test]
fn what_becomes_of_a_refused_object_is_true_whether_it_was_ever_good() {
    let reason = |kind: &str, refused, running| {
        let object = ObjectRef::new(kind, "shop", "cart").to_wire();
        let message = "no".to_owned();
        let problem = pb::Problem { object: Some(object), message, refused, ..pb::Problem::default() };
        control_plane::problems(&[problem], running).remove(0).reason.unwrap()
    };
    let stays = "not applied; if it was good before, that version stays, else";
    assert_eq!(reason("Service", true, true), format!("{stays} it has no effect: no"));
    assert_eq!(reason("TrafficTarget", true, true), format!("{stays} its destination is closed: no"));
    assert_eq!(reason("TrafficTarget", true, false), "not applied: no");
    assert_eq!(reason("TrafficTarget", false, true), "applied in part: no");
}

#[test]
fn clocks_may_differ_by_less_than_five_seconds() {
    assert_eq!(controller(|s| s.now_millis = NOW - 5002), [""; 0]);
    let check = "Fail its clock agrees with this machine's: the controller's clock is";
    assert_eq!(controller(|s| s.now_millis = NOW - 7003), [format!("{check} 7.0 s behind")]);
    assert_eq!(controller(|s| s.now_millis = NOW + 9003), [format!("{check} 9.0 s ahead")]);
}

#[test]
fn certificates_of_the_ca_are_watched() {
    let soon = controller(|s| s.issuer_not_after = NOW / 1000 + 29 * DAY);
    assert_eq!(soon, ["Warn the issuer is valid: it expires in 29d"]);
    let gone = controller(|s| s.anchors[0].not_after = NOW / 1000 - 60);
    assert_eq!(gone, ["Fail the trust anchor is valid: it expired 1m ago"]);
    let none = controller(|s| s.anchors.clear());
    assert_eq!(none, ["Fail the trust anchor is valid: the controller has no trust anchor"]);
}

#[test]
fn versions_too_far_apart_fail() {
    assert_eq!(controller(|s| s.version = "7.0.0".into()).len(), 1);
    let old = proxies(|p| p.version = "7.0.0".into());
    let expected = format!(
        "Fail its proxy's version fits the controller's: the proxy is 7.0.0, the controller is {VERSION}"
    );
    assert_eq!(old, [expected]);
}

#[test]
fn proxies_that_are_not_well() {
    let one = |change: fn(&mut pb::Proxy), expected: &str| assert_eq!(proxies(change), [expected]);
    one(|p| p.connected = false, "Fail its proxy is connected: its proxy was lost 1m ago");
    one(
        |p| p.generation = 5,
        "Fail its proxy has applied the newest configuration: it is 2 behind (has 5, newest is 7)",
    );
    one(
        |p| p.rejected = vec![Rejected { name: "workload".into(), error: "port 80 is taken".into() }],
        "Fail its proxy has refused no configuration: workload: port 80 is taken",
    );
    one(|p| p.certificate_not_after = NOW / 1000, "Fail its proxy's certificate is valid: it expired in 0s");
    one(
        |p| p.reported_millis = NOW - 31_000,
        "Fail its proxy reports what it counts: it last reported 31s ago",
    );
    one(|p| p.reported_millis = 0, "Fail its proxy reports what it counts: it never reported");
    let never = bad(&data_plane::checks(&status(), &[workload(None)]));
    assert_eq!(never, ["Fail its proxy is connected: no proxy ever connected for it"]);
}

#[test]
fn a_proxy_that_has_just_come_need_not_have_reported() {
    let fresh = proxies(|p| {
        p.since_millis = NOW - 1000;
        p.reported_millis = 0;
    });
    assert_eq!(fresh, [""; 0]);
}

#[test]
fn exit_code_follows_failures_only() {
    let report = |outcome| Report::new(vec![Check::bad("A", "b", outcome, "r", "")]);
    assert_eq!(report(Outcome::Warn).exit(), Exit::Ok);
    assert_eq!(report(Outcome::Warn).summary(), "1 check, 1 warning, none failed");
    assert_eq!(report(Outcome::Fail).exit(), Exit::NotWell);
    assert_eq!(report(Outcome::Fail).summary(), "1 check, 1 failed");
}
