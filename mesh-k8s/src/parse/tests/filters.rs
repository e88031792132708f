//! Filters, timeouts and retries of HTTPRoutes.

use std::time::Duration;

use mesh_core::{
    filter::{Filter, PathChange},
    settings::{MAX_DURATION, RetryOn, Share},
};

use super::{check, check_refused, parse};
use crate::object::{FilterAction, HttpRoute, Object};

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{kind: Service, name: catalog}]
  rules:
  - matches: [{path: {value: /api}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: b}], add: [{name: x-b, value: c}], remove: [x-d]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}
    - {type: URLRewrite, urlRewrite: {hostname: a.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /v2}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: shadow, port: 80}, fraction: {numerator: 1, denominator: 3}}}
    - {type: CORS, cors: {allowOrigins: ['https://*.shop.example', '*'], allowMethods: ['*'], allowHeaders: [x-a], exposeHeaders: ['*']}}
    timeouts: {request: 10s, backendRequest: 1500ms}
    retry: {attempts: 3, codes: [503, 500, 503], backoff: 100ms}
    backendRefs:
    - {name: catalog-v1, port: 80, filters: [{type: URLRewrite, urlRewrite: {hostname: b.example}}]}
";

fn route(text: &str) -> HttpRoute {
    let (found, problems, _) = parse("f", text);
    assert!(problems.is_empty(), "{problems:?}");
    match found.into_iter().next().map(|located| located.object) {
        Some(Object::HttpRoute(route)) => route,
        other => panic!("{other:?}"),
    }
}

#[test]
fn filters_are_read_in_order() {
    let route = route(ROUTE);
    let rule = &route.rules[0];
    let own = |at: usize| match &rule.filters[at].action {
        FilterAction::Own(filter) => filter,
        other => panic!("{other:?}"),
    };
    let Filter::RequestHeaders(changes) = own(0) else { panic!("{:?}", own(0)) };
    assert_eq!((changes.set[0].0.as_str(), changes.add[0].1.as_bytes()), ("x-a", &b"c"[..]));
    assert_eq!(changes.remove[0].as_str(), "x-d");
    assert!(matches!(own(1), Filter::ResponseHeaders(_)));
    let Filter::Rewrite { host, path } = own(2) else { panic!("{:?}", own(2)) };
    assert_eq!(host.as_deref(), Some("a.example"));
    assert_eq!(path, &Some(PathChange::Prefix("/v2".into())));
    let FilterAction::Mirror { service, port, share } = &rule.filters[3].action else { panic!() };
    assert_eq!((&*service.namespace, &*service.name, *port, *share), ("shop", "shadow", 80, Share::of(1, 3)));
    let Filter::Cors(cors) = own(4) else { panic!("{:?}", own(4)) };
    assert!(cors.any_method && !cors.any_header && !cors.credentials);
    assert_eq!((cors.origins.len(), cors.max_age, cors.expose[0].as_str()), (2, 5, "*"));
    assert_eq!(rule.filters[4].line, 13);
    assert_eq!(rule.backends[0].filters.len(), 1);
}

#[test]
fn timeouts_and_retry_are_read() {
    let found = route(ROUTE).rules.remove(0);
    assert_eq!(found.timeouts.request, Some(Duration::from_secs(10)));
    assert_eq!(found.timeouts.per_try, Some(Duration::from_millis(1500)));
    let retry = found.retry.unwrap();
    assert_eq!(
        (retry.retries, retry.backoff, retry.non_idempotent),
        (3, Some(Duration::from_millis(100)), false)
    );
    let failures = [RetryOn::ConnectFailure, RetryOn::Reset, RetryOn::Timeout];
    assert!(retry.on.starts_with(&failures));
    assert_eq!(retry.on[3..], [RetryOn::Status(500), RetryOn::Status(503)]);
    let plain = ROUTE.replace("attempts: 3, codes: [503, 500, 503], backoff: 100ms", "attempts: 0");
    let retry = route(&plain).rules.remove(0).retry.unwrap();
    assert_eq!((retry.retries, retry.on.len()), (0, 7), "{retry:?}");
    let off = ROUTE.replace("request: 10s", "request: 0s");
    assert_eq!(route(&off).rules[0].timeouts.request, Some(MAX_DURATION), "0s: no limit");
}

#[test]
fn mistakes_in_filters() {
    let bad = |part: &str, replacement: &str, problem: &str| check_refused(ROUTE, part, replacement, problem);
    let at = |rest: &str| format!("spec.rules[0].filters{rest}");
    bad("type: CORS", "type: Cors", &format!("!13 {}: did you mean \"CORS\"?", at("[4].type")));
    bad(
        "name: X-A",
        "name: Host",
        &format!("!9 {}: use URLRewrite", at("[0].requestHeaderModifier.set[0].name")),
    );
    let set = at("[0].requestHeaderModifier.set[0]");
    bad("name: X-A", "name: mesh-client-id", &format!("!9 {set}.name: by the proxies alone"));
    bad("name: X-A", "name: content-length", &format!("!9 {set}.name: may change"));
    bad("value: b}", "value: \"b\\r\\nx: y\"}", &format!("!9 {set}.value: without control characters"));
    bad("value: b}", "value: bü}", &format!("!9 {set}.value: ASCII"));
    bad(
        "{set: [{name: X-A, value: b}], add: [{name: x-b, value: c}], remove: [x-d]}",
        "{}",
        &format!("!9 {}: changes nothing", at("[0].requestHeaderModifier")),
    );
    bad(
        "hostname: a.example",
        "hostname: a.example:80",
        &format!("!11 {}: without port", at("[2].urlRewrite.hostname")),
    );
    let path = at("[2].urlRewrite.path");
    bad(
        "replacePrefixMatch: /v2",
        "replacePrefixMatch: v2",
        &format!("!11 {path}.replacePrefixMatch: begin it with"),
    );
    bad(
        "replacePrefixMatch: /v2",
        "replacePrefixMatch: /../v2",
        &format!("!11 {path}.replacePrefixMatch: one way only"),
    );
    bad("{value: /api}", "{type: Exact, value: /api}", "!7 spec.rules[0]: needs a prefix");
    bad(
        "numerator: 1,",
        "numerator: 4,",
        &format!("!12 {}: more than all", at("[3].requestMirror.fraction")),
    );
    bad(
        "name: shadow, port: 80",
        "name: shadow",
        &format!("!12 {}: the field is missing", at("[3].requestMirror.backendRef.port")),
    );
    bad(
        "https://*.shop.example",
        "https://Shop.example",
        &format!("!13 {}: lower case", at("[4].cors.allowOrigins[0]")),
    );
    bad(
        "allowMethods: ['*']",
        "allowMethods: ['G T']",
        &format!("!13 {}: is not a method", at("[4].cors.allowMethods[0]")),
    );
    bad(
        "type: ResponseHeaderModifier, responseHeaderModifier",
        "type: RequestHeaderModifier, requestHeaderModifier",
        &format!("!10 {}: is there twice", at("[1]")),
    );
    let redirect = "type: RequestRedirect, requestRedirect: {statusCode: 301}";
    check_refused(
        &ROUTE.replace("type: URLRewrite, urlRewrite: {hostname: b.example}", redirect),
        "name: catalog-v1",
        "name: catalog-v2",
        "!17 spec.rules[0].backendRefs[0].filters[0]: before a backend is chosen",
    );
    let many = "{type: ExtensionRef}, ".repeat(17);
    bad(
        "filters: [{type: URLRewrite, urlRewrite: {hostname: b.example}}]",
        &format!("filters: [{many}]"),
        "!17 spec.rules[0].backendRefs[0].filters: at most 16",
    );
}

#[test]
fn mistakes_in_timeouts_and_retries() {
    let bad = |part: &str, replacement: &str, problem: &str| check_refused(ROUTE, part, replacement, problem);
    bad("request: 10s", "request: 10", "!14 spec.rules[0].timeouts.request: put it in quotes");
    bad("request: 10s", "request: 1.5s", "!14 spec.rules[0].timeouts.request: without fractions");
    bad("request: 10s", "request: 1s", "!14 spec.rules[0].timeouts.backendRequest: at most the timeout");
    bad("attempts: 3", "attempts: 11", "!15 spec.rules[0].retry.attempts: (0 to 10)");
    bad("503, 500, 503", "200", "!15 spec.rules[0].retry.codes[0]: (400 to 599)");
    bad("backoff: 100ms", "backoff: 0s", "!15 spec.rules[0].retry.backoff: above 0");
    bad("backoff", "backof", "!15 spec.rules[0].retry.backof: did you mean \"backoff\"?");
}

#[test]
fn redirects_have_no_backends() {
    let redirect = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{kind: Service, name: catalog}]
  rules:
  - filters: [{type: RequestRedirect, requestRedirect: {scheme: https, port: 8443, statusCode: 308}}]
";
    let Filter::Redirect(found) = (match route(redirect).rules.remove(0).filters.remove(0).action {
        FilterAction::Own(filter) => filter,
        other => panic!("{other:?}"),
    }) else {
        panic!("a redirect")
    };
    assert_eq!(
        (found.status.as_u16(), found.port, found.scheme.as_deref()),
        (308, Some(8443), Some("https"))
    );
    let with = format!("{redirect}    backendRefs: [{{name: a, port: 80}}]\n");
    check(&with, &[], &["!8 spec.rules[0].backendRefs: answers by itself"]);
    check_refused(
        redirect,
        "308",
        "304",
        "!7 spec.rules[0].filters[0].requestRedirect.statusCode: 303, 307 or 308",
    );
    let both = "{type: URLRewrite, urlRewrite: {hostname: a}}, {type: RequestRedirect";
    check_refused(
        redirect,
        "{type: RequestRedirect",
        both,
        "!7 spec.rules[0].filters[1]: exclude each other",
    );
    let extension =
        "type: ExtensionRef, extensionRef: {group: meshctl.dev, kind: TrafficPolicy, name: closed}";
    let text = redirect.replace(
        "type: RequestRedirect, requestRedirect: {scheme: https, port: 8443, statusCode: 308}",
        extension,
    );
    assert_eq!(route(&text).rules[0].filters[0].action, FilterAction::Respond("closed".into()));
    check_refused(
        &text,
        "group: meshctl.dev",
        "group: other.dev",
        "!7 spec.rules[0].filters[0].extensionRef.group: one of meshctl.dev",
    );
}
