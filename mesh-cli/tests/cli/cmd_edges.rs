//! `meshctl edges`.

use crate::{shop::Shop, support::Controller, support::run};

#[test]
fn all_edges() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["edges"],
        0,
        r#"
SOURCE           DESTINATION      SERVICE               BACKEND          PROTOCOL  SECURED   RPS  SUCCESS    P50   P99  REASON
shop/batch       shop/cart        shop/cart:8080        shop/cart        grpc      yes       0.5     0.0%  1.5ms  41ms  AUTHZ_DENIED
shop/storefront  shop/cart        shop/cart:8080        shop/cart        grpc      yes      10.0     100%  1.5ms  41ms  -
shop/storefront  shop/catalog     shop/catalog:8080     shop/catalog-v1  http      yes      30.0     100%  1.5ms  41ms  -
shop/storefront  shop/catalog     shop/catalog:8080     shop/catalog-v2  http      yes       3.3     100%  1.5ms  41ms  -
outside          shop/storefront  shop/storefront:8080  shop/storefront  http      no       20.0     100%  1.5ms  41ms  -
"#,
        "",
    );
}

#[test]
fn filters_and_short_names() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["edges", "-n", "shop", "--to", "cart"],
        0,
        r#"
SOURCE      DESTINATION  SERVICE    BACKEND  PROTOCOL  SECURED   RPS  SUCCESS    P50   P99  REASON
batch       cart         cart:8080  cart     grpc      yes       0.5     0.0%  1.5ms  41ms  AUTHZ_DENIED
storefront  cart         cart:8080  cart     grpc      yes      10.0     100%  1.5ms  41ms  -
"#,
        "",
    );
    controller.check(
        &["edges", "--from", "shop/batch"],
        0,
        r#"
SOURCE      DESTINATION  SERVICE         BACKEND    PROTOCOL  SECURED  RPS  SUCCESS    P50   P99  REASON
shop/batch  shop/cart    shop/cart:8080  shop/cart  grpc      yes      0.5     0.0%  1.5ms  41ms  AUTHZ_DENIED
"#,
        "",
    );
}

#[test]
fn names_that_nothing_has() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["edges", "--to", "catalgo"],
        2,
        "",
        r#"
error: there is no service catalgo; did you mean shop/catalog?
"#,
    );
    controller.check(&["edges", "--from", "catalog"], 0, "", "No calls in the last 30s.\n");
}

#[test]
fn as_documents() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["edges", "--from", "batch", "-o", "json", "--window", "0"],
        0,
        r#"
{
  "windowSeconds": 0.0,
  "edges": [
    {
      "source": "spiffe://cluster.local/ns/shop/sa/batch",
      "destination": "spiffe://cluster.local/ns/shop/sa/cart",
      "service": "shop/cart:8080",
      "backend": "shop/cart:8080",
      "workloads": [
        "shop/cart"
      ],
      "protocol": "grpc",
      "secured": true,
      "securedSays": "both",
      "requests": 15,
      "failures": 15,
      "requestsPerSecond": 0.5,
      "successRatio": 0.0,
      "securedRatio": 1.0,
      "p50Millis": 1.535,
      "p95Millis": 40.959,
      "p99Millis": 40.959,
      "requestBytes": 3000,
      "responseBytes": 45000,
      "connections": 2,
      "reasons": {
        "AUTHZ_DENIED": 15
      }
    }
  ]
}
"#,
        "",
    );
    controller.check(
        &["edges", "--from", "batch", "-o", "yaml", "--window", "1m"],
        0,
        r#"
windowSeconds: 60.0
edges:
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
"#,
        "",
    );
}

#[test]
fn watching_ends_when_the_reader_goes_away() {
    use std::io::{BufRead as _, BufReader};
    let controller = Controller::start(Shop::healthy());
    let mut command = crate::support::command(controller.dir.path(), &["edges", "--watch", "-o", "json"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let document: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(document["edges"].as_array().unwrap().len(), 5);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn watching_waits_for_a_controller_that_is_away() {
    use std::io::{BufRead as _, BufReader, Read as _};
    let controller = Controller::start(Shop::healthy());
    let mut command = crate::support::command(controller.dir.path(), &["edges", "--watch", "-o", "json"]);
    let pipe = std::process::Stdio::piped;
    let mut child = command.stdout(pipe()).stderr(pipe()).spawn().unwrap();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut stdout, mut stderr) = (BufReader::new(stdout), BufReader::new(stderr));
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let (address, dir) = controller.kill();
    let mut complaint = String::new();
    stderr.read_line(&mut complaint).unwrap();
    assert!(complaint.starts_with(&format!("error: no controller answers at {address}")), "{complaint}");
    // Back at another address.
    let again = Controller::start(Shop::healthy());
    std::fs::copy(again.dir.path().join("controller.json"), dir.path().join("controller.json")).unwrap();
    let mut next = String::new();
    stdout.read_line(&mut next).unwrap();
    assert_eq!(next, line);
    drop(stdout);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.lines().all(|line| line.starts_with("error: no controller answers at")), "{rest}");
}

#[test]
fn calls_are_counted_once() {
    let controller = Controller::start(Shop::healthy());
    let output = run(controller.dir.path(), &["edges", "-o", "json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let requests =
        document["edges"].as_array().unwrap().iter().map(|edge| edge["requests"].as_u64().unwrap());
    assert_eq!(requests.sum::<u64>(), 900 + 100 + 300 + 15 + 600);
}
