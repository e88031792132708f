//! Proxies accept everything that is compiled: what they would refuse, parsing and compiling refuse.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fmt::Write as _;

use mesh_core::config::{Destination, Endpoint};
use mesh_core::resource::DestinationKey;
use mesh_k8s::{Compiled, Settings};
use mesh_proto::convert::Wire;

const SHOP: &str = include_str!("../../mesh-k8s/src/parse/tests/good.yaml");

fn compiled(text: &str) -> Compiled {
    let (objects, _, _) = mesh_k8s::parse("x.yaml", text);
    let settings =
        Settings { trust_domain: "cluster.local".parse().unwrap(), cluster_domain: "cluster.local".into() };
    mesh_k8s::compile(&objects, &settings)
}

#[track_caller]
fn survives<T: Wire + PartialEq + std::fmt::Debug>(value: &T, text: &str) {
    let again = T::from_wire(&value.to_wire());
    assert!(again.as_ref() == Ok(value), "{:?} of {:.2000}", again.err(), text);
}

/// Compiles `text`; everything of it must survive the wire. Returns how many things that were.
#[track_caller]
fn check(text: &str) -> usize {
    let compiled = compiled(text);
    for config in compiled.workloads.values() {
        survives(config, text);
    }
    for routes in compiled.services.values() {
        survives(routes, text);
        survives(&Destination::Service(routes.clone()), text);
        let host = format!("{}.{}:{}", routes.service.name, routes.service.namespace, routes.service.port);
        survives(&compiled.destination(&DestinationKey::Host(host.parse().unwrap()), "shop").0, text);
    }
    for endpoints in compiled.endpoints.values() {
        survives::<Vec<Endpoint>>(endpoints, text);
    }
    compiled.workloads.len() + compiled.services.len() + compiled.endpoints.len()
}

#[test]
fn odd_values_never_reach_a_proxy() {
    assert!(check(SHOP) > 3);
    let odd = ["\"a\\nb\"", "\"\\e\"", "''", "\"/\\x7f\"", "\"\\u0085\"", "[]", "null", "7"];
    let long = "x".repeat(5000);
    let lines: Vec<&str> = SHOP.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        // Every scalar of the line, one at a time.
        for (begin, _) in line.match_indices(": ") {
            let rest = &line[begin + 2..];
            let end = begin + 2 + rest.find([',', '}', ']']).unwrap_or(rest.len());
            for value in odd.into_iter().chain([long.as_str()]) {
                let changed = format!("{}{value}{}", &line[..begin + 2], &line[end..]);
                let mut all = lines.clone();
                all[at] = &changed;
                check(&all.join("\n"));
            }
        }
    }
}

/// `count` items of a flow list.
fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(", ")
}

#[test]
fn long_lists_never_reach_a_proxy() {
    let mut text = String::new();
    for route in 0..3 {
        let matches = list(2000, |n| format!("{{path: {{value: /{route}/{n}}}}}"));
        writeln!(
            text,
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{route}}}\nspec:
  parentRefs: [{{group: '', kind: Service, name: web}}]
  rules: [{{backendRefs: [{{name: web, port: 80}}], matches: [{matches}]}}]"
        )
        .unwrap();
    }
    writeln!(
        text,
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{selector: {{a: b}}, ports: [{{port: 80}}]}}"
    )
    .unwrap();
    for number in 0..10_001 {
        writeln!(
            text,
            "---\napiVersion: meshctl.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w{number}, labels: {{a: b}}}}
spec: {{address: 10.0.{}.{}, ports: [{{port: 80}}]}}",
            number / 250,
            number % 250 + 1
        )
        .unwrap();
    }
    let compiled = compiled(&text);
    let web = "default/web:80".parse().unwrap();
    assert_eq!((compiled.services[&web].rules.len(), compiled.endpoints[&web].len()), (4000, 10_000));
    survives(&compiled.services[&web], "long lists");
    survives(&compiled.endpoints[&web], "long lists");
    assert_eq!(compiled.problems.len(), 2, "{:#?}", compiled.problems);
}

#[test]
fn long_policies_never_reach_a_proxy() {
    let mut text = "apiVersion: meshctl.dev/v1alpha1\nkind: Workload\nmetadata: {name: w}
spec: {address: 10.0.0.1, ports: [{port: 80}]}\n"
        .to_owned();
    for group in 0..3 {
        let matches = list(2000, |n| format!("{{name: m{n}, methods: [GET]}}"));
        writeln!(
            text,
            "---\napiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {{name: g{group}}}\nspec: {{matches: [{matches}]}}"
        )
        .unwrap();
    }
    let rules = list(3, |n| format!("{{kind: HTTPRouteGroup, name: g{n}}}"));
    writeln!(
        text,
        "---\napiVersion: access.smi-spec.io/v1alpha3\nkind: TrafficTarget\nmetadata: {{name: t}}\nspec:
  destination: {{kind: ServiceAccount, name: default}}
  sources: [{{kind: ServiceAccount, name: default}}]
  rules: [{rules}]"
    )
    .unwrap();
    check(&text);
    let compiled = compiled(&text);
    let policy = &compiled.workloads.values().next().unwrap().policy;
    assert_eq!((policy.default_action, policy.rules.len()), (mesh_core::policy::DefaultAction::Deny, 0));
    assert_eq!(compiled.refused.len(), 1, "{:#?}", compiled.problems);
}
