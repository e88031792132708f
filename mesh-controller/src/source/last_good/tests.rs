//! Bad objects, bad files, and what stays.

use std::net::IpAddr;

use super::*;

fn new() -> LastGood {
    LastGood::new(Settings {
        trust_domain: "cluster.local".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
    })
}

fn workload(name: &str, address: &str) -> String {
    format!(
        "apiVersion: meshctl.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  address: {address}\n  ports: [{{name: http, port: 8080, appProtocol: http}}]\n---\n"
    )
}

fn files(all: &[(&str, &str)]) -> Files {
    all.iter().map(|(name, text)| ((*name).into(), Content::Text((*text).into()))).collect()
}

/// Names and addresses of the workloads that apply.
fn applied(outcome: &Outcome) -> Vec<(String, IpAddr)> {
    outcome.compiled.workloads.values().map(|w| (w.workload.name.to_string(), w.address)).collect()
}

fn expect(outcome: &Outcome, workloads: &[(&str, &str)]) {
    let wanted: Vec<_> =
        workloads.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse::<IpAddr>().unwrap())).collect();
    assert_eq!(applied(outcome), wanted, "{:#?}", outcome.problems);
}

#[test]
fn a_bad_object_keeps_its_last_good_version_and_the_rest_applies() {
    let mut state = new();
    let good = workload("a", "127.1.0.1") + &workload("b", "127.1.0.2");
    let outcome = state.apply(files(&[("x.yaml", &good)]));
    expect(&outcome, &[("a", "127.1.0.1"), ("b", "127.1.0.2")]);
    assert!(outcome.problems.is_empty(), "{:#?}", outcome.problems);

    let bad = workload("a", "no-address") + &workload("b", "127.1.0.3");
    let outcome = state.apply(files(&[("x.yaml", &bad)]));
    expect(&outcome, &[("a", "127.1.0.1"), ("b", "127.1.0.3")]);
    assert!(outcome.problems.iter().any(|p| p.refused && p.message.contains("no-address")));

    // Still so when something else changes, and the object goes when it is taken out.
    let outcome = state.apply(files(&[("x.yaml", &bad), ("y.yaml", &workload("c", "127.1.0.4"))]));
    expect(&outcome, &[("a", "127.1.0.1"), ("b", "127.1.0.3"), ("c", "127.1.0.4")]);
    let outcome = state.apply(files(&[("x.yaml", &workload("b", "127.1.0.3"))]));
    expect(&outcome, &[("b", "127.1.0.3")]);
    assert!(outcome.problems.is_empty());
}

#[test]
fn an_unparsable_file_keeps_its_objects_and_a_removed_one_does_not() {
    let mut state = new();
    let (a, b) = (workload("a", "127.1.0.1"), workload("b", "127.1.0.2"));
    state.apply(files(&[("x.yaml", &a), ("y.yaml", &b)]));
    let outcome = state.apply(files(&[("x.yaml", "a: [\nb: }"), ("y.yaml", &b)]));
    expect(&outcome, &[("a", "127.1.0.1"), ("b", "127.1.0.2")]);
    assert!(
        outcome.problems.iter().any(|p| &*p.place.file == "x.yaml" && p.refused),
        "{:#?}",
        outcome.problems
    );

    let unreadable = BTreeMap::from([("x.yaml".into(), Content::Unreadable("denied".into()))]);
    let outcome = state.apply(unreadable);
    expect(&outcome, &[("a", "127.1.0.1")]);
    assert!(outcome.problems.iter().any(|p| p.message.contains("denied")));
    expect(&state.apply(files(&[])), &[]);
}

#[test]
fn an_object_that_moved_to_another_file_is_not_held_twice() {
    let mut state = new();
    state.apply(files(&[("x.yaml", &workload("a", "127.1.0.1"))]));
    let outcome = state.apply(files(&[("x.yaml", "a: ["), ("y.yaml", &workload("a", "127.1.0.9"))]));
    expect(&outcome, &[("a", "127.1.0.9")]);
}

#[test]
fn what_compilation_refuses_keeps_its_last_good_version_too() {
    let mut state = new();
    let (a, b) = (workload("a", "127.1.0.1"), workload("b", "127.1.0.2"));
    state.apply(files(&[("x.yaml", &a), ("y.yaml", &b)]));
    // Two workloads cannot have one address: whichever is refused stays as it was.
    let outcome = state.apply(files(&[("x.yaml", &a), ("y.yaml", &workload("b", "127.1.0.1"))]));
    expect(&outcome, &[("a", "127.1.0.1"), ("b", "127.1.0.2")]);
    assert!(outcome.problems.iter().any(|p| p.refused), "{:#?}", outcome.problems);
    assert_eq!(outcome.objects, 2);
}

#[test]
fn of_two_objects_of_one_name_the_first_applies_also_when_it_changes() {
    let mut state = new();
    let second = workload("a", "127.1.0.2");
    for address in ["127.1.0.1", "127.1.0.3"] {
        let outcome = state.apply(files(&[("x.yaml", &workload("a", address)), ("y.yaml", &second)]));
        expect(&outcome, &[("a", address)]);
        assert_eq!(outcome.problems.len(), 1, "{:#?}", outcome.problems);
        assert_eq!((&*outcome.problems[0].place.file, outcome.objects), ("y.yaml", 1));
    }
    let outcome = state.apply(files(&[("y.yaml", &second)]));
    expect(&outcome, &[("a", "127.1.0.2")]);
}
