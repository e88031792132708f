//! Workload.

use super::{check, check_refused, parse};
use crate::object::Object;
use mesh_core::protocol::{ProxyProtocol, ProxyVersion};

const WORKLOAD: &str = "apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: catalog-v1, namespace: shop, labels: {app: catalog}}
spec:
  serviceAccount: catalog
  address: 127.1.0.3
  ports:
  - {name: http, port: 8080, appProtocol: http, appAddress: '127.1.0.3:9080'}
  - {name: admin, port: 8081}
  upstreams:
  - {listenPort: 17000, host: inventory, port: 7000}
";

#[test]
fn a_workload() {
    check(WORKLOAD, &["Workload shop/catalog-v1"], &[]);
    let (found, ..) = parse("f", WORKLOAD);
    let Object::Workload(workload) = &found[0].object else { panic!("a Workload") };
    assert_eq!(workload.upstreams[0].host.to_string(), "inventory:7000");
    assert_eq!(workload.ports[0].app_address.unwrap().to_string(), "127.1.0.3:9080");
    assert_eq!(&*workload.service_account.value, "catalog");
    let (found, ..) = parse("f", &WORKLOAD.replace("  serviceAccount: catalog\n", ""));
    let Object::Workload(workload) = &found[0].object else { panic!("a Workload") };
    assert_eq!(&*workload.service_account.value, "default");
}

#[test]
fn mistakes_in_a_workload() {
    let bad =
        |part: &str, replacement: &str, problem: &str| check_refused(WORKLOAD, part, replacement, problem);
    bad("address: 127.1.0.3\n", "addres: 127.1.0.3\n", "!6 spec.addres: did you mean \"address\"?");
    bad("address: 127.1.0.3\n", "address: 127.1.0\n", "!6 spec.address: is not an IP address");
    bad("address: 127.1.0.3\n", "address: 0.0.0.0\n", "!6 spec.address: that can be dialled");
    bad("port: 8081", "port: 8080", "!9 spec.ports[1].port: port 8080 is there twice, first in line 8");
    bad("port: 8081", "port: 15001", "!9 spec.ports[1].port: the proxy stands there");
    bad("127.1.0.3:9080", "127.1.0.3:8080", "!8 spec.ports[0].appAddress: the proxy stands there");
    bad("127.1.0.3:9080", "127.1.0.3:15000", "!8 spec.ports[0].appAddress: the proxy stands there");
    bad("127.1.0.3:9080", "9080", "!8 spec.ports[0].appAddress: write IP:PORT");
    bad(
        "listenPort: 17000",
        "listenPort: 8081",
        "!11 spec.upstreams[0].listenPort: served by the workload itself",
    );
    bad("host: inventory", "host: 'inventory:7000'", "!11 spec.upstreams[0].host: without port");
    bad("port: 7000", "port: many", "!11 spec.upstreams[0].port: \"many\" is not a port number");
    bad(", port: 7000", "", "!11 spec.upstreams[0].port: the field is missing");
    bad(
        "serviceAccount: catalog",
        "serviceAccount: A",
        "!5 spec.serviceAccount: is not the name of a ServiceAccount",
    );
}

#[test]
fn headers_of_the_proxy_protocol() {
    let with = |options: &str| WORKLOAD.replace("port: 8081}", &format!("port: 8081, {options}}}"));
    let (found, ..) = parse("f", &with("appProtocol: tcp, proxyProtocol: 'accept,send-v1'"));
    let Object::Workload(workload) = &found[0].object else { panic!("a Workload") };
    let wanted = ProxyProtocol { accept: true, send: Some(ProxyVersion::V1) };
    assert_eq!(workload.ports[1].proxy_protocol, wanted);
    let bad = |options: &str, problem: &str| {
        check_refused(WORKLOAD, "port: 8081}", &format!("port: 8081, {options}}}"), problem);
    };
    bad("proxyProtocol: v2", "!9 spec.ports[1].proxyProtocol: accept");
    bad("proxyProtocol: send", "!9 spec.ports[1].proxyProtocol: declare appProtocol: tcp");
}

#[test]
fn nobody_poses_as_the_controller() {
    let poser = WORKLOAD.replace("namespace: shop", "namespace: mesh-system");
    check(&poser, &["Workload mesh-system/catalog-v1"], &[]);
    let poser = poser.replace("serviceAccount: catalog", "serviceAccount: mesh-controller");
    check(&poser, &[], &["!5 spec.serviceAccount: the controller's own identity"]);
}

#[test]
fn labels_are_short_and_of_one_line() {
    let bad = |value: &str| {
        check_refused(
            WORKLOAD,
            "{app: catalog}",
            &format!("{{zone: {value}}}"),
            "!3 metadata.labels[zone]: a label value",
        );
    };
    bad("\"a\\nb\"");
    bad(&"x".repeat(64));
}
