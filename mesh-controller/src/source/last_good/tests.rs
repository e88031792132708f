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
    outcome.compiled.workloads.values().map(|w| (w.workload.name.to_string(), w.address.unwrap())).collect()
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

#[test]
fn a_newcomer_takes_nothing_from_what_runs() {
    let mut state = new();
    let old = workload("z", "127.1.0.1");
    state.apply(files(&[("z.yaml", &old)]));
    // The same name, or the same address, in a file that comes first.
    for newcomer in [workload("z", "127.1.0.9"), workload("a", "127.1.0.1")] {
        let outcome = state.apply(files(&[("a.yaml", &newcomer), ("z.yaml", &old)]));
        expect(&outcome, &[("z", "127.1.0.1")]);
        assert!(outcome.problems.iter().any(|p| p.refused && &*p.place.file == "a.yaml"));
    }
    let two = workload("a", "127.1.0.2") + &old;
    expect(&state.apply(files(&[("x.yaml", &two)])), &[("a", "127.1.0.2"), ("z", "127.1.0.1")]);
    // An edit is a newcomer too: it falls back to what it was.
    let edited = workload("a", "127.1.0.1") + &old;
    expect(&state.apply(files(&[("x.yaml", &edited)])), &[("a", "127.1.0.2"), ("z", "127.1.0.1")]);
}

#[test]
fn edits_that_hide_which_object_is_meant_keep_all_of_the_file() {
    let mut state = new();
    let good = workload("a", "127.1.0.1") + &workload("b", "127.1.0.2");
    let both = [("a", "127.1.0.1"), ("b", "127.1.0.2")];
    let no_marker = good.replacen("---\n", "", 1);
    for bad in [no_marker.clone(), format!("{no_marker}x: ["), good.replace("name: b,", "name: b_,")] {
        expect(&state.apply(files(&[("x.yaml", &good)])), &both);
        let outcome = state.apply(files(&[("x.yaml", &bad)]));
        expect(&outcome, &both);
        assert!(outcome.problems.iter().any(|p| p.refused), "{bad}");
    }
}

/// A workload that runs under `default`, and who may call it.
fn guarded(targets: &str) -> String {
    workload("a", "127.1.0.1") + targets
}

const TARGET: &str = "apiVersion: access.smi-spec.io/v1alpha3\nkind: TrafficTarget\n\
    metadata: {name: t, namespace: shop}\nspec:\n\
    \x20 destination: {kind: ServiceAccount, name: default}\n\
    \x20 sources: [{kind: ServiceAccount, name: default}]\n\
    \x20 rules: [{kind: TCPRoute, name: any}]\n---\n\
    apiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\nmetadata: {name: any, namespace: shop}\n";

/// Whether a caller under `default` and one without identity get in.
fn callers(outcome: &Outcome) -> [bool; 2] {
    let policy = &outcome.compiled.workloads.values().next().unwrap().policy;
    let caller = "spiffe://cluster.local/ns/shop/sa/default".parse().unwrap();
    [Some(&caller), None].map(|source| {
        let call = mesh_core::policy::Call { source, port: 8080, request: None };
        mesh_core::policy::decide(policy, &call).is_allowed()
    })
}

#[test]
fn a_target_that_was_never_good_closes_and_a_good_one_stays() {
    let broken = guarded(&TARGET.replace("rules:", "ruls:"));
    let mut state = new();
    // It is never taken for good, so a change elsewhere opens nothing.
    for extra in ["", "# changed\n"] {
        let outcome = state.apply(files(&[("x.yaml", &format!("{extra}{broken}"))]));
        assert_eq!(callers(&outcome), [false, false]);
        assert!(outcome.problems.iter().any(|p| p.message.contains("closed until it is mended")));
        assert_eq!(outcome.objects, 2, "a stand-in is no object");
    }
    let outcome = state.apply(files(&[("x.yaml", &guarded(TARGET))]));
    assert_eq!((callers(&outcome), outcome.problems.len()), ([true, false], 0));
    let outcome = state.apply(files(&[("x.yaml", &broken)]));
    assert_eq!(callers(&outcome), [true, false]);
    assert!(!outcome.problems.iter().any(|p| p.message.contains("closed until")), "{:#?}", outcome.problems);
    let outcome = state.apply(files(&[("x.yaml", &guarded(""))]));
    assert_eq!(callers(&outcome), [true, true]);
}

#[test]
fn a_namespace_that_was_never_good_is_closed() {
    let namespace = |policy: &str| {
        guarded(&format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{meshctl.dev/default-policy: {policy}}}}}\n"
        ))
    };
    let mut state = new();
    assert_eq!(callers(&state.apply(files(&[("x.yaml", &namespace("alow"))]))), [false, false]);
    assert_eq!(callers(&state.apply(files(&[("x.yaml", &namespace("authenticated"))]))), [true, false]);
    assert_eq!(callers(&state.apply(files(&[("x.yaml", &namespace("alow"))]))), [true, false]);
}
