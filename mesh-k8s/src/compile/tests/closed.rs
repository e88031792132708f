//! What refused objects close, and who wins.

use std::fmt::Write;

use mesh_core::{
    name::WorkloadRef,
    policy::{DefaultAction, PolicySet, TlsMode},
};

use super::{SHOP, settings};
use crate::{
    compile::{Compiled, compile},
    object::{Located, Standing},
    parse::parse,
};

const TARGET: &str = "apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: only, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: catalog, namespace: shop}
  sources: [{kind: ServiceAccount, name: inventory, namespace: shop}]
  rules: [{kind: TCPRoute, name: any}]
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: any, namespace: shop}
";

/// Compiles what can be read of `text` beside the shop.
fn first_start(text: &str) -> Compiled {
    let mut objects = parse("shop.yaml", SHOP).0;
    objects.extend(parse("x.yaml", text).0);
    compile(&objects, &settings())
}

fn policy<'c>(compiled: &'c Compiled, workload: &str) -> &'c PolicySet {
    &compiled.workloads[&WorkloadRef::new("shop", workload)].policy
}

/// Expects catalog closed by TrafficTarget `only`, told as such, and inventory as it was.
#[track_caller]
fn check_closed(text: &str) {
    let compiled = first_start(text);
    let found = policy(&compiled, "catalog-v1-a");
    assert_eq!((found.default_action, found.rules.len()), (DefaultAction::Deny, 0), "{text}");
    assert_eq!(found.default_source.to_string(), "TrafficTarget shop/only", "{text}");
    let told =
        |p: &&crate::Problem| p.message.contains("ServiceAccount shop/catalog is closed until it is mended");
    assert_eq!(compiled.problems.iter().filter(told).count(), 1, "{text} {:#?}", compiled.problems);
    assert_eq!(policy(&compiled, "inventory").default_action, DefaultAction::Allow, "{text}");
}

#[test]
fn a_refused_traffic_target_closes_its_destination() {
    let good = first_start(TARGET);
    assert!(good.problems.is_empty(), "{:#?}", good.problems);
    assert_eq!(policy(&good, "catalog-v1-a").rules.len(), 1);
    check_closed(&TARGET.replace("sources:", "surces:"));
    check_closed(&TARGET.replace("kind: TCPRoute, name: any}]", "kind: TCPRute, name: any}]"));
    check_closed(&TARGET.replace("v1alpha3", "v1alpha2"));
    check_closed(&TARGET.replace("kind: TrafficTarget", "kind: TraficTarget"));
    check_closed(
        &TARGET
            .replace("metadata: {name: only, namespace: shop}", "metadata: {name: only, namespace: web}")
            .replace("namespace: web", "namespace: shop, colour: red"),
    );
    check_closed(&TARGET.replacen("---\n", "", 1));

    let outside = first_start(&TARGET.replace("only, namespace: shop", "only, namespace: web"));
    assert_eq!(policy(&outside, "catalog-v1-a").default_action, DefaultAction::Deny);
}

#[test]
fn the_second_of_a_name_closes_its_destination_too() {
    let second = TARGET.split("---").next().unwrap().replace("name: catalog", "name: inventory");
    let compiled = first_start(&format!("{TARGET}---\n{second}"));
    assert_eq!(policy(&compiled, "catalog-v1-a").rules.len(), 1);
    assert_eq!(policy(&compiled, "inventory").default_action, DefaultAction::Deny);
    assert_eq!(compiled.problems.len(), 2, "{:#?}", compiled.problems);
}

#[test]
fn a_refused_target_beside_a_good_one_closes_nothing_more() {
    let broken = TARGET.split("---").next().unwrap().replace("rules:", "ruls:").replace("only", "more");
    let compiled = first_start(&format!("{TARGET}---\n{broken}"));
    assert_eq!(policy(&compiled, "catalog-v1-a").rules.len(), 1);
    assert!(compiled.problems.is_empty(), "{:#?}", compiled.problems);
}

#[test]
fn options_of_a_namespace_that_cannot_be_read_close_it() {
    let check = |rest: &str, expected: (DefaultAction, TlsMode)| {
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n{rest}\n");
        let compiled = first_start(&text);
        let found = policy(&compiled, "catalog-v1-a");
        assert_eq!((found.default_action, found.tls_mode), expected, "{rest}");
        let closed = expected != (DefaultAction::Allow, TlsMode::Permissive);
        let told = compiled.problems.iter().any(|p| p.message.contains("closed until it is mended"));
        assert_eq!(told, closed, "{rest} {:#?}", compiled.problems);
    };
    let (open, deny) = (TlsMode::Permissive, DefaultAction::Deny);
    check("  labels: {meshctl.dev/default-policy: dney}", (deny, open));
    check("  labels: {meshctl.dev/default-polcy: deny}", (deny, open));
    check("  labels: {meshctl.dev/default-policy: true}", (deny, open));
    check("  labels: {meshctl.dev/mtls: stict}", (DefaultAction::Allow, TlsMode::Strict));
    check(
        "  labels: {meshctl.dev/mtls: strict}\n  annotations: {meshctl.dev/mtls: permissive}",
        (DefaultAction::Allow, TlsMode::Strict),
    );
    check("  annotatons: {meshctl.dev/default-policy: smi}", (deny, TlsMode::Strict));
    check("  annotations: [", (deny, TlsMode::Strict));
    check("  labels: {app: 7}", (DefaultAction::Allow, open));
}

#[test]
fn what_ran_before_wins_over_newcomers() {
    let mut objects: Vec<Located> = parse("z.yaml", SHOP).0;
    let newcomers = "apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: shop}
spec: {ports: [{port: 99}]}
---
apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: thief, namespace: shop}
spec: {address: 127.1.0.3, ports: [{port: 8080}]}
";
    objects.extend(parse("a.yaml", newcomers).0);
    let refused = |objects: &[Located]| {
        let compiled = compile(objects, &settings());
        compiled.refused.iter().map(|(object, place)| format!("{place} {object}")).collect::<Vec<_>>()
    };
    assert_eq!(refused(&objects), ["z.yaml:2 Service shop/catalog", "z.yaml:22 Workload shop/catalog-v1-a"]);
    for object in objects.iter_mut().filter(|object| &*object.place.file == "z.yaml") {
        object.standing = Standing::Unchanged;
    }
    assert_eq!(refused(&objects), ["a.yaml:1 Service shop/catalog", "a.yaml:6 Workload shop/thief"]);
}

#[test]
fn lists_that_proxies_would_refuse_are_refused() {
    let mut matches = String::new();
    for number in 0..1400 {
        writeln!(matches, "    - {{path: {{type: Exact, value: /{number}}}}}").unwrap();
    }
    let route = |name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\nspec:
  parentRefs: [{{kind: Service, group: '', name: catalog}}]\n  rules:
  - backendRefs: [{{name: catalog-v1, port: 80}}]\n    matches:\n{matches}---\n"
        )
    };
    let compiled = first_start(&[route("a"), route("b"), route("c")].concat());
    let refused: Vec<String> = compiled.refused.iter().map(|(object, _)| object.to_string()).collect();
    assert_eq!(refused, ["HTTPRoute shop/c"]);
    assert_eq!(compiled.services[&super::port("shop/catalog:80")].rules.len(), 2800);
}
