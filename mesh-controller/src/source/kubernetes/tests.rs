//! An API server of our own in the place of the cluster's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::json;

use super::{super::last_good::Outcome, follow::Pace, *};
use crate::{kubernetes::fake::Fake, metrics::Metrics, source::last_good::LastGood};

const FAST: Pace = Pace {
    first: Duration::from_millis(5),
    longest: Duration::from_millis(20),
    soon: Duration::from_millis(10),
    again: Duration::from_millis(200),
};
/// Longest wait for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A source that follows the fake, and what it made of it.
struct Rig {
    kubernetes: Kubernetes,
    last_good: LastGood,
    metrics: Metrics,
    now: Outcome,
}

impl Rig {
    async fn new(fake: &Arc<Fake>) -> Self {
        let metrics = Metrics::new();
        let client = fake.client();
        let mut kubernetes =
            Kubernetes::follow(&client, &metrics, "fake".into(), PATIENCE, FAST).await.unwrap();
        let mut last_good = LastGood::new(mesh_k8s::Settings {
            trust_domain: "cluster.local".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
        });
        let now = last_good.change(kubernetes.read()).unwrap_or_else(|| last_good.compile());
        Self { kubernetes, last_good, metrics, now }
    }

    /// Waits until what applies is as wanted.
    async fn until(&mut self, wanted: impl Fn(&Outcome) -> bool) {
        let all = async {
            while !wanted(&self.now) {
                self.kubernetes.changed().await;
                if let Some(next) = self.last_good.change(self.kubernetes.read()) {
                    self.now = next;
                }
            }
        };
        let come = timeout(PATIENCE, all).await;
        assert!(come.is_ok(), "{:?} {:#?}", self.workloads(), self.now.problems);
    }

    /// Waits until a kind stands so.
    async fn stands(&self, kind: &str, wanted: fn(&Standing) -> bool) {
        let mut standing = self.kubernetes.inbox.standing();
        let all = standing.wait_for(|all| all.get(kind).is_some_and(wanted));
        timeout(PATIENCE, all).await.unwrap().unwrap();
    }

    fn workloads(&self) -> Vec<String> {
        workloads(&self.now)
    }
}

fn workloads(outcome: &Outcome) -> Vec<String> {
    outcome
        .compiled
        .workloads
        .values()
        .map(|w| format!("{} {}", w.workload.name, w.address.unwrap()))
        .collect()
}

fn workload(name: &str, address: &str) -> serde_json::Value {
    json!({"metadata": {"name": name, "namespace": "shop", "managedFields": [{"manager": "kubectl"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {"address": address, "ports": [{"port": 8080}]}})
}

#[tokio::test]
async fn objects_come_change_and_vanish() {
    let fake = Fake::new();
    fake.put("workloads", workload("a", "192.0.2.1"));
    let mut rig = Rig::new(&fake).await;
    assert_eq!(rig.workloads(), ["a 192.0.2.1"]);
    fake.put("workloads", workload("b", "192.0.2.2"));
    rig.until(|now| workloads(now) == ["a 192.0.2.1", "b 192.0.2.2"]).await;
    fake.put("workloads", workload("a", "192.0.2.3"));
    rig.until(|now| workloads(now) == ["a 192.0.2.3", "b 192.0.2.2"]).await;
    // A bad version is refused alone, by name, and the last good one stays.
    fake.put("workloads", workload("b", "nowhere"));
    rig.until(|now| !now.problems.is_empty()).await;
    assert_eq!(rig.workloads(), ["a 192.0.2.3", "b 192.0.2.2"]);
    let told = rig.now.problems[0].to_string();
    assert!(told.starts_with("Workload shop/b: spec.address: \"nowhere\""), "{told}");
    fake.remove("workloads", "b");
    rig.until(|now| workloads(now) == ["a 192.0.2.3"]).await;
    assert!(rig.now.problems.is_empty(), "{:#?}", rig.now.problems);
}

#[tokio::test]
async fn nothing_is_lost_while_the_server_is_away_or_forgets() {
    let fake = Fake::new();
    fake.put("workloads", workload("a", "192.0.2.1"));
    fake.put("workloads", workload("b", "192.0.2.2"));
    let mut rig = Rig::new(&fake).await;
    fake.fail("workloads", Some(500));
    fake.end_watches("workloads", Some(500));
    rig.stands("Workload", |standing| matches!(standing, Standing::Broken(_))).await;
    assert!(rig.kubernetes.read().is_empty(), "a failure takes nothing away");
    let text = rig.metrics.render();
    assert!(text.contains("mesh_controller_watches{state=\"broken\"} 1"), "{text}");
    assert!(text.contains("mesh_controller_watch_failures_total{kind=\"Workload\"}"), "{text}");
    fake.remove("workloads", "a");
    fake.fail("workloads", None);
    rig.until(|now| workloads(now) == ["b 192.0.2.2"]).await;
    // Its history is too short for the watch.
    fake.put("workloads", workload("c", "192.0.2.3"));
    fake.end_watches("workloads", Some(410));
    fake.put("workloads", workload("d", "192.0.2.4"));
    rig.until(|now| workloads(now) == ["b 192.0.2.2", "c 192.0.2.3", "d 192.0.2.4"]).await;
}

#[tokio::test]
async fn an_address_is_that_of_the_pod_that_was_made_last() {
    let pod = |name: &str, created: &str| {
        json!({"metadata": {"name": name, "namespace": "shop", "creationTimestamp": created},
            "spec": {"containers": [{"name": "mesh-proxy"}]}, "status": {"phase": "Running", "podIP": "10.0.0.1"}})
    };
    let fake = Fake::new();
    fake.put("pods", pod("b", "2026-01-01T00:00:00Z"));
    let mut rig = Rig::new(&fake).await;
    assert_eq!(rig.workloads(), ["b 10.0.0.1"]);
    // The node of that one is lost, and nobody says that it has ended.
    fake.put("pods", pod("a", "2026-01-01T01:00:00Z"));
    rig.until(|now| workloads(now) == ["a 10.0.0.1"]).await;
}

#[tokio::test]
async fn kinds_come_and_go() {
    let fake = Fake::new();
    fake.fail("workloads", Some(404));
    let mut rig = Rig::new(&fake).await;
    rig.stands("Workload", |standing| *standing == Standing::Absent).await;
    fake.failed("workloads", 3).await;
    fake.put("workloads", workload("a", "192.0.2.1"));
    fake.fail("workloads", None);
    rig.until(|now| workloads(now) == ["a 192.0.2.1"]).await;
    // A server that starts says so of kinds that it has: it must say so three times, whatever was before.
    fake.fail_times("workloads", 404, 2);
    fake.end_watches("workloads", None);
    fake.failed("workloads", 2).await;
    fake.put("workloads", workload("b", "192.0.2.2"));
    rig.until(|now| {
        assert_eq!(workloads(now).first().map(String::as_str), Some("a 192.0.2.1"), "it was taken away");
        workloads(now).len() == 2
    })
    .await;
    fake.fail("workloads", Some(404));
    fake.end_watches("workloads", Some(404));
    rig.until(|now| workloads(now).is_empty()).await;
    rig.stands("Workload", |standing| *standing == Standing::Absent).await;
    // What Kubernetes itself has is never believed gone.
    fake.put("namespaces", json!({"metadata": {"name": "shop"}}));
    rig.until(|now| now.objects == 1).await;
    fake.fail("namespaces", Some(404));
    fake.end_watches("namespaces", None);
    rig.stands("Namespace", |standing| matches!(standing, Standing::Broken(_))).await;
    assert!(rig.kubernetes.read().is_empty());
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told() {
    let fake = Fake::new();
    fake.fail("pods", Some(403));
    let wait = Duration::from_millis(300);
    let error = Kubernetes::follow(&fake.client(), &Metrics::new(), "https://fake".into(), wait, FAST)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.starts_with("--kubernetes: https://fake did not list Pod within"), "{error}");
    assert!(error.contains("fails with 403"), "{error}");
}

#[test]
fn pauses_grow_and_are_never_the_same() {
    let pace = PACE;
    let millis: Vec<u128> = [0, 1, 2, 6, 7, 40].map(|n| pace.pause(n, 0.5).as_millis()).to_vec();
    assert_eq!(millis, [200, 400, 800, 12_800, 15_000, 15_000]);
    assert_eq!((pace.pause(0, 0.0).as_millis(), pace.pause(0, 1.0).as_millis()), (100, 300));
}

#[test]
fn every_kind_is_asked_for_once() {
    let kinds: BTreeMap<&str, String> = KINDS.iter().map(|k| (k.kind, k.resource().api_version)).collect();
    assert_eq!(kinds.len(), KINDS.len());
    assert_eq!(kinds["Pod"], "v1");
    assert_eq!(kinds["EndpointSlice"], "discovery.k8s.io/v1");
}
