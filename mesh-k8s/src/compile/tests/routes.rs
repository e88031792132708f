//! HTTPRoutes and TrafficSplits.

use super::{SHOP, check_problems, check_routes, compiled};

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: catalog}]
  rules:
";

fn route(name: &str, rules: &str) -> String {
    format!("{}{rules}", ROUTE.replace("NAME", name))
}

fn split(name: &str, service: &str, rest: &str) -> String {
    format!(
        "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {{name: {name}, namespace: shop}}
spec:\n  service: {service}\n{rest}\n"
    )
}

const GROUP: &str = "apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: writes, namespace: shop}
spec:
  matches:
  - {name: post, methods: [POST]}
  - {name: put, methods: [PUT]}
";

#[test]
fn without_routes_calls_go_to_the_services_own_endpoints() {
    check_routes(&compiled(&[SHOP]), "shop/catalog:80", &["Service catalog#0 -> catalog:80=1"]);
}

#[test]
fn rules_of_several_routes_are_merged_by_precedence() {
    let first = route("first", "  - backendRefs: [{name: catalog-v1, port: 80}]\n");
    let second = route(
        "second",
        "  - matches: [{path: {value: /a}}, {path: {type: Exact, value: /a/b}}]
    backendRefs: [{name: catalog-v2, port: 80, weight: 3}, {name: catalog-v1, port: 80, weight: 1}]
  - matches: [{method: POST}]
    backendRefs: [{name: catalog-v2, port: 80}]\n",
    );
    let compiled = compiled(&[SHOP, &first, &second]);
    check_problems(&compiled, &[]);
    check_routes(
        &compiled,
        "shop/catalog:80",
        &[
            "HTTPRoute second#0 [Some(Exact(\"/a/b\")) 0 0] -> catalog-v2:80=3 catalog-v1:80=1",
            "HTTPRoute second#0 [Some(Prefix(\"/a\")) 0 0] -> catalog-v2:80=3 catalog-v1:80=1",
            "HTTPRoute second#1 [POSTNone 0 0] -> catalog-v2:80=1",
            "HTTPRoute first#0 -> catalog-v1:80=1",
        ],
    );
}

#[test]
fn a_bound_route_leaves_no_default() {
    let only =
        route("r", "  - matches: [{path: {value: /a}}]\n    backendRefs: [{name: catalog, port: 80}]\n");
    check_routes(
        &compiled(&[SHOP, &only]),
        "shop/catalog:80",
        &["HTTPRoute r#0 [Some(Prefix(\"/a\")) 0 0] -> catalog:80=1"],
    );
}

#[test]
fn references_to_nothing_refuse_their_share() {
    let bad = route(
        "r",
        "  - backendRefs:
    - {name: catalog-v3, port: 80}
    - {name: catalog-v1, port: 81, weight: 2}
    - {name: catalog-v1, port: 80}\n",
    );
    let compiled = compiled(&[SHOP, &bad]);
    check_problems(
        &compiled,
        &[
            "1.yaml:8 spec.rules[0].backendRefs[0].name: did you mean",
            "1.yaml:9 spec.rules[0].backendRefs[1].port: it has 80",
        ],
    );
    check_routes(
        &compiled,
        "shop/catalog:80",
        &["HTTPRoute r#0 -> !catalog-v3:80=1 !catalog-v1:81=2 catalog-v1:80=1"],
    );
}

#[test]
fn parents_are_checked_and_scoped_by_port() {
    let services = "apiVersion: v1
kind: Service
metadata: {name: two, namespace: shop}
spec:
  ports: [{name: a, port: 80, appProtocol: http}, {name: b, port: 81, appProtocol: http}, {name: c, port: 90, appProtocol: tcp}]
";
    let route = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME, namespace: shop}
spec:
  parentRefs:
  - PARENT
  rules: [{backendRefs: [{name: catalog, port: 80}]}]
";
    let check = |parent: &str, bound: &[&str], problems: &[&str]| {
        let parent = format!("{{kind: Service, {parent}}}");
        let compiled = compiled(&[SHOP, services, &route.replace("NAME", "r").replace("PARENT", &parent)]);
        check_problems(&compiled, problems);
        for port in ["80", "81", "90"] {
            let expected = if bound.contains(&port) {
                "HTTPRoute r#0 -> catalog:80=1".to_owned()
            } else {
                format!("Service two#0 -> two:{port}=1")
            };
            check_routes(&compiled, &format!("shop/two:{port}"), &[&expected]);
        }
    };
    check("name: two, port: 80", &["80"], &[]);
    check("name: two", &["80", "81"], &[]);
    check("name: two, port: 90", &[], &["2.yaml:6 spec.parentRefs[0].port: speaks no HTTP"]);
    check("name: two, port: 91", &[], &["2.yaml:6 spec.parentRefs[0].port: it has 80, 81, 90"]);
    check("name: twoo", &[], &["2.yaml:6 spec.parentRefs[0].name: did you mean \"two\""]);
}

#[test]
fn splits_share_calls_by_weight() {
    let by_weight = split(
        "s",
        "catalog",
        "  backends: [{service: catalog-v1, weight: 90}, {service: catalog-v2, weight: 10}]",
    );
    let found = compiled(&[SHOP, &by_weight]);
    check_problems(&found, &[]);
    check_routes(&found, "shop/catalog:80", &["TrafficSplit s#0 -> catalog-v1:80=90 catalog-v2:80=10"]);
}

#[test]
fn unmatched_calls_stay_with_the_root() {
    let matched = split(
        "s",
        "catalog.shop.svc.cluster.local",
        "  backends: [{service: catalog-v2, weight: 1}]\n  matches: [{kind: HTTPRouteGroup, name: writes}]",
    );
    let found = compiled(&[SHOP, GROUP, &matched]);
    check_problems(&found, &[]);
    check_routes(
        &found,
        "shop/catalog:80",
        &[
            "TrafficSplit s#0 [POSTNone 0 0] [PUTNone 0 0] -> catalog-v2:80=1",
            "Service catalog#0 -> catalog:80=1",
        ],
    );
    let unknown = compiled(&[SHOP, &matched]);
    check_problems(&unknown, &["1.yaml:7 spec.matches[0].name: HTTPRouteGroup writes does not exist"]);
    check_routes(&unknown, "shop/catalog:80", &["Service catalog#0 -> catalog:80=1"]);
}

#[test]
fn backends_that_cannot_take_calls_get_none() {
    let missing = split(
        "s",
        "catalog",
        "  backends:\n  - {service: catalog-v3, weight: 50}\n  - {service: inventory, weight: 1}\n  - {service: catalog-v1, weight: 50}",
    );
    let found = compiled(&[SHOP, &missing]);
    check_problems(
        &found,
        &[
            "1.yaml:7 spec.backends[0].service: gets no calls until it does",
            "1.yaml:8 spec.backends[1].service: Service inventory has no port 80",
        ],
    );
    check_routes(&found, "shop/catalog:80", &["TrafficSplit s#0 -> catalog-v1:80=50"]);
    let none = split("s", "catalog", "  backends: [{service: catalog-v3, weight: 50}]");
    check_routes(&compiled(&[SHOP, &none]), "shop/catalog:80", &["Service catalog#0 -> catalog:80=1"]);
    let rootless = split("s", "catalogue", "  backends: [{service: catalog-v1, weight: 50}]");
    check_problems(&compiled(&[SHOP, &rootless]), &["1.yaml:5 spec.service: did you mean \"catalog\""]);
}

#[test]
fn one_split_a_root_and_routes_win() {
    let first = split("first", "catalog", "  backends: [{service: catalog-v1, weight: 1}]");
    let second = split("second", "catalog", "  backends: [{service: catalog-v2, weight: 1}]");
    let two = compiled(&[SHOP, &first, &second]);
    check_problems(
        &two,
        &["!!2.yaml:5 spec.service: TrafficSplit shop/first splits Service catalog already, at 1.yaml:1"],
    );
    check_routes(&two, "shop/catalog:80", &["TrafficSplit first#0 -> catalog-v1:80=1"]);

    let route = route("r", "  - backendRefs: [{name: catalog, port: 80}]\n");
    let both = compiled(&[SHOP, &first, &route]);
    check_problems(&both, &["1.yaml:5 spec.service: an HTTPRoute is bound to port 80"]);
    check_routes(&both, "shop/catalog:80", &["HTTPRoute r#0 -> catalog:80=1"]);
}

#[test]
fn cycles_are_refused_and_nothing_is_split_twice() {
    let one = split("one", "catalog", "  backends: [{service: catalog-v1, weight: 1}]");
    let two = split("two", "catalog-v1", "  backends: [{service: catalog-v2, weight: 1}]");
    let three = split("three", "catalog-v2", "  backends: [{service: catalog, weight: 1}]");
    let found = compiled(&[SHOP, &one, &two, &three]);
    check_problems(
        &found,
        &[
            "1.yaml:6 spec.backends[0].service: calls are not split twice",
            "!3.yaml:5 spec.backends: catalog-v2 to catalog to catalog-v1 to catalog-v2",
        ],
    );
    check_routes(&found, "shop/catalog:80", &["TrafficSplit one#0 -> catalog-v1:80=1"]);
    check_routes(&found, "shop/catalog-v1:80", &["TrafficSplit two#0 -> catalog-v2:80=1"]);
    check_routes(&found, "shop/catalog-v2:80", &["Service catalog-v2#0 -> catalog-v2:80=1"]);
}
