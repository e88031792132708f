//! TrafficPolicies, and what routes do to calls.

use std::time::Duration;

use mesh_core::{
    filter::Filter,
    name::{Host, WorkloadRef},
    resource::DestinationKey,
};

use super::{Compiled, SHOP, check_problems, compiled, port};

fn policy(name: &str, target: &str, rest: &str) -> String {
    format!(
        "apiVersion: meshctl.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: {name}, namespace: shop}}
spec:\n  targetRef: {{kind: Service, {target}}}\n{rest}\n"
    )
}

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{kind: Service, name: catalog}]
  rules:
  - matches: [{path: {value: /a}}]
    timeouts: {request: 3s}
    retry: {}
    filters: [FILTER]
    backendRefs: [{name: catalog-v1, port: 80}]
";

fn calls(compiled: &Compiled, service: &str) -> Option<Duration> {
    compiled.services[&port(service)].calls.timeouts.request
}

#[test]
fn calls_backends_and_workloads_are_told() {
    let catalog = policy(
        "p",
        "name: catalog",
        "  timeouts: {request: 9s}\n  circuitBreaker: {maxRequests: 7}\n  rateLimits: [{requests: 5, interval: 1s}]",
    );
    let v1 = policy(
        "v1",
        "name: catalog-v1",
        "  circuitBreaker: {maxRequests: 3}\n  rateLimits: [{requests: 6, interval: 1s}]",
    );
    let route = ROUTE.replace("FILTER", "");
    let found = compiled(&[SHOP, &catalog, &v1, &route]);
    check_problems(&found, &[]);
    assert_eq!(calls(&found, "shop/catalog:80"), Some(Duration::from_secs(9)));
    assert_eq!(calls(&found, "shop/catalog-v1:80"), None);
    let routes = &found.services[&port("shop/catalog:80")];
    let rule = &routes.rules[0];
    assert_eq!((rule.timeouts.request, rule.retry.is_some()), (Some(Duration::from_secs(3)), true));
    let object = |at: &str| {
        let rule = &found.services[&port(at)].rules[0];
        rule.backends[0].settings.as_ref().and_then(|s| s.object.clone()).map(|o| o.name.to_string())
    };
    assert_eq!(object("shop/catalog:80").as_deref(), Some("v1"), "the settings are those of the backend");
    assert_eq!(object("shop/catalog-v2:80"), None);
    let inbound = |name: &str| &found.workloads[&WorkloadRef::new("shop", name)].inbound[0].limits;
    let rates = |name: &str| inbound(name).rates.iter().map(|rate| rate.requests).collect::<Vec<_>>();
    assert_eq!(
        (rates("catalog-v1-a"), rates("catalog-v2-a"), rates("inventory")),
        (vec![5, 6], vec![5], vec![])
    );
}

#[test]
fn the_port_wins_and_of_two_the_first() {
    let all = policy("all", "name: catalog", "  timeouts: {request: 9s}");
    let one = policy("one", "name: catalog, port: 80", "  timeouts: {idle: 2s}");
    let found = compiled(&[SHOP, &all, &one]);
    check_problems(&found, &[]);
    assert_eq!(calls(&found, "shop/catalog:80"), None, "policies are not merged");
    let second = policy("second", "name: catalog", "  timeouts: {request: 8s}");
    let found = compiled(&[SHOP, &all, &second]);
    check_problems(
        &found,
        &["!!2.yaml:5 spec.targetRef: TrafficPolicy shop/all is attached to Service catalog"],
    );
    assert_eq!(calls(&found, "shop/catalog:80"), Some(Duration::from_secs(9)));
}

#[test]
fn what_has_no_effect_is_told() {
    let check = |target: &str, rest: &str, problems: &[&str]| {
        check_problems(&compiled(&[SHOP, &policy("p", target, rest)]), problems);
    };
    let idle = "  timeouts: {idle: 1s}";
    check("name: catalogue", idle, &["1.yaml:5 spec.targetRef.name: did you mean \"catalog\"?"]);
    check("name: catalog, port: 81", idle, &["1.yaml:5 spec.targetRef.port: it has 80"]);
    check("name: inventory", idle, &[]);
    check("name: inventory", "  retry: {}", &["1.yaml:5 spec.targetRef: retry has no effect"]);
}

#[test]
fn filters_lead_to_what_exists() {
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: NAME, port: 80}}}";
    let to = |name: &str| ROUTE.replace("FILTER", &mirror.replace("NAME", name));
    let found = compiled(&[SHOP, &to("catalog-v2")]);
    check_problems(&found, &[]);
    let key = DestinationKey::Host(Host { name: "catalog".into(), port: None });
    let (_, needed) = found.destination(&key, "shop");
    assert_eq!(needed, [port("shop/catalog-v1:80"), port("shop/catalog-v2:80")], "copies need endpoints");
    let policy =
        "apiVersion: meshctl.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: v2, namespace: shop}
spec: {targetRef: {kind: Service, name: catalog-v2}, healthCheck: {tcp: {}}}\n";
    let found = compiled(&[SHOP, policy, &to("catalog-v2")]);
    let rule = &found.services[&port("shop/catalog:80")].rules[0];
    let Filter::Mirror(mirror) = &rule.filters[0] else { panic!("{rule:?}") };
    assert!(mirror.settings.as_ref().is_some_and(|settings| settings.health.is_some()), "{mirror:?}");
    let found = compiled(&[SHOP, &to("catalog-v3")]);
    check_problems(
        &found,
        &["1.yaml:10 spec.rules[0].filters[0].requestMirror.backendRef: nothing is copied"],
    );
    assert!(found.services[&port("shop/catalog:80")].rules[0].filters.is_empty());
}

#[test]
fn routes_answer_by_a_policy() {
    let answer =
        "apiVersion: meshctl.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: closed, namespace: shop}
spec: {directResponse: {status: 503, body: closed}}\n";
    let extension =
        "{type: ExtensionRef, extensionRef: {group: meshctl.dev, kind: TrafficPolicy, name: closed}}";
    let route =
        ROUTE.replace("FILTER", extension).replace("    backendRefs: [{name: catalog-v1, port: 80}]\n", "");
    let found = compiled(&[SHOP, answer, &route]);
    check_problems(&found, &[]);
    let rule = &found.services[&port("shop/catalog:80")].rules[0];
    assert!(
        matches!(rule.filters.as_slice(), [Filter::Respond(respond)] if respond.status == 503),
        "{rule:?}"
    );
    let found = compiled(&[SHOP, &route]);
    check_problems(&found, &["1.yaml:10 spec.rules[0].filters[0].extensionRef.name: requests are refused"]);
    let rule = &found.services[&port("shop/catalog:80")].rules[0];
    assert!(rule.filters.is_empty() && rule.backends.is_empty(), "such requests have nowhere to go");
}

#[test]
fn grpc_routes_need_grpc() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}
spec: {ports: [{port: 90, appProtocol: grpc}]}\n";
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: r, namespace: shop}
spec:\n  parentRefs: [{kind: Service, name: NAME}]\n  rules: [{matches: [{method: {service: a.B}}], backendRefs: [{name: cart, port: 90}]}]\n";
    let found = compiled(&[SHOP, service, &route.replace("NAME", "cart")]);
    check_problems(&found, &[]);
    super::check_routes(&found, "shop/cart:90", &["GRPCRoute r#0 [Some(Prefix(\"/a.B\")) 0 0] -> cart:90=1"]);
    let found = compiled(&[SHOP, service, &route.replace("NAME", "catalog")]);
    check_problems(&found, &["2.yaml:5 spec.parentRefs[0].port: speaks no gRPC there"]);
}
