//! Where a call goes.

use mesh_core::{config::Destination, resource::DestinationKey};

use super::{SHOP, check_problems, compiled, describe};

const MORE: &str = "apiVersion: v1
kind: Service
metadata: {name: many, namespace: shop}
spec: {ports: [{name: a, port: 81}, {name: b, port: 82}]}
---
apiVersion: v1
kind: Service
metadata: {name: many, namespace: other}
spec: {ports: [{name: a, port: 80}, {name: b, port: 82}]}
---
apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: lonely.one, namespace: other}
spec: {address: 127.1.0.9, ports: [{port: 5000}]}
---
apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: many, namespace: shop}
spec: {address: 'fd00::1', ports: [{port: 81}]}
";

/// Looks `key` up from namespace shop: `SERVICE: RULE`, `passthrough`, or what is wrong.
fn look_up(key: &str) -> String {
    let compiled = compiled(&[SHOP, MORE]);
    let key: DestinationKey = match key.parse() {
        Ok(addr) => DestinationKey::Addr(mesh_core::addr::OrigDst(addr)),
        Err(_) => DestinationKey::Host(key.parse().unwrap()),
    };
    let (destination, closure) = compiled.destination(&key, "shop");
    for port in &closure {
        assert!(compiled.endpoints.contains_key(port), "{port}");
    }
    match destination {
        Destination::Service(routes) => {
            assert!(!closure.is_empty());
            format!("{}: {}", routes.service, describe(&routes).join(", "))
        }
        Destination::Passthrough => "passthrough".to_owned(),
        Destination::Unknown(detail) => detail,
    }
}

#[test]
fn hosts() {
    let catalog = "shop/catalog:80: Service catalog#0 -> catalog:80=1";
    for host in
        ["catalog", "catalog:80", "Catalog.shop", "catalog.shop.svc", "catalog.shop.svc.cluster.local:80"]
    {
        assert_eq!(look_up(host), catalog, "{host}");
    }
    assert_eq!(look_up("inventory"), "shop/inventory:7000: Service inventory#0 -> inventory:7000=1");
    assert_eq!(look_up("many.other"), "other/many:80: Service many#0 -> many:80=1");
    let check =
        |host: &str, detail: &str| assert!(look_up(host).contains(detail), "{host}: {}", look_up(host));
    check("many", "has several ports and none is 80: write one; it has 81, 82");
    check("catalog:81", "Service shop/catalog has no port 81; it has 80");
    check("catalogue", "no Service \"catalogue\" in namespace shop; did you mean \"catalog\"?");
    check("inventory.other", "did you mean \"inventory\"?");
    check("example.com", "no Service \"example\" in namespace com, which has none");
    check("www.example.com", "cannot name a Service");
    check("nothing", "there are catalog, catalog-v1, catalog-v2, inventory, many");
}

#[test]
fn addresses_as_hosts_are_never_passed_through() {
    let compiled = compiled(&[SHOP]);
    let look_up = |host: &str| compiled.destination(&DestinationKey::Host(host.parse().unwrap()), "shop").0;
    let Destination::Service(routes) = look_up("127.1.0.3:8080") else { panic!("a workload's address") };
    assert_eq!(routes.service.to_string(), "shop/catalog:80");
    let Destination::Unknown(detail) = look_up("10.9.9.9") else { panic!("nobody's address") };
    assert_eq!(detail, "10.9.9.9:80 is the address of no workload or Service");
}

#[test]
fn addresses() {
    assert_eq!(look_up("127.1.0.3:8080"), "shop/catalog:80: Workload catalog-v1-a#0 -> catalog-v1-a:8080=1");
    assert_eq!(look_up("127.1.0.5:7000"), "shop/inventory:7000: Workload inventory#0 -> inventory:7000=1");
    assert_eq!(look_up("[::ffff:127.1.0.5]:7000"), look_up("127.1.0.5:7000"));
    assert_eq!(
        look_up("127.1.0.9:5000"),
        "other/ip-127-1-0-9:5000: Workload lonely.one#0 -> ip-127-1-0-9:5000=1"
    );
    let v6 = "ip-fd00-0000-0000-0000-0000-0000-0000-0001";
    assert_eq!(look_up("[fd00::1]:81"), format!("shop/{v6}:81: Workload many#0 -> {v6}:81=1"));
    assert_eq!(look_up("10.0.0.7:7000"), "shop/inventory:7000: Service inventory#0 -> inventory:7000=1");
    assert_eq!(look_up("10.0.0.7:7001"), "passthrough");
    assert_eq!(look_up("93.184.216.34:443"), "passthrough");
}

#[test]
fn an_address_leads_to_one_workload_alone() {
    let compiled = compiled(&[SHOP]);
    let key = DestinationKey::Addr(mesh_core::addr::OrigDst("127.1.0.4:8080".parse().unwrap()));
    let (_, closure) = compiled.destination(&key, "shop");
    let [port] = closure.as_slice() else { panic!("{closure:?}") };
    let workloads: Vec<String> = compiled.endpoints[port].iter().map(|e| e.workload.to_string()).collect();
    assert_eq!(workloads, ["shop/catalog-v2-a"]);
}

#[test]
fn upstreams_that_lead_nowhere_are_reported() {
    let workload = "apiVersion: meshctl.dev/v1alpha1
kind: Workload
metadata: {name: w, namespace: shop}
spec:
  address: 127.1.0.77
  upstreams:
  - {listenPort: 17000, host: inventory, port: 7000}
  - {listenPort: 17001, host: inventory, port: 7001}
  - {listenPort: 17002, host: inventry, port: 7000}
";
    check_problems(
        &compiled(&[SHOP, workload]),
        &[
            "1.yaml:8 spec.upstreams[1].host: no port 7001",
            "1.yaml:9 spec.upstreams[2].host: did you mean \"inventory\"?",
        ],
    );
}
