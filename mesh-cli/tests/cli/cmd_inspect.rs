//! `meshctl inspect`.

use crate::{shop::Shop, support::Controller, support::run};

#[test]
fn a_workload_that_is_behind() {
    let controller = Controller::start(Shop::troubled());
    controller.check(
        &["inspect", "workload", "cart"],
        0,
        r#"
Workload shop/cart
  Identity:   spiffe://cluster.local/ns/shop/sa/cart
  Address:    127.77.66.4
  Labels:     app=cart
  Ports:      8080 "main" grpc, for shop/cart:8080, application at 127.77.66.4:9080
  Upstreams:  127.77.66.4:17000 -> inventory:7000

Who may call it
  mTLS:       strict: only mesh TLS is let in
  Rules:      allow shop/storefront: POST /cart.Cart/* on port 8080 (TrafficTarget shop/cart)
  Otherwise:  deny (TrafficTarget shop/cart)

Proxy, as the controller sees it
  State:          connected 3m12s ago
  Version:        0.1.0
  Configuration:  2 behind (generation 5 of 7)
  Certificate:    expires in 23h53m (TIME)
  Reported:       3s ago
  Subscribed:     destination/host/inventory:7000
  Refused:        none
  Unanswered:     1 change

Proxy, as it says itself
  no answer at http://127.77.66.4:15000/status: Connection refused (os error 111)

Calls in the last 30s
  SOURCE           DESTINATION  SERVICE         BACKEND    PROTOCOL  SECURED   RPS  SUCCESS    P50   P99  REASON
  shop/batch       shop/cart    shop/cart:8080  shop/cart  grpc      yes       0.5     0.0%  1.5ms  41ms  AUTHZ_DENIED
  shop/storefront  shop/cart    shop/cart:8080  shop/cart  grpc      yes      10.0     100%  1.5ms  41ms  -
"#,
        "",
    );
}

#[test]
fn a_service_that_is_split() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["inspect", "svc", "catalog", "-n", "shop"],
        0,
        r#"
Service shop/catalog:8080
  Protocol:  http
  Routes:    any request -> shop/catalog-v1:8080 90%, shop/catalog-v2:8080 10% (TrafficSplit shop/catalog)

Endpoints of shop/catalog:8080
  ADDRESS           WORKLOAD         IDENTITY      PROTOCOL  PROXY
  127.77.66.2:8080  shop/catalog-v1  shop/catalog  http      connected
  127.77.66.3:8080  shop/catalog-v2  shop/catalog  http      connected

Calls in the last 30s
  SOURCE      DESTINATION  SERVICE       BACKEND     PROTOCOL  SECURED   RPS  SUCCESS    P50   P99  REASON
  storefront  catalog      catalog:8080  catalog-v1  http      yes      30.0     100%  1.5ms  41ms  -
  storefront  catalog      catalog:8080  catalog-v2  http      yes       3.3     100%  1.5ms  41ms  -
"#,
        "",
    );
}

#[test]
fn a_service_account() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["inspect", "sa", "shop/storefront"],
        0,
        r#"
Service account shop/storefront
  Identity:        spiffe://cluster.local/ns/shop/sa/storefront
  Workloads:       shop/storefront
  Named in rules:  shop/cart: allow shop/storefront: POST /cart.Cart/* on port 8080 (TrafficTarget shop/cart)

Who may call workload shop/storefront
  mTLS:       permissive: plaintext is let in, as a caller without identity
  Rules:      none
  Otherwise:  allow (Namespace shop)

Calls in the last 30s
  SOURCE           DESTINATION      SERVICE               BACKEND          PROTOCOL  SECURED   RPS  SUCCESS    P50   P99  REASON
  shop/storefront  shop/cart        shop/cart:8080        shop/cart        grpc      yes      10.0     100%  1.5ms  41ms  -
  shop/storefront  shop/catalog     shop/catalog:8080     shop/catalog-v1  http      yes      30.0     100%  1.5ms  41ms  -
  shop/storefront  shop/catalog     shop/catalog:8080     shop/catalog-v2  http      yes       3.3     100%  1.5ms  41ms  -
  outside          shop/storefront  shop/storefront:8080  shop/storefront  http      no       20.0     100%  1.5ms  41ms  -
"#,
        "",
    );
}

#[test]
fn as_documents() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["inspect", "wl", "cart", "-o", "yaml"],
        0,
        r#"
kind: Workload
namespace: shop
name: cart
address: "127.77.66.4"
identity: spiffe://cluster.local/ns/shop/sa/cart
labels:
  app: cart
policy:
  default: deny
  defaultFrom: TrafficTarget shop/cart
  mtls: strict
  rules:
  - action: allow
    object: TrafficTarget shop/cart
    ports:
    - 8080
    requests:
    - POST /cart.Cart/*
    sources:
    - shop/storefront
ports:
- appAddress: 127.77.66.4:9080
  limits: []
  name: main
  port: 8080
  protocol: grpc
  services:
  - shop/cart:8080
proxy:
  certificateNotAfter: "TIME"
  connected: true
  generation: 7
  instance: 5f3a
  pending: 0
  rejected: []
  reported: "TIME"
  since: "TIME"
  subscriptions:
  - destination/host/inventory:7000
  version: "0.1.0"
proxyStatus: null
upstreams:
- host: inventory:7000
  listenPort: 17000
calls:
- source: spiffe://cluster.local/ns/shop/sa/batch
  destination: spiffe://cluster.local/ns/shop/sa/cart
  service: shop/cart:8080
  backend: shop/cart:8080
  workloads:
  - shop/cart
  protocol: grpc
  secured: true
  securedSays: both
  requests: 15
  failures: 15
  requestsPerSecond: 0.5
  successRatio: 0.0
  securedRatio: 1.0
  p50Millis: 1.535
  p95Millis: 40.959
  p99Millis: 40.959
  requestBytes: 3000
  responseBytes: 45000
  connections: 2
  reasons:
    AUTHZ_DENIED: 15
- source: spiffe://cluster.local/ns/shop/sa/storefront
  destination: spiffe://cluster.local/ns/shop/sa/cart
  service: shop/cart:8080
  backend: shop/cart:8080
  workloads:
  - shop/cart
  protocol: grpc
  secured: true
  securedSays: both
  requests: 300
  failures: 0
  requestsPerSecond: 10.0
  successRatio: 1.0
  securedRatio: 1.0
  p50Millis: 1.535
  p95Millis: 1.535
  p99Millis: 40.959
  requestBytes: 60000
  responseBytes: 900000
  connections: 2
  reasons: {}
problems: []
"#,
        "",
    );
    let output = run(controller.dir.path(), &["inspect", "svc", "catalog", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let backends = &document["ports"][0]["routes"][0]["backends"];
    let plain = serde_json::json!({
        "service": "shop/catalog-v1:8080", "weight": 90, "invalid": false, "filters": [], "spread": null
    });
    assert_eq!(backends[0], plain);
    assert_eq!(document["ports"][0]["endpoints"].as_array().unwrap().len(), 2);
}

#[test]
fn names_that_do_not_exist() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["inspect", "wl", "catalog"],
        2,
        "",
        r#"
error: there is no workload catalog; did you mean shop/catalog-v1?
"#,
    );
    controller.check(
        &["inspect", "svc", "shop/cart", "-n", "test"],
        2,
        "",
        r#"
error: shop/cart is in namespace shop, but -n says test; leave one of them out
"#,
    );
}
