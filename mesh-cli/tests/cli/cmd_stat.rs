//! `meshctl stat`.

use crate::{shop::Shop, support::Controller};

#[test]
fn services() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["stat"],
        0,
        r#"
NAME                  REQUESTS   RPS  SUCCESS    P50    P95   P99  SECURED      IN     OUT  CONNS
shop/cart:8080             315  10.5    95.2%  1.5ms  1.5ms  41ms     100%   62KiB  923KiB      4
shop/catalog:8080         1000  33.3     100%  1.5ms  1.5ms  41ms     100%  195KiB  2.9MiB      4
shop/catalog-v1:8080       900  30.0     100%  1.5ms  1.5ms  41ms     100%  176KiB  2.6MiB      2
shop/catalog-v2:8080       100   3.3     100%  1.5ms  1.5ms  41ms     100%   20KiB  293KiB      2
shop/storefront:8080       600  20.0     100%  1.5ms  1.5ms  41ms     0.0%  117KiB  1.7MiB      2
"#,
        "",
    );
}

#[test]
fn one_workload() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["stat", "wl", "cart", "-n", "shop"],
        0,
        r#"
NAME  REQUESTS   RPS  SUCCESS    P50    P95   P99  SECURED     IN     OUT  CONNS
cart       315  10.5    95.2%  1.5ms  1.5ms  41ms     100%  62KiB  923KiB      4
"#,
        "",
    );
}

#[test]
fn service_accounts_as_documents() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["stat", "sa", "catalog", "-o", "json"],
        0,
        r#"
{
  "kind": "serviceaccount",
  "windowSeconds": 30.0,
  "rows": [
    {
      "namespace": "shop",
      "name": "catalog",
      "requests": 1000,
      "failures": 0,
      "requestsPerSecond": 33.333,
      "successRatio": 1.0,
      "securedRatio": 1.0,
      "p50Millis": 1.535,
      "p95Millis": 1.535,
      "p99Millis": 40.959,
      "requestBytes": 200000,
      "responseBytes": 3000000,
      "connections": 4,
      "reasons": {}
    }
  ]
}
"#,
        "",
    );
    controller.check(
        &["stat", "sa", "catalog", "-o", "yaml"],
        0,
        r#"
kind: serviceaccount
windowSeconds: 30.0
rows:
- namespace: shop
  name: catalog
  requests: 1000
  failures: 0
  requestsPerSecond: 33.333
  successRatio: 1.0
  securedRatio: 1.0
  p50Millis: 1.535
  p95Millis: 1.535
  p99Millis: 40.959
  requestBytes: 200000
  responseBytes: 3000000
  connections: 4
  reasons: {}
"#,
        "",
    );
}

#[test]
fn names_that_do_not_exist() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["stat", "svc", "crat"],
        2,
        "",
        "error: there is no service crat; did you mean shop/cart?\n",
    );
    controller.check(&["stat", "-n", "shoop"], 0, "", "There is no service here.\n");
}
