//! Pods and EndpointSlices of a Kubernetes cluster.

use mesh_core::name::WorkloadRef;
use serde_json::{Value, json};

use super::{Compiled, port, settings};
use crate::{compile::compile, object::Located, parse::parse_object};

fn located(objects: &[Value]) -> Vec<Located> {
    let read = |object: &Value| {
        let place = format!("{} {}", object["kind"], object["metadata"]["name"]);
        let (found, problems, _) = parse_object(&place, object);
        assert!(problems.is_empty(), "{problems:?}");
        found
    };
    objects.iter().flat_map(read).collect()
}

fn compiled(objects: &[Value]) -> Compiled {
    let mut all = located(objects);
    let forwards = compile(&all, &settings());
    all.reverse();
    assert_eq!(forwards, compile(&all, &settings()), "the order of objects must not matter");
    forwards
}

fn service(ports: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"selector": {"app": "cart"}, "ports": ports}})
}

fn pod(name: &str, has_proxy: bool, addresses: &[&str]) -> Value {
    let containers: Vec<Value> = if has_proxy {
        vec![
            json!({"name": "app", "ports": [{"name": "web", "containerPort": 8080}]}),
            json!({"name": "mesh-proxy"}),
        ]
    } else {
        vec![json!({"name": "app"})]
    };
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "cart"}},
        "spec": {"serviceAccountName": "cart", "containers": containers},
        "status": {"phase": "Running", "podIP": addresses.first().copied().unwrap_or_default(), "podIPs": ips}})
}

/// Endpoints by pod (empty: none), address and readiness.
fn slice(name: &str, ports: &Value, endpoints: &[(&str, &str, &str)]) -> Value {
    let endpoint = |(pod, address, state): &(&str, &str, &str)| {
        let (ready, serving) = (*state == "ready", *state != "down");
        let mut endpoint =
            json!({"addresses": [address], "zone": "a", "conditions": {"ready": ready, "serving": serving}});
        if !pod.is_empty() {
            endpoint["targetRef"] = json!({"kind": "Pod", "name": pod});
        }
        endpoint
    };
    let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports,
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
        "endpoints": endpoints})
}

#[track_caller]
fn check(objects: &[Value], service: &str, expected: &[&str]) {
    let compiled = compiled(objects);
    let told = compiled.endpoints[&port(service)].iter().map(|e| {
        let identity = e.identity.as_ref().map_or("plaintext", |id| id.as_str().rsplit('/').next().unwrap());
        format!("{} {} {identity} {}", e.workload.name, e.address, e.protocol)
    });
    assert_eq!(told.collect::<Vec<_>>(), expected, "{:#?}", compiled.problems);
}

fn http() -> Value {
    json!([{"name": "http", "port": 80, "targetPort": "web", "appProtocol": "http"}])
}

fn web(number: u16) -> Value {
    json!([{"name": "http", "port": number}])
}

#[test]
fn pods_with_a_proxy_have_identities_and_others_are_called_in_plaintext() {
    let all = [("in", "10.0.0.1", "ready"), ("out", "10.0.0.2", "ready"), ("", "192.0.2.1", "ready")];
    let objects = [
        service(&http()),
        pod("in", true, &["10.0.0.1"]),
        pod("out", false, &["10.0.0.2"]),
        slice("a", &web(8080), &all),
    ];
    let expected = [
        "in 10.0.0.1:8080 cart http",
        "out 10.0.0.2:8080 plaintext http",
        "cart 192.0.2.1:8080 plaintext http",
    ];
    check(&objects, "shop/cart:80", &expected);
    let compiled = compiled(&objects);
    assert!(compiled.problems.is_empty(), "{:#?}", compiled.problems);
    let config = &compiled.workloads[&WorkloadRef::new("shop", "in")];
    assert_eq!((&*config.zone, config.inbound.len()), ("a", 1));
    assert_eq!(config.inbound[0].services, [port("shop/cart:80")]);
    assert_eq!(compiled.workloads.len(), 1);
}

#[test]
fn what_may_be_in_the_mesh_is_never_called_in_plaintext() {
    let check = |pods: &[Value], pod: &str, expected: &[&str]| {
        let mut objects = vec![service(&http()), slice("a", &web(8080), &[(pod, "10.0.0.1", "ready")])];
        objects.extend_from_slice(pods);
        check(&objects, "shop/cart:80", expected);
    };
    check(&[], "in", &[]);
    check(&[pod("in", true, &[])], "in", &[]);
    check(&[pod("in", true, &["10.0.0.7"])], "in", &[]);
    check(&[pod("in", false, &["10.0.0.7"])], "in", &[]);
    check(&[pod("in", true, &["10.0.0.1"])], "", &["in 10.0.0.1:8080 cart http"]);
    // The proxy's own ports: health is open to all, the others to nobody.
    for (number, expected) in [(15020, &["in 10.0.0.1:15020 plaintext http"][..]), (15006, &[])] {
        let slice = slice("a", &web(number), &[("in", "10.0.0.1", "ready")]);
        super::slices::check(
            &[service(&http()), pod("in", true, &["10.0.0.1"]), slice],
            "shop/cart:80",
            expected,
        );
    }
}

#[test]
fn those_that_still_serve_are_called_when_none_is_ready() {
    let pods = [pod("a", true, &["10.0.0.1"]), pod("b", true, &["10.0.0.2"]), pod("c", true, &["10.0.0.3"])];
    let check = |states: [&str; 3], expected: &[&str]| {
        let endpoints =
            [("a", "10.0.0.1", states[0]), ("b", "10.0.0.2", states[1]), ("c", "10.0.0.3", states[2])];
        let mut objects = vec![service(&http()), slice("x", &web(8080), &endpoints)];
        objects.extend_from_slice(&pods);
        check(&objects, "shop/cart:80", expected);
    };
    check(["ready", "serving", "down"], &["a 10.0.0.1:8080 cart http"]);
    check(["down", "serving", "down"], &["b 10.0.0.2:8080 cart http"]);
    check(["down", "down", "down"], &[]);
}

#[test]
fn each_port_has_the_endpoints_of_its_name_wherever_they_listen() {
    let ports = json!([{"name": "http", "port": 80, "targetPort": "web"}, {"name": "raw", "port": 7000, "appProtocol": "tcp"}]);
    let objects = [
        service(&ports),
        pod("a", true, &["10.0.0.1"]),
        pod("b", true, &["10.0.0.2"]),
        slice(
            "x",
            &json!([{"name": "http", "port": 8080}, {"name": "raw", "port": 7001}]),
            &[("a", "10.0.0.1", "ready")],
        ),
        slice("y", &web(9090), &[("b", "10.0.0.2", "ready")]),
        // A slice of before, which is not yet gone.
        slice("z", &web(8080), &[("a", "10.0.0.1", "ready")]),
    ];
    let expected = ["a 10.0.0.1:8080 cart undeclared", "b 10.0.0.2:9090 cart undeclared"];
    check(&objects, "shop/cart:80", &expected);
    check(&objects, "shop/cart:7000", &["a 10.0.0.1:7001 cart tcp"]);
    let config = &compiled(&objects).workloads[&WorkloadRef::new("shop", "a")];
    let inbound: Vec<u16> = config.inbound.iter().map(|port| port.port).collect();
    assert_eq!(inbound, [8080, 7001], "a port need not be declared by the pod");
}

#[test]
fn a_pod_of_two_families_is_one_endpoint() {
    let mut six = slice("six", &web(8080), &[("a", "fd00::1", "ready")]);
    six["addressType"] = json!("IPv6");
    let pod = pod("a", true, &["10.0.0.1", "fd00::1"]);
    let four = slice("four", &web(8080), &[("a", "10.0.0.1", "ready")]);
    check(
        &[service(&http()), pod.clone(), four, six.clone()],
        "shop/cart:80",
        &["a 10.0.0.1:8080 cart http"],
    );
    check(&[service(&http()), pod, six], "shop/cart:80", &["a [fd00::1]:8080 cart http"]);
}

#[test]
fn workloads_beside_pods() {
    let workload = |name: &str| {
        json!({"apiVersion": "meshctl.dev/v1alpha1", "kind": "Workload",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "cart"}},
            "spec": {"address": "192.0.2.5", "ports": [{"name": "web", "port": 8080}]}})
    };
    let slice = slice("x", &web(8080), &[("a", "10.0.0.1", "ready")]);
    let objects = [service(&http()), pod("a", true, &["10.0.0.1"]), slice.clone(), workload("vm")];
    check(&objects, "shop/cart:80", &["a 10.0.0.1:8080 cart http", "vm 192.0.2.5:8080 default http"]);
    let namesake = [service(&http()), pod("a", true, &["10.0.0.1"]), slice, workload("a")];
    check(&namesake, "shop/cart:80", &["a 10.0.0.1:8080 cart http"]);
    let told = compiled(&namesake).problems[0].to_string();
    assert!(told.starts_with("Workload shop/a: metadata.name: a pod in the mesh has this name"), "{told}");
}

#[test]
fn a_pod_without_an_address_is_configured_but_not_called() {
    let waiting = WorkloadRef { namespace: "shop".into(), name: "waiting".into() };
    let mut pending = pod("waiting", true, &[]);
    pending["metadata"]["uid"] = json!("u-1");
    let endpoints = slice("x", &web(8080), &[("waiting", "10.0.0.9", "ready")]);
    let found = compiled(&[service(&http()), pending.clone(), endpoints.clone()]);
    assert_eq!(found.workloads[&waiting].address, None);
    assert_eq!(found.workloads[&waiting].inbound[0].port, 8080);
    assert_eq!((&*found.pods[&waiting], found.meshed.len()), ("u-1", 1));
    assert!(found.endpoints.values().all(Vec::is_empty), "{:?}", found.endpoints);
    // Two of them do not share the address that neither has.
    let other = pod("other", true, &[]);
    let found = compiled(&[pending, other]);
    assert!(found.problems.is_empty() && found.workloads.len() == 2, "{:#?}", found.problems);
    check(
        &[service(&http()), pod("waiting", true, &["10.0.0.9"]), endpoints],
        "shop/cart:80",
        &["waiting 10.0.0.9:8080 cart http"],
    );
}

#[test]
fn namespaces_are_meshed_by_their_label_or_their_pods() {
    let namespace = |name: &str, key: &str, value: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, key: {"meshctl.dev/inject": value}}});
    let objects = [
        namespace("asked", "labels", "enabled"),
        namespace("opted-out", "labels", "disabled"),
        namespace("misplaced", "annotations", "enabled"),
        pod("inside", true, &[]),
    ];
    let found: Vec<String> = compiled(&objects).meshed.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["asked", "shop"]);
    assert!(compiled(&[pod("outside", false, &["10.0.0.1"])]).meshed.is_empty());
}

#[test]
fn pods_on_a_hosts_network_that_are_to_have_a_proxy_are_reported() {
    let check = |labelled: bool, wish: Option<&str>, is_reported: bool| {
        let mut pod = pod("agent", false, &["10.0.0.9"]);
        pod["spec"]["hostNetwork"] = true.into();
        if let Some(wish) = wish {
            pod["metadata"]["labels"]["meshctl.dev/inject"] = wish.into();
        }
        let labels = if labelled { json!({"meshctl.dev/inject": "enabled"}) } else { json!({}) };
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}});
        let compiled = compiled(&[pod, namespace]);
        let fields: Vec<&str> = compiled.problems.iter().map(|problem| problem.field.as_str()).collect();
        let expected: &[&str] = if is_reported { &["spec.hostNetwork"] } else { &[] };
        assert_eq!(fields, expected, "{labelled} {wish:?}");
        assert!(compiled.problems.iter().all(|problem| !problem.refused));
    };
    check(true, None, true);
    check(false, Some("enabled"), true);
    check(true, Some("disabled"), false);
    check(false, None, false);
}
