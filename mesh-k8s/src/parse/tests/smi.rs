//! TrafficSplit, TrafficTarget, HTTPRouteGroup and TCPRoute.

use mesh_core::matching::PathMatch;

use super::{check, check_refused, parse};
use crate::object::Object;

const SPLIT: &str = "apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: s, namespace: shop}
spec:
  service: catalog.shop.svc.cluster.local
  backends:
  - {service: catalog-v1, weight: 90}
  - {service: catalog-v2.shop, weight: 10}
  matches:
  - {apiGroup: specs.smi-spec.io, kind: HTTPRouteGroup, name: writes}
";

const TARGET: &str = "apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: t, namespace: shop}
spec:
  destination: {kind: ServiceAccount, name: catalog, namespace: shop}
  sources:
  - {kind: ServiceAccount, name: storefront, namespace: web}
  rules:
  - {kind: HTTPRouteGroup, name: web, matches: [items]}
  - {kind: TCPRoute, name: tcp}
";

const GROUP: &str = "apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: web, namespace: shop}
spec:
  matches:
  - name: items
    pathRegex: /items/[0-9]+
    methods: [GET, '*']
    headers: {User-Agent: 'curl/.*'}
  - name: more
    headers:
    - {x-a: a, x-b: b}
    - {x-c: c}
";

#[test]
fn good_objects() {
    check(SPLIT, &["TrafficSplit shop/s"], &[]);
    check(TARGET, &["TrafficTarget shop/t"], &[]);
    check(GROUP, &["HTTPRouteGroup shop/web"], &[]);
    let tcp = "apiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\nmetadata: {name: tcp}\n";
    check(tcp, &["TCPRoute default/tcp"], &[]);
    check(&format!("{tcp}spec: {{matches: {{name: x, ports: [80, 81]}}}}\n"), &["TCPRoute default/tcp"], &[]);
    check(
        &format!("{tcp}spec: {{matches: {{ports: [0]}}}}\n"),
        &[],
        &["!4 spec.matches.ports[0]: 0 is not a port"],
    );
    let (found, ..) = parse("f", GROUP);
    let Object::HttpRouteGroup(group) = &found[0].object else { panic!("an HTTPRouteGroup") };
    let (name, items) = &group.matches[0];
    assert_eq!((name.as_str(), items.methods.len(), items.headers.len()), ("items", 0, 1));
    assert!(
        matches!(&items.path, Some(PathMatch::Regex(p)) if p.matches("/items/7/x") && !p.matches("/a/items/7"))
    );
    assert_eq!(group.matches[1].1.headers.len(), 3);
    let (found, ..) = parse("f", SPLIT);
    let Object::TrafficSplit(split) = &found[0].object else { panic!("a TrafficSplit") };
    assert_eq!((&*split.service.value, &*split.backends[1].service), ("catalog", "catalog-v2"));
}

#[test]
fn mistakes_in_a_split() {
    let bad = |part: &str, replacement: &str, problem: &str| check_refused(SPLIT, part, replacement, problem);
    bad("weight: 90", "weight: -90", "!7 spec.backends[0].weight: -90 is not a weight");
    bad("weight: 90", "weight: 900m", "!7 spec.backends[0].weight: \"900m\" is not a weight");
    bad("weight: 90", "wieght: 90", "!7 spec.backends[0].wieght: did you mean \"weight\"?");
    bad(
        "service: catalog-v1",
        "service: catalog",
        "!7 spec.backends[0].service: Service catalog is split to itself",
    );
    bad(
        "service: catalog-v1",
        "service: catalog-v2",
        "!8 spec.backends[1].service: catalog-v2 is there twice",
    );
    bad("catalog-v2.shop", "catalog-v2.other", "!8 spec.backends[1].service: of the split's own namespace");
    bad("kind: HTTPRouteGroup", "kind: TCPRoute", "!10 spec.matches[0].kind: is not one of HTTPRouteGroup");
    let zero = SPLIT.replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 0");
    check(
        &zero,
        &[],
        &["!7 spec.backends: the weights sum to 0; give at least one backend a weight above 0"],
    );
}

#[test]
fn mistakes_in_a_target() {
    let bad =
        |part: &str, replacement: &str, problem: &str| check_refused(TARGET, part, replacement, problem);
    bad(
        "name: catalog, namespace: shop",
        "name: catalog, namespace: web",
        "!5 spec.destination.namespace: put the TrafficTarget into namespace web",
    );
    bad("name: catalog,", "name: catalog, port: 80,", "!5 spec.destination.port: the field is unknown");
    bad(
        "kind: ServiceAccount, name: storefront",
        "kind: Pod, name: storefront",
        "!7 spec.sources[0].kind: ServiceAccount",
    );
    bad(
        "kind: TCPRoute, name: tcp",
        "kind: UDPRoute, name: udp",
        "!10 spec.rules[1].kind: UDPRoute is not supported",
    );
    bad("name: tcp", "name: tcp, matches: [a]", "!10 spec.rules[1].matches: has no matches by name");
    let start = TARGET.find("  rules:").unwrap();
    check(&TARGET[..start], &[], &["!5 spec.rules: the field is missing"]);
}

#[test]
fn mistakes_in_a_group() {
    let bad = |part: &str, replacement: &str, problem: &str| check_refused(GROUP, part, replacement, problem);
    bad("/items/[0-9]+", "/items/(", "!7 spec.matches[0].pathRegex: unclosed group");
    bad("/items/[0-9]+", "'/(?!x)'", "!7 spec.matches[0].pathRegex: look-around");
    bad("[GET, '*']", "[get]", "!8 spec.matches[0].methods[0]: did you mean \"GET\"?");
    bad("name: more", "name: items", "!10 spec.matches[1].name: items is there twice, first in line 6");
    bad("  - name: more\n    headers:", "  - headers:", "!10 spec.matches[1].name: the field is missing");
    bad("x-c: c", "x-c: 7", "!13 spec.matches[1].headers[1][x-c]: 7 is not text");
}

#[test]
fn matches_outside_of_spec_are_read() {
    let old = GROUP.replace("spec:\n  matches:", "matches:");
    check(&old, &["HTTPRouteGroup shop/web"], &["5 matches: matches stand outside of spec"]);
}
