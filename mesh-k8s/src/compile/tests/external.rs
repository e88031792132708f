//! ExternalServices.

use std::sync::Arc;

use mesh_core::{
    config::Destination,
    name::{Host, ObjectRef, ServicePort},
    resource::DestinationKey,
};

use super::{Compiled, SHOP, check_problems, check_routes, compiled, port, settings};
use crate::{
    compile::{Resolved, compile_with},
    parse::parse,
};

fn external(name: &str, host: &str, rest: &str) -> String {
    format!(
        "apiVersion: meshctl.dev/v1alpha1\nkind: ExternalService\nmetadata: {{name: {name}, namespace: shop}}
spec: {{hosts: [{host}], ports: [{{port: 80, appProtocol: http}}]{rest}}}\n"
    )
}

fn asked(compiled: &Compiled, host: &str) -> Option<(ServicePort, Option<ObjectRef>)> {
    let key = DestinationKey::Host(host.parse::<Host>().unwrap());
    match compiled.destination(&key, "other").0 {
        Destination::Service(routes) => {
            Some((routes.service, routes.rules.first().map(|r| r.object.clone())))
        }
        Destination::Passthrough | Destination::Unknown(_) => None,
    }
}

fn endpoints(compiled: &Compiled, service: &str) -> Vec<String> {
    let all = &compiled.endpoints[&port(service)];
    assert!(all.iter().all(|endpoint| endpoint.identity.is_none()), "nobody outside has an identity");
    all.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

#[test]
fn hosts_outside_are_called_as_services() {
    let pay = external("pay", "api.pay.example", ", addresses: [203.0.113.7, 203.0.113.6]");
    let policy = "apiVersion: meshctl.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p, namespace: shop}
spec: {targetRef: {group: meshctl.dev, kind: ExternalService, name: pay}, timeouts: {request: 2s}}\n";
    let found = compiled(&[SHOP, &pay, policy]);
    check_problems(&found, &[]);
    assert_eq!(endpoints(&found, "shop/pay:80"), ["203.0.113.6:80", "203.0.113.7:80"]);
    let by_host = Some((port("shop/pay:80"), Some(ObjectRef::new("ExternalService", "shop", "pay"))));
    assert_eq!(asked(&found, "api.pay.example"), by_host, "from every namespace");
    assert_eq!(asked(&found, "pay.shop"), by_host);
    assert_eq!(asked(&found, "203.0.113.7"), by_host);
    assert_eq!(asked(&found, "other.pay.example"), None);
    assert!(found.services[&port("shop/pay:80")].calls.timeouts.request.is_some());
    assert!(found.to_resolve.is_empty());
}

#[test]
fn routes_lead_outside() {
    let pay = external("pay", "api.pay.example", ", addresses: [203.0.113.7]");
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}
spec:\n  parentRefs: [{group: meshctl.dev, kind: ExternalService, name: pay}]
  rules: [{backendRefs: [{group: meshctl.dev, kind: ExternalService, name: pay, port: 80}, {name: catalog, port: 80}]}]\n";
    let found = compiled(&[SHOP, &pay, route]);
    check_problems(&found, &[]);
    check_routes(&found, "shop/pay:80", &["HTTPRoute r#0 -> pay:80=1 catalog:80=1"]);
}

#[test]
fn addresses_come_from_resolution() {
    let (objects, ..) = parse("0.yaml", &external("pay", "api.pay.example", ""));
    let compiled = |resolved: &Resolved| compile_with(&objects, &settings(), resolved);
    let none = compiled(&Resolved::new());
    assert_eq!(none.to_resolve.iter().map(|host| &**host).collect::<Vec<_>>(), ["api.pay.example"]);
    assert!(endpoints(&none, "shop/pay:80").is_empty());
    let addresses = vec!["203.0.113.9".parse().unwrap()];
    let found = compiled(&Resolved::from([(Arc::from("api.pay.example"), addresses)]));
    assert_eq!(endpoints(&found, "shop/pay:80"), ["203.0.113.9:80"]);
    assert_eq!(asked(&found, "203.0.113.9").map(|(service, _)| service), Some(port("shop/pay:80")));
}

#[test]
fn names_and_hosts_are_taken_once() {
    let pay = external("pay", "api.pay.example", "");
    let found = compiled(&[SHOP, &pay, &external("catalog", "catalog.example", "")]);
    check_problems(&found, &["!!2.yaml:1 metadata.name: Service shop/catalog has this name already"]);
    assert_eq!(asked(&found, "catalog.example"), None);
    let found = compiled(&[SHOP, &pay, &external("two", "api.pay.example", "")]);
    check_problems(&found, &["!!2.yaml:4 spec.hosts[0]: a host of ExternalService shop/pay"]);
    let found = compiled(&[SHOP, &external("trap", "catalog.shop", "")]);
    assert_eq!(
        asked(&found, "catalog.shop").map(|(service, _)| service),
        Some(port("shop/catalog:80")),
        "Services first"
    );
}
