//! Who may call whom.

use http::{HeaderMap, Method};
use mesh_core::{
    identity::SpiffeId,
    matching::RequestParts,
    name::WorkloadRef,
    policy::{Call, DefaultAction, TlsMode, decide},
};

use super::{SHOP, check_problems, compiled};
use crate::compile::Compiled;

const SPECS: &str = "apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: web, namespace: shop}
spec:
  matches:
  - {name: items, pathRegex: /items, methods: [GET]}
  - {name: all, pathRegex: '.*', methods: ['*']}
  - {name: agent, headers: {User-Agent: 'curl/.*'}}
  - {name: agents, headers: [{X-A: a}, {X-B: b}]}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: tcp, namespace: shop}
spec: {matches: {ports: [8080]}}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: any, namespace: shop}
spec: {}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: storefront, namespace: shop}
";

fn target(name: &str, rules: &str) -> String {
    format!(
        "apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {{name: {name}, namespace: shop}}
spec:
  destination: {{kind: ServiceAccount, name: catalog, namespace: shop}}
  sources:
  - {{kind: ServiceAccount, name: storefront, namespace: shop}}
  rules: [{rules}]
"
    )
}

/// One call to catalog-v1-a: `ACCOUNT PORT METHOD PATH [HEADER=VALUE …]`, or `ACCOUNT PORT` for an opaque connection; no
/// account: `-`. True: let in.
fn call(compiled: &Compiled, call: &str) -> bool {
    let mut words = call.split(' ');
    let account = words.next().unwrap();
    let source: Option<SpiffeId> =
        (account != "-").then(|| format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap());
    let port = words.next().unwrap().parse().unwrap();
    let method = words.next().map(|m| m.parse::<Method>().unwrap());
    let path = words.next().unwrap_or("/");
    let mut headers = HeaderMap::new();
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    }
    let parts = method.as_ref().map(|method| RequestParts {
        method,
        path,
        query: None,
        headers: &headers,
        authority: None,
    });
    let policy = &compiled.workloads[&WorkloadRef::new("shop", "catalog-v1-a")].policy;
    decide(policy, &Call { source: source.as_ref(), port, request: parts.as_ref() }).is_allowed()
}

#[track_caller]
fn check(files: &[&str], allowed: &[&str], denied: &[&str]) {
    let compiled = compiled(files);
    for one in allowed {
        assert!(call(&compiled, one), "{one} must be let in");
    }
    for one in denied {
        assert!(!call(&compiled, one), "{one} must be refused");
    }
}

fn namespace(options: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, annotations: {{{options}}}}}\n")
}

#[test]
fn a_traffic_target_closes_its_destination_but_for_its_sources() {
    let web = target("t", "{kind: HTTPRouteGroup, name: web, matches: [items]}");
    check(
        &[SHOP, SPECS, &web],
        &["storefront 8080 GET /items", "storefront 8080 GET /items/7"],
        &[
            "job 8080 GET /items",
            "- 8080 GET /items",
            "storefront 8080 POST /items",
            "storefront 8080 GET /x/items",
            "storefront 8080",
        ],
    );
    let compiled = compiled(&[SHOP, SPECS, &web]);
    check_problems(&compiled, &[]);
    let policy = &compiled.workloads[&WorkloadRef::new("shop", "catalog-v2-a")].policy;
    assert_eq!(policy.default_source.to_string(), "TrafficTarget shop/t");
    let other = &compiled.workloads[&WorkloadRef::new("shop", "inventory")].policy;
    assert_eq!(other.default_action, DefaultAction::Allow);
}

#[test]
fn matches_combine_with_ports() {
    let all = target("t", "{kind: HTTPRouteGroup, name: web}, {kind: TCPRoute, name: tcp}");
    check(
        &[SHOP, SPECS, &all],
        &["storefront 8080 PUT /any"],
        &["storefront 9090 PUT /any", "storefront 8080", "job 8080 PUT /any"],
    );
    let tcp = target("t", "{kind: TCPRoute, name: tcp}");
    check(
        &[SHOP, SPECS, &tcp],
        &["storefront 8080", "storefront 8080 PUT /any"],
        &["storefront 9090", "job 8080"],
    );
    let any = target("t", "{kind: TCPRoute, name: tcp}, {kind: TCPRoute, name: any}");
    check(&[SHOP, SPECS, &any], &["storefront 8080", "storefront 9090"], &["job 8080", "- 8080"]);
}

#[test]
fn headers_in_both_spellings() {
    let agent = target("t", "{kind: HTTPRouteGroup, name: web, matches: [agent]}");
    check(
        &[SHOP, SPECS, &agent],
        &["storefront 8080 GET / user-agent=curl/8"],
        &["storefront 8080 GET / user-agent=wget", "storefront 8080 GET /"],
    );
    let agents = target("t", "{kind: HTTPRouteGroup, name: web, matches: [agents]}");
    check(&[SHOP, SPECS, &agents], &["storefront 8080 GET / x-a=a x-b=b"], &["storefront 8080 GET / x-a=a"]);
}

#[test]
fn references_to_nothing_open_nothing() {
    let denied = ["storefront 8080 GET /items", "storefront 8080", "storefront 9090"];
    let check_closed = |rules: &str, problems: &[&str]| {
        let files = [SHOP, SPECS, &target("t", rules)];
        check(&files, &[], &denied);
        check_problems(&compiled(&files), problems);
    };
    check_closed("{kind: HTTPRouteGroup, name: wbe}", &["2.yaml:8 spec.rules[0].name: did you mean \"web\""]);
    check_closed(
        "{kind: HTTPRouteGroup, name: web, matches: [item]}",
        &["2.yaml:8 spec.rules[0].matches[0]: it has items, all"],
    );
    check_closed(
        "{kind: HTTPRouteGroup, name: gone}, {kind: TCPRoute, name: tcp}",
        &["2.yaml:8 spec.rules[0].name: HTTPRouteGroup gone does not exist"],
    );
    check_closed(
        "{kind: HTTPRouteGroup, name: web}, {kind: TCPRoute, name: gone}",
        &["2.yaml:8 spec.rules[1].name: TCPRoute gone does not exist"],
    );
}

#[test]
fn several_targets_add_up_and_unknown_accounts_are_reported() {
    let one = target("one", "{kind: HTTPRouteGroup, name: web, matches: [items]}");
    let two = target("two", "{kind: TCPRoute, name: any}").replace("name: storefront", "name: job");
    let files = [SHOP, SPECS, one.as_str(), two.as_str()];
    check(&files, &["storefront 8080 GET /items", "job 8080", "job 8080 PUT /x"], &["storefront 8080"]);
    check_problems(
        &compiled(&files),
        &["3.yaml:7 spec.sources[0].name: ServiceAccount shop/job does not exist"],
    );
}

#[test]
fn namespaces_set_the_default() {
    let check_default = |policy: &str, allowed: &[&str], denied: &[&str]| {
        check(&[SHOP, &namespace(&format!("meshctl.dev/default-policy: {policy}"))], allowed, denied);
    };
    check_default("allow", &["job 8080 GET /", "- 8080 GET /"], &[]);
    check_default("authenticated", &["job 8080 GET /"], &["- 8080 GET /"]);
    check_default("deny", &[], &["job 8080 GET /", "- 8080 GET /"]);
    check_default("smi", &["- 8080 GET /"], &["job 8080 GET /"]);
    let smi = namespace("meshctl.dev/default-policy: smi");
    let any = target("t", "{kind: TCPRoute, name: any}");
    check(&[SHOP, SPECS, &smi, &any], &["storefront 8080"], &["job 8080", "- 8080"]);
    let strict = namespace("meshctl.dev/default-policy: smi, meshctl.dev/mtls: strict");
    check(&[SHOP, &strict], &[], &["job 8080", "- 8080"]);
}

#[test]
fn the_workloads_tls_mode_wins() {
    let workload = "apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: w, namespace: shop, annotations: {meshctl.dev/mtls: permissive}}
spec: {address: 127.1.0.77}
";
    let compiled = compiled(&[SHOP, &namespace("meshctl.dev/mtls: strict"), workload]);
    let mode = |name: &str| compiled.workloads[&WorkloadRef::new("shop", name)].policy.tls_mode;
    assert_eq!(mode("w"), TlsMode::Permissive);
    assert_eq!(mode("inventory"), TlsMode::Strict);
}
