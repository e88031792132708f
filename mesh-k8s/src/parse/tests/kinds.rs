//! Which documents are objects of ours, and how the others are told.

use super::{check, parse};

fn document(version: &str, kind: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a, namespace: shop}}\n")
}

#[test]
fn kinds_of_kubernetes_are_skipped() {
    for (version, kind) in [
        ("v1", "ConfigMap"),
        ("v1", "Secret"),
        ("apps/v1", "Deployment"),
        ("batch/v1", "CronJob"),
        ("networking.k8s.io/v1", "Ingress"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("gateway.networking.k8s.io/v1", "Gateway"),
    ] {
        check(&document(version, kind), &[], &[]);
    }
}

#[test]
fn other_kinds_are_reported() {
    let check_wrong =
        |version: &str, kind: &str, problem: &str| check(&document(version, kind), &[], &[problem]);
    check_wrong("v1", "Servce", "!2 kind: did you mean \"Service\"?");
    check_wrong("v2", "Service", "!1 apiVersion: the mesh reads Service of apiVersion \"v1\"");
    check_wrong("meshctl.dev/v1", "Workload", "!1 apiVersion: meshctl.dev/v1alpha1");
    check_wrong("example.com/v1", "Deployment", "!2 kind: is unknown");
    check_wrong(
        "gateway.networking.k8s.io/v1",
        "TLSRoute",
        "!2 kind: the mesh reads Namespace, ServiceAccount",
    );
    check_wrong(
        "gateway.networking.k8s.io/v1alpha2",
        "TCPRoute",
        "!1 apiVersion: specs.smi-spec.io/v1alpha4",
    );
    check_wrong("5", "Service", "!1 apiVersion: 5 is not text");
}

#[test]
fn a_misspelt_kind_keeps_what_was_meant() {
    let object = |version: &str, kind: &str| {
        let (_, problems, recognised) = parse("f", &document(version, kind));
        (problems[0].object.as_ref().map(ToString::to_string), recognised)
    };
    assert_eq!(object("v1", "Servce"), (Some("Service shop/a".to_owned()), true));
    assert_eq!(object("meshctl.dev/v1alpha2", "Workload"), (Some("Workload shop/a".to_owned()), true));
    assert_eq!(object("serving.knative.dev/v1", "Service"), (None, false));
}

#[test]
fn documents_that_are_no_objects() {
    check("just text\n", &[], &["!1 : the document is \"just text\", not an object"]);
    check("# nothing\n---\n- a\n", &[], &["!3 : the document is a list, not an object"]);
    check("apiVersion: v1\n", &[], &["!1 kind: the field is missing"]);
    check("\n\nkind: Service\nmetadata: {name: a}\n", &[], &["!3 apiVersion: add \"apiVersion: v1\""]);
    check("apiVersion: v1\nkind: Namespace\n", &[], &["!1 metadata: the field is missing"]);
    check(
        "apiVersion: v1\nkind: Namespace\nmetadata: {}\n",
        &[],
        &["!3 metadata.name: the field is missing"],
    );
}

#[test]
fn a_broken_document_hides_no_other() {
    let good = document("v1", "ServiceAccount");
    let broken = "apiVersion: v1\nkind: Service\nmetadata:\n  name: cart\n  namespace: shop\nspec: [\n";
    let text = format!("{good}---\n{broken}---\n{}", good.replace("name: a", "name: b"));
    let objects = ["ServiceAccount shop/a", "ServiceAccount shop/b"];
    let (found, problems, recognised) = parse("f", &text);
    assert_eq!(found.iter().map(|o| o.reference().to_string()).collect::<Vec<_>>(), objects);
    assert!(recognised, "the broken document is told by kind and name");
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].object.as_ref().unwrap().to_string(), "Service shop/cart");
    assert!((10..=12).contains(&problems[0].place.line), "{}", problems[0]);
    assert!(problems[0].message.starts_with("the document is no YAML: "), "{}", problems[0]);

    let (found, _, recognised) = parse("f", &format!("{good}---\nspec: [\n"));
    assert_eq!((found.len(), recognised), (1, false));
}

#[test]
fn lists_hold_objects() {
    let text = "apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: a}
- apiVersion: v1
  kind: Namespace
  metadata: {name: b, colour: red}
";
    check(text, &["Namespace a"], &["!9 metadata.colour: the field is unknown"]);
}

#[test]
fn places_are_those_of_the_first_key() {
    let text = "# comment\n---\n\n# more\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    let (found, ..) = parse("dir/f.yaml", text);
    assert_eq!(found[0].place.to_string(), "dir/f.yaml:5");
}

/// Reads one document of which it cannot be told which object it is: what the file held before must stay.
#[track_caller]
fn check_unrecognised(text: &str, problem: &str) {
    check(text, &[], &[problem]);
    assert!(!parse("f", text).2);
}

#[test]
fn two_objects_in_one_document_are_told() {
    let two =
        document("v1", "ServiceAccount") + &document("v1", "ServiceAccount").replace("name: a", "name: b");
    check_unrecognised(&two, "!4 : put a line \"---\" between them");
    let broken = format!("{two}spec: [\n");
    let (found, problems, recognised) = parse("f", &broken);
    assert_eq!((found.len(), problems.len(), recognised), (0, 1, false));
    assert!(problems[0].object.is_none(), "{}", problems[0]);
}

#[test]
fn an_object_whose_name_is_in_doubt_is_not_named() {
    let metadata = |text: &str| format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{{text}}}\n");
    check_unrecognised(&metadata("name: a_b, namespace: shop"), "!3 metadata.name: is not a name");
    check_unrecognised(&metadata("name: a, namespace: Shop"), "!3 metadata.namespace: is not a namespace");
    check_unrecognised(&metadata("name: a, namespace: 7"), "!3 metadata.namespace: is not text");
    check_unrecognised(&metadata("name: a, namespce: shop"), "!3 metadata.namespce: did you mean");
    check_unrecognised(&metadata("name: a, name: b"), "!3 metadata.name: is there twice");
}
