//! An API server of our own in the place of the cluster's.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::json;

use mesh_core::config::TrustBundle;

use super::{super::last_good::Outcome, follow::Pace, *};
use crate::{
    kubernetes::fake::Fake,
    metrics::Metrics,
    publish::{Publisher, Snapshot},
    source::{Force, last_good::LastGood},
};

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
    noted: Arc<Noted>,
    now: Outcome,
}

impl Rig {
    async fn new(fake: &Arc<Fake>) -> Self {
        let (metrics, noted) = (Metrics::new(), Arc::<Noted>::default());
        let client = fake.client();
        let mut kubernetes =
            Kubernetes::follow(&client, &metrics, Arc::clone(&noted), "fake".into(), (PATIENCE, FAST))
                .await
                .unwrap();
        let mut last_good = LastGood::new(mesh_k8s::Settings {
            trust_domain: "cluster.local".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
        });
        let now = last_good.change(kubernetes.read()).unwrap_or_else(|| last_good.compile());
        Self { kubernetes, last_good, metrics, noted, now }
    }

    /// Waits until what applies is as wanted.
    async fn until(&mut self, wanted: impl Fn(&Outcome) -> bool) {
        let all = async {
            while !wanted(&self.now) {
                self.kubernetes.changed().await.unwrap();
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

    /// What applies, for a publisher.
    fn take(&mut self) -> Outcome {
        let again = self.last_good.compile();
        std::mem::replace(&mut self.now, again)
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
async fn a_status_that_is_written_changes_nothing_and_is_seen() {
    let version = |address: &str, generation: i64, conditions: serde_json::Value| {
        let mut object = workload("a", address);
        object["metadata"]["uid"] = json!("u1");
        object["metadata"]["generation"] = json!(generation);
        object["status"] = json!({"conditions": conditions});
        object
    };
    let fake = Fake::new();
    fake.put("workloads", version("192.0.2.1", 1, json!([])));
    let mut rig = Rig::new(&fake).await;
    let publisher = Publisher::new(no_roots(), rig.take());
    let first = publisher.current();
    let stands = |snapshot: &Snapshot| {
        let standing = &snapshot.standings["Workload shop/a"];
        (standing.state.observed.generation, standing.state.force, standing.since)
    };
    assert_eq!(stands(&first), (1, Force::Newest, 1));

    fake.put("workloads", version("192.0.2.1", 1, json!([{"type": "Accepted", "status": "True"}])));
    timeout(PATIENCE, rig.kubernetes.changed()).await.unwrap().unwrap();
    assert!(rig.last_good.change(rig.kubernetes.read()).is_none(), "nothing is compiled");
    assert!(format!("{:?}", rig.noted).contains("Accepted"), "{:?}", rig.noted);

    let next = async |rig: &mut Rig, generation: i64| {
        let is_it = |now: &Outcome| now.states.values().any(|state| state.observed.generation == generation);
        rig.until(is_it).await;
        publisher.publish(rig.take())
    };
    fake.put("workloads", version("192.0.2.2", 2, json!([])));
    assert_eq!(stands(&*next(&mut rig, 2).await), (2, Force::Newest, 2));
    // Proxies are told nothing new, so that they have it already.
    fake.put("workloads", version("nowhere", 3, json!([])));
    assert_eq!(stands(&*next(&mut rig, 3).await), (3, Force::Kept, 2));
    fake.put("workloads", version("192.0.2.2", 4, json!([])));
    assert_eq!(stands(&*next(&mut rig, 4).await), (4, Force::Newest, 2));
    let mut other = version("nowhere", 1, json!([]));
    other["metadata"]["name"] = json!("b");
    fake.put("workloads", other);
    rig.until(|now| now.states.len() == 2).await;
    let last = publisher.publish(rig.take());
    assert_eq!(last.standings["Workload shop/b"].state.force, Force::Nothing);
    fake.remove("workloads", "a");
    rig.until(|now| now.states.len() == 1).await;
    assert!(!format!("{:?}", rig.noted).contains("shop/a"), "{:?}", rig.noted);
}

#[tokio::test]
async fn what_loses_to_another_object_is_in_force_no_more() {
    let fake = Fake::new();
    fake.put("workloads", workload("vm", "192.0.2.1"));
    let mut rig = Rig::new(&fake).await;
    let force = |now: &Outcome| now.states["Workload shop/vm"].force;
    assert_eq!(force(&rig.now), Force::Newest);
    let status = json!({"phase": "Running", "podIP": "192.0.2.1"});
    fake.put(
        "pods",
        json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": {"containers": []}, "status": status}),
    );
    // It has not changed, and so has no older version.
    rig.until(|now| force(now) == Force::Nothing).await;
    assert!(rig.now.problems.iter().any(|p| p.refused && p.is_conflict), "{:#?}", rig.now.problems);
    fake.remove("pods", "a");
    rig.until(|now| force(now) == Force::Newest).await;
}

fn no_roots() -> TrustBundle {
    TrustBundle { trust_domain: "cluster.local".parse().unwrap(), roots: Vec::new() }
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
    let error = Kubernetes::follow(
        &fake.client(),
        &Metrics::new(),
        Arc::default(),
        "https://fake".into(),
        (wait, FAST),
    )
    .await
    .err()
    .unwrap()
    .to_string();
    assert!(error.starts_with("--kubernetes: https://fake did not list Pod within"), "{error}");
    assert!(error.contains("fails with 403"), "{error}");
}

#[tokio::test]
async fn a_kind_that_is_followed_no_more_is_noticed() {
    let fake = Fake::new();
    let mut rig = Rig::new(&fake).await;
    let nothing = timeout(Duration::from_millis(100), rig.kubernetes.changed()).await;
    assert!(!matches!(nothing, Ok(Err(_))), "{nothing:?}");
    // As a panic ends it.
    rig.kubernetes.tasks.spawn(async {});
    let ended = async { while rig.kubernetes.changed().await.is_ok() {} };
    timeout(PATIENCE, ended).await.expect("it is not noticed");
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
