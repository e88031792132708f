//! Several that say they stand at one address.

use mesh_core::{config::Destination, resource::DestinationKey};
use serde_json::{Value, json};

use super::settings;
use crate::{
    compile::{Compiled, compile},
    object::{Located, Standing},
    parse::parse_object,
};

fn read(object: &Value, standing: Standing) -> Located {
    let at = |name: &str| object["metadata"][name].as_str().unwrap();
    let place = format!("{} {}/{}", object["kind"].as_str().unwrap(), at("namespace"), at("name"));
    let (mut found, problems, _) = parse_object(&place, object);
    assert!(problems.is_empty(), "{problems:?}");
    Located { standing, ..found.remove(0) }
}

fn compiled(objects: &[(Value, Standing)]) -> Compiled {
    let mut all: Vec<Located> = objects.iter().map(|(object, standing)| read(object, *standing)).collect();
    let forwards = compile(&all, &settings());
    all.reverse();
    assert_eq!(forwards, compile(&all, &settings()), "the order of objects must not matter");
    forwards
}

/// In the mesh, unless it is called `out`.
fn pod(name: &str, created: &str, ip: &str) -> Value {
    let beside = if name == "out" { "other" } else { "mesh-proxy" };
    let metadata = json!({"name": name, "namespace": "shop", "creationTimestamp": created});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {"containers": [{"name": "app", "ports": [{"containerPort": 8080}]}, {"name": beside}]},
        "status": {"phase": "Running", "podIP": ip}})
}

fn workload(address: &str, port: u16) -> Value {
    json!({"apiVersion": "meshctl.dev/v1alpha1", "kind": "Workload", "metadata": {"name": "x", "namespace": "evil"},
        "spec": {"address": address, "ports": [{"port": port}]}})
}

fn service(ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"clusterIPs": [ip], "ports": [{"port": 80}]}})
}

/// Whose address it is: a Service, or else a workload.
fn owner(compiled: &Compiled, address: &str) -> String {
    let key = DestinationKey::Addr(mesh_core::addr::OrigDst(address.parse().unwrap()));
    match compiled.destination(&key, "shop").0 {
        Destination::Service(routes) => {
            format!(
                "{} {}",
                routes.service,
                routes.rules.first().map_or("nothing", |rule| &*rule.object.name)
            )
        }
        Destination::Passthrough => "nobody".to_owned(),
        Destination::Unknown(detail) => detail,
    }
}

#[track_caller]
fn check_refused(compiled: &Compiled, expected: &[&str]) {
    let told: Vec<String> =
        compiled.problems.iter().filter(|problem| problem.refused).map(ToString::to_string).collect();
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}");
    }
    assert_eq!(compiled.refused.len(), expected.len());
}

#[test]
fn no_workload_takes_the_address_of_a_service() {
    for (cluster, claimed) in
        [("10.96.0.3", "10.96.0.3"), ("10.96.0.3", "::ffff:10.96.0.3"), ("fd00::3", "fd00::3")]
    {
        let at = std::net::SocketAddr::new(cluster.parse().unwrap(), 80);
        let all = [(service(cluster), Standing::New), (workload(claimed, 80), Standing::Unchanged)];
        let compiled = compiled(&all);
        let expected = format!(
            "Workload evil/x: spec.address: {at} is a clusterIP of Service shop/cart, at Service shop/cart"
        );
        check_refused(&compiled, &[&expected]);
        assert_eq!(owner(&compiled, &at.to_string()), "shop/cart:80 cart");
    }
    let beside =
        compiled(&[(service("10.96.0.3"), Standing::New), (workload("10.96.0.3", 81), Standing::New)]);
    check_refused(&beside, &[]);
}

#[test]
fn no_workload_takes_the_address_of_a_pod() {
    // Another port that the pod does not declare, and pods without a proxy.
    for (name, port, found) in
        [("cart", 8080, "shop/cart:8080 cart"), ("cart", 81, "nobody"), ("out", 8080, "nobody")]
    {
        let all = [
            (pod(name, "2026-01-01T00:00:00Z", "10.0.0.1"), Standing::Changed),
            (workload("10.0.0.1", port), Standing::Unchanged),
        ];
        let compiled = compiled(&all);
        let expected =
            format!("Workload evil/x: spec.address: 10.0.0.1 is the address of Pod shop/{name}; give");
        check_refused(&compiled, &[&expected]);
        assert_eq!(owner(&compiled, &format!("10.0.0.1:{port}")), found);
    }
}

#[test]
fn an_address_is_that_of_the_pod_that_was_made_last() {
    let old = "2026-01-01T09:59:59Z";
    // Neither the name nor what applied before decides.
    for (lost, new) in [("a", "b"), ("b", "a"), ("a", "out")] {
        let all = [
            (pod(lost, old, "10.0.0.1"), Standing::Unchanged),
            (pod(new, "2026-01-01T10:00:00Z", "10.0.0.1"), Standing::New),
        ];
        let compiled = compiled(&all);
        let expected =
            format!("Pod shop/{lost}: status.podIP: 10.0.0.1 is the address of Pod shop/{new} by now");
        check_refused(&compiled, &[&expected]);
        let found = if new == "out" { "nobody".to_owned() } else { format!("shop/{new}:8080 {new}") };
        assert_eq!(owner(&compiled, "10.0.0.1:8080"), found);
    }
}

#[test]
fn a_pod_on_its_host_takes_no_address_from_others() {
    let mut host = pod("out", "2026-01-01T10:00:00Z", "10.0.0.1");
    host["spec"]["hostNetwork"] = true.into();
    host["metadata"]["annotations"] = json!({"meshctl.dev/inject": "disabled"});
    let pod = pod("cart", "2026-01-01T00:00:00Z", "10.0.0.1");
    let compiled = compiled(&[(host, Standing::New), (pod, Standing::New)]);
    check_refused(&compiled, &[]);
    assert_eq!(owner(&compiled, "10.0.0.1:8080"), "shop/cart:8080 cart");
}
