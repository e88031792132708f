//! HTTPRoute.

use super::{check, check_refused, parse};
use crate::object::Object;

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs:
  - {group: '', kind: Service, name: catalog, port: 80}
  rules:
  - name: first
    matches:
    - path: {type: PathPrefix, value: /api}
      method: GET
      headers: [{name: X-User, value: anna}, {type: RegularExpression, name: x-b, value: '[0-9]+'}]
      queryParams: [{name: q, value: '1'}]
    backendRefs:
    - {name: catalog-v1, port: 80, weight: 90}
    - {name: catalog-v2, namespace: other, port: 80}
";

#[test]
fn a_route() {
    check(ROUTE, &["HTTPRoute shop/r"], &[]);
    let (found, ..) = parse("f", ROUTE);
    let Object::HttpRoute(route) = &found[0].object else { panic!("an HTTPRoute") };
    let [rule] = route.rules.as_slice() else { panic!("one rule") };
    assert_eq!((rule.backends[0].weight, rule.backends[1].weight), (90, 1));
    assert_eq!(&*rule.backends[1].service.namespace, "other");
    assert_eq!(rule.matches[0].headers[0].0.as_str(), "x-user");
}

#[test]
fn mistakes_in_a_route() {
    let bad = |part: &str, replacement: &str, problem: &str| check_refused(ROUTE, part, replacement, problem);
    bad(
        "weight: 90",
        "weight: -1",
        "!15 spec.rules[0].backendRefs[0].weight: -1 is not a weight (0 to 1000000)",
    );
    bad("weight: 90", "weight: 1000001", "!15 spec.rules[0].backendRefs[0].weight: is not a weight");
    bad("weight: 90", "weight: 1.5", "!15 spec.rules[0].backendRefs[0].weight: 1.5 is not a weight");
    bad("port: 80, weight: 90", "weight: 90", "!15 spec.rules[0].backendRefs[0].port: the field is missing");
    bad("name: first", "sessionPersistence: {}", "!8 spec.rules[0].sessionPersistence: not supported yet");
    bad("name: first", "name: First", "!8 spec.rules[0].name: is not the name of a rule");
    bad("GET", "GETS", "!11 spec.rules[0].matches[0].method: did you mean \"GET\"?");
    bad("PathPrefix", "Prefix", "!10 spec.rules[0].matches[0].path.type: is not one of Exact, PathPrefix");
    bad("value: /api", "value: api", "!10 spec.rules[0].matches[0].path.value: begin it with \"/\"");
    bad("value: /api", "value: /a//b", "!10 spec.rules[0].matches[0].path.value: write \"/a/b\"");
    bad("value: /api", "value: /a%2fb", "!10 spec.rules[0].matches[0].path.value: one way only");
    bad("'[0-9]+'", "'(?=a)'", "!12 spec.rules[0].matches[0].headers[1].value: look-around");
    bad("name: x-b", "name: x-user", "!12 spec.rules[0].matches[0].headers[1]: header x-user is there twice");
    bad("name: x-b", "name: 'x b'", "!12 spec.rules[0].matches[0].headers[1]: is not the name of a header");
    bad(
        "name: catalog, port: 80}",
        "name: catalog, sectionName: x}",
        "!6 spec.parentRefs[0].sectionName: not supported yet",
    );
    bad(
        "name: catalog,",
        "name: catalog, namespace: other,",
        "!6 spec.parentRefs[0].namespace: consumer routes",
    );
    bad("  rules:", "  hostname: [a]\n  rules:", "!7 spec.hostname: did you mean \"hostnames\"?");
}

#[test]
fn what_a_route_can_live_with() {
    let check_warned = |part: &str, replacement: &str, problem: &str| {
        check(&ROUTE.replace(part, replacement), &["HTTPRoute shop/r"], &[problem]);
    };
    check_warned("  rules:", "  hostnames: [a.example]\n  rules:", "7 spec.hostnames: have no effect");
    check_warned("  rules:", "  - {name: edge}\n  rules:", "7 spec.parentRefs[1]: the parent is no Service");
}

#[test]
fn routes_need_a_service_as_parent() {
    let bad = ROUTE.replace("group: '', kind: Service, name: catalog, port: 80", "name: edge");
    check(&bad, &[], &["6 spec.parentRefs[0]: is no Service", "!6 spec.parentRefs: no parent is a Service"]);
}

#[test]
fn weights_that_sum_to_nothing_are_told() {
    let text = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{kind: Service, name: a}]
  rules:
  - backendRefs:
    - {name: b, port: 80, weight: 0}
  - matches: [{method: GET}]
";
    check(
        text,
        &["HTTPRoute default/r"],
        &["8 spec.rules[0].backendRefs: the weights sum to 0", "9 spec.rules[1]: the rule has no backends"],
    );
}

#[test]
fn what_proxies_would_refuse_is_refused() {
    let bad = |part: &str, replacement: &str, problem: &str| check_refused(ROUTE, part, replacement, problem);
    let rule = "spec.rules[0].matches[0]";
    bad(
        "value: anna",
        "value: \"a\\nb\"",
        &format!("!12 {rule}.headers[0].value: without control characters"),
    );
    bad(
        "value: '1'",
        "value: \"\\e\"",
        &format!("!13 {rule}.queryParams[0].value: without control characters"),
    );
    bad("name: q", "name: ''", &format!("!13 {rule}.queryParams[0].name: write its name"));
    bad("name: q", "name: \"q\\t\"", &format!("!13 {rule}.queryParams[0].name: without control characters"));
    bad("value: /api", "value: \"/a\\x7fi\"", &format!("!10 {rule}.path.value: control characters"));
    let many: Vec<String> = (0..65).map(|n| format!("{{name: q{n}, value: a}}")).collect();
    bad("{name: q, value: '1'}", &many.join(", "), &format!("!13 {rule}.queryParams: at most 64 are read"));
    let many = vec!["{method: GET}"; 4097].join(", ");
    let long = format!("matches: [{many}]\n    ignored:");
    let text = ROUTE.replace("matches:", &long);
    let (found, problems, _) = parse("f", &text);
    assert!(
        found.is_empty() && problems.iter().any(|p| p.message.contains("at most 4096 are read")),
        "{problems:?}"
    );
}
