//! GRPCRoute.

use mesh_core::matching::PathMatch;

use super::{check_refused, parse};
use crate::object::Object;

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{kind: Service, name: cart}]
  rules:
  - matches: [{method: {service: shop.v1.Cart, method: Add}, headers: [{name: x-user, value: anna}]}]
    filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-b]}}]
    backendRefs: [{name: cart, port: 90}]
";

fn path(method: &str) -> Option<PathMatch> {
    let text = ROUTE.replace("service: shop.v1.Cart, method: Add", method);
    let (found, problems, _) = parse("f", &text);
    assert!(problems.is_empty(), "{problems:?}");
    let Object::GrpcRoute(route) = &found[0].object else { panic!("a GRPCRoute") };
    assert_eq!(route.rules[0].matches[0].headers.len(), 1);
    route.rules[0].matches[0].path.clone()
}

#[test]
fn services_and_methods_are_paths() {
    let exact = |text: &str| Some(PathMatch::Exact(text.into()));
    assert_eq!(path("service: shop.v1.Cart, method: Add"), exact("/shop.v1.Cart/Add"));
    assert_eq!(path("service: shop.v1.Cart"), Some(PathMatch::Prefix("/shop.v1.Cart".into())));
    let check = |method: &str, fits: &[&str], not: &[&str]| {
        let found = path(method).unwrap();
        fits.iter().for_each(|text| assert!(found.matches(text), "{method}: {text}"));
        not.iter().for_each(|text| assert!(!found.matches(text), "{method}: {text}"));
    };
    check("method: Add", &["/shop.v1.Cart/Add", "/x/Add"], &["/x/y/Add", "/Add", "/x/AddAll"]);
    let regex = "type: RegularExpression, ";
    check(&format!("{regex}service: 'shop\\.v[12]\\.Cart'"), &["/shop.v2.Cart/Add"], &["/shop.v3.Cart/Add"]);
    check(
        &format!("{regex}service: 'a|b', method: 'Get.*'"),
        &["/a/GetOne", "/b/Get"],
        &["/a/Put", "/c/Get"],
    );
}

#[test]
fn mistakes_in_a_grpc_route() {
    let bad = |part: &str, replacement: &str, problem: &str| check_refused(ROUTE, part, replacement, problem);
    let at = "spec.rules[0].matches[0].method";
    bad("service: shop.v1.Cart, method: Add", "type: Exact", &format!("!7 {at}: neither service nor method"));
    bad("method: Add", "method: Add/All", &format!("!7 {at}.method: a gRPC service or method"));
    bad("shop.v1.Cart", "''", &format!("!7 {at}.service: a gRPC service or method"));
    bad(
        "service: shop.v1.Cart",
        "type: RegularExpression, service: 'a)(b'",
        &format!("!7 {at}.service: syntax"),
    );
    bad(
        "type: RequestHeaderModifier, requestHeaderModifier: {remove: [x-b]}",
        "type: CORS, cors: {}",
        "!8 spec.rules[0].filters[0].type: is not one of",
    );
    bad("filters: [", "timeouts: {request: 1s}\n    filters: [", "!8 spec.rules[0].timeouts: unknown");
}
