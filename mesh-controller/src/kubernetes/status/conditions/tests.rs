//! Conditions, without a cluster.

use std::sync::Arc;

use kube::core::{ApiResource, GroupVersionKind};
use mesh_core::name::ObjectRef;
use mesh_k8s::Place;
use serde_json::json;

use super::*;
use crate::source::{Observed, State};

const NO_TIME: Duration = Duration::ZERO;

fn standing(force: Force, generation: i64, since: u64) -> Standing {
    let kind = GroupVersionKind::gvk("meshctl.dev", "v1alpha1", "Workload");
    let observed = Observed {
        reference: ObjectRef::new("Workload", "shop", "a"),
        resource: ApiResource::from_gvk_with_plural(&kind, "workloads"),
        uid: "u".into(),
        generation,
    };
    Standing { state: State { observed: Arc::new(observed), force }, since }
}

fn problem(field: &str, message: &str, refused: bool) -> Problem {
    let reference = ObjectRef::new("Workload", "shop", "a");
    Problem {
        place: Place { file: reference.to_string().into(), line: 0 },
        object: Some(reference),
        field: field.into(),
        message: message.into(),
        remedy: "mend it".into(),
        refused,
        is_conflict: false,
    }
}

fn brief(all: &[Condition; 2]) -> [String; 2] {
    all.clone().map(|c| format!("{} {} {}: {}", c.kind, c.status, c.reason, c.message))
}

#[test]
fn an_object_is_told_what_became_of_it() {
    let bad = problem("spec.address", "\"x\" is no address", true);
    let odd = problem("spec.ports", "unknown\nthing", false);
    let check = |force, problems: &[&Problem], proxies: &[u64], accepted: &str, applied: &str| {
        let told = wanted(&standing(force, 7, 3), problems, proxies);
        assert_eq!(brief(&told), [format!("Accepted {accepted}"), format!("Applied {applied}")]);
        assert!(told.iter().all(|c| c.observed_generation == 7));
    };
    check(
        Force::Newest,
        &[],
        &[1, 2, 3, 3, 4],
        "True Accepted: it is in force",
        "False Waiting: 3 of 5 proxies have it",
    );
    check(
        Force::Newest,
        &[&odd],
        &[3, 9],
        "True AcceptedInPart: spec.ports: unknown thing; mend it",
        "True AllProxies: all proxies that are connected to the leader have it",
    );
    check(
        Force::Kept,
        &[&odd, &bad],
        &[],
        "False LastGoodKept: its last good version stays; spec.address: \"x\" is no address; mend it | \
         spec.ports: unknown thing; mend it",
        "Unknown NoProxies: no proxy is connected to the leader",
    );
    check(
        Force::Nothing,
        &[&bad],
        &[9],
        "False Invalid: spec.address: \"x\" is no address; mend it",
        "False NotInForce: no version of it is in force",
    );
    let taken = Problem { is_conflict: true, ..problem("spec.address", "it is taken", true) };
    check(
        Force::Nothing,
        &[&taken, &odd],
        &[9],
        "False Conflict: spec.address: it is taken; mend it | spec.ports: unknown thing; mend it",
        "False NotInForce: no version of it is in force",
    );
    let [both, _] = wanted(&standing(Force::Nothing, 7, 3), &[&taken, &bad], &[9]);
    assert_eq!(both.reason, "Invalid", "it would be refused without the other one, too");
}

#[test]
fn messages_end() {
    let long = problem("spec", &"é".repeat(3000), true);
    for force in [Force::Kept, Force::Nothing] {
        let [accepted, _] = wanted(&standing(force, 1, 1), &[&long], &[]);
        assert_eq!(accepted.message.chars().count(), MAX_MESSAGE);
        assert!(accepted.message.ends_with('…'));
    }
}

#[test]
fn only_what_is_new_is_written() {
    let told = |proxies: &[u64]| wanted(&standing(Force::Newest, 1, 2), &[], proxies);
    let first = next(&[], told(&[1, 2]), NO_TIME, "t1").unwrap();
    assert!(first.iter().all(|c| c.last_transition_time == "t1"));
    // Counts alone wait.
    assert_eq!(next(&first, told(&[1, 2]), COUNTED, "t2"), None);
    assert_eq!(next(&first, told(&[1, 2, 2]), COUNTED - Duration::from_millis(1), "t2"), None);
    let counted = next(&first, told(&[1, 2, 2]), COUNTED, "t2").unwrap();
    assert_eq!(counted[1].message, "2 of 3 proxies have it");
    assert_eq!(counted[1].last_transition_time, "t1", "it is False as before");

    let done = next(&counted, told(&[2, 2, 2]), NO_TIME, "t3").unwrap();
    assert_eq!((&*done[0].last_transition_time, &*done[1].last_transition_time), ("t1", "t3"));
    assert_eq!(next(&done, told(&[2, 3, 3, 3]), COUNTED * 1000, "t4"), None, "pods come and go");
    // A leader that has just begun knows no proxies yet.
    assert_eq!(next(&done, told(&[]), COUNTED * 1000, "t4"), None);
    let newer = next(&done, wanted(&standing(Force::Newest, 2, 2), &[], &[]), NO_TIME, "t4").unwrap();
    assert_eq!((&*newer[1].status, &*newer[1].last_transition_time), ("Unknown", "t4"));
    assert_eq!((newer[0].observed_generation, &*newer[0].last_transition_time), (2, "t1"));
}

#[test]
fn another_problem_is_written_at_once_and_another_status_has_another_time() {
    let told =
        |force, message: &str| wanted(&standing(force, 1, 1), &[&problem("spec", message, true)], &[1]);
    let first = next(&[], told(Force::Kept, "one"), NO_TIME, "t1").unwrap();
    let second = next(&first, told(Force::Kept, "two"), NO_TIME, "t2").unwrap();
    assert!(second.iter().all(|c| c.last_transition_time == "t1"));
    let good = next(&second, wanted(&standing(Force::Newest, 1, 1), &[], &[1]), NO_TIME, "t3").unwrap();
    assert_eq!((&*good[0].last_transition_time, &*good[1].last_transition_time), ("t3", "t1"));
    // What was in force no more is not taken for what proxies have.
    let gone = next(&good, told(Force::Nothing, "two"), NO_TIME, "t4").unwrap();
    let back = next(&gone, wanted(&standing(Force::Newest, 1, 1), &[], &[]), NO_TIME, "t5").unwrap();
    assert_eq!(back[1].reason, NO_PROXIES);
}

#[test]
fn what_stands_at_an_object_is_read_back() {
    let all = next(&[], wanted(&standing(Force::Newest, 1, 1), &[], &[1]), NO_TIME, "t1").unwrap();
    let foreign = json!({"type": "Ready", "status": "True"});
    let mut list = vec![foreign, json!(1)];
    list.extend(all.iter().map(|one| serde_json::to_value(one).unwrap()));
    assert_eq!(list[2]["observedGeneration"], 1);
    assert_eq!(list[2]["lastTransitionTime"], "t1");
    assert_eq!(noted(&json!({"status": {"conditions": list}})), all);
    for strange in [json!({}), json!({"status": 1}), json!({"status": {"conditions": [{"type": 1}, null]}})] {
        assert!(noted(&strange).is_empty(), "{strange}");
    }
}
