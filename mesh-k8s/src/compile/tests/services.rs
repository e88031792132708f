//! Services, Workloads and endpoints.

use mesh_core::{name::WorkloadRef, protocol::Protocol};

use super::{SHOP, check_problems, compiled, port};

fn check_endpoints(files: &[&str], service: &str, expected: &[&str]) {
    let compiled = compiled(files);
    let found = compiled.endpoints.get(&port(service)).unwrap();
    let told: Vec<String> =
        found.iter().map(|e| format!("{} {} {}", e.workload, e.address, e.protocol)).collect();
    assert_eq!(told, expected);
}

#[test]
fn services_select_workloads_by_labels() {
    check_endpoints(
        &[SHOP],
        "shop/catalog:80",
        &["shop/catalog-v1-a 127.1.0.3:8080 http", "shop/catalog-v2-a 127.1.0.4:8080 http"],
    );
    check_endpoints(&[SHOP], "shop/catalog-v2:80", &["shop/catalog-v2-a 127.1.0.4:8080 http"]);
    check_endpoints(&[SHOP], "shop/inventory:7000", &["shop/inventory 127.1.0.5:7000 tcp"]);
}

#[test]
fn endpoints_carry_identity_and_zone() {
    let compiled = compiled(&[SHOP]);
    check_problems(&compiled, &[]);
    let inventory = &compiled.endpoints[&port("shop/inventory:7000")][0];
    assert_eq!(inventory.identity.as_ref().unwrap().as_str(), "spiffe://cluster.local/ns/shop/sa/inventory");
    assert_eq!(&*inventory.zone, "a");
}

#[test]
fn a_workload_is_told_its_ports_and_services() {
    let compiled = compiled(&[SHOP]);
    let config = &compiled.workloads[&WorkloadRef::new("shop", "catalog-v1-a")];
    assert_eq!(config.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/catalog");
    assert_eq!(config.address.unwrap().to_string(), "127.1.0.3");
    let [inbound] = config.inbound.as_slice() else { panic!("{:?}", config.inbound) };
    assert_eq!((inbound.port, &*inbound.name, inbound.protocol), (8080, "http", Protocol::Http1));
    assert_eq!(inbound.services, [port("shop/catalog:80"), port("shop/catalog-v1:80")]);
    let inventory = &compiled.workloads[&WorkloadRef::new("shop", "inventory")].inbound[0];
    assert_eq!(inventory.app_address.unwrap().to_string(), "127.1.0.5:9000");
    assert_eq!(compiled.labels[&WorkloadRef::new("shop", "catalog-v1-a")]["version"], "v1");
}

#[test]
fn service_accounts_are_those_of_objects_and_workloads() {
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: job, namespace: batch}\n";
    let found = compiled(&[SHOP, account]).service_accounts;
    let names: Vec<String> = found.into_iter().map(|(ns, name)| format!("{ns}/{name}")).collect();
    assert_eq!(names, ["batch/job", "shop/catalog", "shop/inventory"]);
}

#[test]
fn the_workloads_protocol_wins() {
    let files = |service: &str, workload: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {{selector: {{app: a}}, ports: [{{port: 80{service}}}]}}
---\napiVersion: meshctl.dev/v1alpha1\nkind: Workload\nmetadata: {{name: a, labels: {{app: a}}}}
spec: {{address: 127.1.0.3, ports: [{{port: 80{workload}}}]}}\n"
        )
    };
    let check = |service: &str, workload: &str, expected: Protocol| {
        let compiled = compiled(&[&files(service, workload)]);
        assert_eq!(compiled.services[&port("default/a:80")].protocol, expected);
        assert_eq!(compiled.endpoints[&port("default/a:80")][0].protocol, expected);
        assert_eq!(compiled.workloads[&WorkloadRef::new("default", "a")].inbound[0].protocol, expected);
    };
    check("", "", Protocol::Undeclared);
    check(", appProtocol: http", "", Protocol::Http1);
    check("", ", appProtocol: grpc", Protocol::Grpc);
    check(", appProtocol: http", ", appProtocol: grpc", Protocol::Grpc);
}

#[test]
fn what_selects_nothing_is_reported() {
    let file = "apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec:
  selector:
    app: nothing
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: b, namespace: shop}
spec:
  selector: {app: catalog}
  ports:
  - {name: x, port: 81, targetPort: admin}
  - {name: y, port: 82, targetPort: 9999}
  - {name: z, port: 83, targetPort: 8080}
";
    let compiled = compiled(&[SHOP, file]);
    check_problems(
        &compiled,
        &[
            "1.yaml:6 spec.selector: matches no Workload",
            "1.yaml:15 spec.ports[0].targetPort: named \"admin\"",
            "1.yaml:16 spec.ports[1].targetPort: port 9999",
        ],
    );
    assert!(compiled.endpoints[&port("shop/a:80")].is_empty());
    assert_eq!(compiled.endpoints[&port("shop/b:83")].len(), 2);
}

#[test]
fn the_first_of_one_name_applies() {
    let first = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
    let second = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 81}]}\n";
    let compiled = compiled(&[first, second]);
    check_problems(&compiled, &["!!1.yaml:1 metadata.name: at 0.yaml:1"]);
    let refused: Vec<String> =
        compiled.refused.iter().map(|(object, place)| format!("{object} {place}")).collect();
    assert_eq!(refused, ["Service default/a 1.yaml:1"]);
    assert!(compiled.services.contains_key(&port("default/a:80")));
    assert!(!compiled.services.contains_key(&port("default/a:81")));
}

#[test]
fn two_workloads_cannot_share_a_port_of_an_address() {
    let workload = |name: &str, port: u16| {
        format!(
            "apiVersion: meshctl.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}
spec:\n  address: 127.1.0.9\n  ports: [{{port: {port}}}]\n"
        )
    };
    let compiled = compiled(&[&workload("a", 80), &workload("b", 80), &workload("c", 81)]);
    check_problems(
        &compiled,
        &[
            "!!1.yaml:6 spec.address: 127.1.0.9:80 is served by Workload default/a",
            "2.yaml:5 spec.address: the same address",
        ],
    );
    let names: Vec<String> = compiled.workloads.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["default/a", "default/c"]);
}
