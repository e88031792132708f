//! `meshctl check`.

use crate::{shop::Shop, support::Controller, support::compare, support::run};

#[test]
fn a_healthy_mesh() {
    let controller = Controller::start(Shop::healthy());
    controller.check(
        &["check"],
        0,
        r#"
Controller
  ok    the view API answers (ADDR)
  ok    the view token is accepted
  ok    the controller's version fits meshctl's (0.1.0)
  ok    its clock agrees with this machine's

Certificates
  ok    root ab12ab12ab12ab12: the trust anchor is valid (expires in 3650d)
  ok    the issuer is valid (expires in 365d)

Configuration
  ok    every object: applies as it is written

Proxies
  ok    every workload: its proxy is connected (4 of 4)
  ok    every workload: its proxy has applied the newest configuration (4 of 4)
  ok    every workload: its proxy has refused no configuration (4 of 4)
  ok    every workload: its proxy's certificate is valid (4 of 4)
  ok    every workload: its proxy reports what it counts (4 of 4)
  ok    every workload: its proxy's version fits the controller's (4 of 4)

13 checks, all well
"#,
        "",
    );
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    let controller = Controller::start(Shop::troubled());
    controller.check(
        &["check"],
        1,
        r#"
Controller
  ok    the view API answers (ADDR)
  ok    the view token is accepted
  ok    the controller's version fits meshctl's (0.1.0)
  ok    its clock agrees with this machine's

Certificates
  ok    root ab12ab12ab12ab12: the trust anchor is valid (expires in 3650d)
  warn  the issuer is valid
        it expires in 12d
        restart the controller: it issues a new issuer from the root

Configuration
  FAIL  TrafficSplit shop/catalog: applies as it is written
        not applied; if it was good before, that version stays, else it has no effect: routes/shop.yaml:14: spec.backends: all weights are 0
        give one a weight
  warn  Service shop/cart: applies as it is written
        applied in part: routes/shop.yaml:31: spec.ports[0].appProtocol: "grcp" is not known
        did you mean grpc?

Proxies
  FAIL  Workload shop/catalog-v2: its proxy is connected
        no proxy ever connected for it
        also Workload shop/storefront
        start it and see its log: mesh-proxy run --workload shop/catalog-v2
  FAIL  Workload shop/cart: its proxy has applied the newest configuration
        it is 2 behind (has 5, newest is 7) and has not answered 1 change
        see the proxy's log; it keeps what it has, so restarting is a last resort
  ok    every workload: its proxy has refused no configuration (2 of 2)
  ok    every workload: its proxy's certificate is valid (2 of 2)
  ok    every workload: its proxy reports what it counts (2 of 2)
  ok    every workload: its proxy's version fits the controller's (2 of 2)

15 checks, 4 failed, 2 warnings
"#,
        "",
    );
}

#[test]
fn as_json() {
    let controller = Controller::start(Shop::troubled());
    let output = run(controller.dir.path(), &["check", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["ok"], &report["warnings"], &report["failed"]), (&9.into(), &2.into(), &4.into()));
    let problem =
        report["checks"].as_array().unwrap().iter().find(|check| check["category"] == "Configuration");
    assert_eq!(
        problem.unwrap(),
        &serde_json::json!({
            "category": "Configuration",
            "check": "applies as it is written",
            "result": "fail",
            "subject": "TrafficSplit shop/catalog",
            "detail": null,
            "reason": "not applied; if it was good before, that version stays, else it has no effect: routes/shop.yaml:14: spec.backends: all weights are 0",
            "remedy": "give one a weight",
        })
    );
}

#[test]
fn as_yaml() {
    // Nobody listens on the port of tcpmux.
    let dir = crate::support::data_dir("127.0.0.1:1", "token");
    let output = run(dir.path(), &["check", "-o", "yaml"]);
    compare(
        &output,
        dir.path(),
        "",
        1,
        r#"
ok: 0
warnings: 0
failed: 1
checks:
- category: Controller
  check: the view API answers
  result: fail
  subject: null
  detail: null
  reason: no controller answers at 127.0.0.1:1 (Connection refused (os error 111))
  remedy: is it running? See its log, or start it with `mesh-controller run`
"#,
        "",
    );
}

#[test]
fn a_directory_without_a_controller() {
    let dir = tempfile::tempdir().unwrap();
    let check = |code, stdout: &str, stderr: &str| {
        let path = dir.path().to_str().unwrap();
        let output = run(dir.path(), &["check", "--source", path]);
        compare(&output, dir.path(), "", code, stdout, stderr);
    };
    check(2, "", "error: DIR holds no *.yaml or *.yml files; name the directory that the controller reads\n");
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: cart, namespace: shop}\n";
    std::fs::create_dir(dir.path().join("deep")).unwrap();
    std::fs::write(dir.path().join("deep/account.yml"), account).unwrap();
    std::fs::write(dir.path().join(".hidden.yaml"), "{").unwrap();
    check(
        0,
        r#"
Source
  ok    the directory can be read (1 file, 1 object, 0 workloads)

Configuration
  ok    every object: applies as it is written

2 checks, all well
"#,
        "",
    );
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\nspec:\n  ports: [{port: http}]\n";
    std::fs::write(dir.path().join("service.yaml"), service).unwrap();
    check(
        1,
        r#"
Source
  ok    the directory can be read (2 files, 1 object, 0 workloads)

Configuration
  FAIL  Service shop/cart: applies as it is written
        not applied: service.yaml:5: spec.ports[0].port: "http" is not a port number (1 to 65535)
        write a number from 1 to 65535

2 checks, 1 failed
"#,
        "",
    );
}

#[test]
fn what_cannot_be_read_does_not_hide_the_rest_and_circles_are_seen_once() {
    let dir = tempfile::tempdir().unwrap();
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: cart, namespace: shop}\n";
    std::fs::write(dir.path().join("account.yaml"), account).unwrap();
    std::os::unix::fs::symlink(".", dir.path().join("circle")).unwrap();
    std::fs::write(dir.path().join("latin.yaml"), b"# caf\xe9\n").unwrap();
    std::fs::write(dir.path().join("large.yaml"), vec![b'#'; (4 << 20) + 1]).unwrap();
    let output = run(dir.path(), &["check", "--source", dir.path().to_str().unwrap()]);
    compare(
        &output,
        dir.path(),
        "",
        1,
        r#"
Source
  ok    the directory can be read (1 file, 1 object, 0 workloads)

Configuration
  FAIL  large.yaml: applies as it is written
        not applied: large.yaml: the file cannot be read: it has 4194305 bytes; at most 4194304 in a file and 67108864 in all are read
        make it UTF-8 text within the limits that the controller may read, or move it away
  FAIL  latin.yaml: applies as it is written
        not applied: latin.yaml: the file cannot be read: it is no UTF-8 text
        make it UTF-8 text within the limits that the controller may read, or move it away

3 checks, 2 failed
"#,
        "",
    );
}

#[test]
fn domains_are_those_of_the_mesh_that_the_files_are_for() {
    let dir = tempfile::tempdir().unwrap();
    let workload = "apiVersion: meshctl.dev/v1alpha1\nkind: Workload\nmetadata: {name: cart, namespace: shop}\nspec:\n  \
                    address: 127.1.0.4\n  upstreams: [{listenPort: 17000, host: inventory.shop.svc.mesh.test, port: 7000}]\n";
    std::fs::write(dir.path().join("cart.yaml"), workload).unwrap();
    let source = dir.path().to_str().unwrap();
    let check = |args: &[&str], code, expected: &str| {
        let output = run(dir.path(), &[&["check"], args].concat());
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(expected), "{args:?}: {text}");
    };
    check(
        &["--source", source, "--cluster-domain", "mesh.test", "--trust-domain", "t.test"],
        0,
        "no Service \"inventory\" in namespace shop",
    );
    check(&["--source", source], 0, "cannot name a Service");
    check(&["--source", source, "--cluster-domain", "-"], 2, "expected a DNS name");
    check(&["--source", source, "--trust-domain", "A b"], 2, "invalid value 'A b' for '--trust-domain");
    check(&["--trust-domain", "t.test"], 2, "--source <DIR>");
}
