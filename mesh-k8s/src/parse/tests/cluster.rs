//! Pods, EndpointSlices, and what an API server says of other kinds.

use mesh_core::protocol::Protocol;
use serde_json::{Value, json};

use crate::{
    object::{Membership, Object, Pod},
    parse::parse_object,
};

fn read(object: &Value) -> (Option<Object>, Vec<String>) {
    let (mut found, problems, recognised) = parse_object("Kind ns/name", object);
    assert!(recognised && found.len() <= 1, "{found:?}");
    (found.pop().map(|located| located.object), problems.iter().map(ToString::to_string).collect())
}

fn pod(spec: &Value, status: &Value) -> (Option<Object>, Vec<String>) {
    let metadata = json!({"name": "cart-1", "namespace": "shop", "labels": {"app": "cart"}});
    read(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}))
}

/// `outside`, `ended`, or identity, address and ports; then all addresses.
fn told(object: Option<Object>) -> String {
    let Some(Object::Pod(Pod { addresses, mesh, .. })) = object else { return "refused".to_owned() };
    let mesh = match mesh {
        Membership::Outside => "outside".to_owned(),
        Membership::Ended => "ended".to_owned(),
        Membership::Inside(workload) => {
            assert_eq!(workload.labels["app"], "cart");
            let ports: Vec<String> =
                workload.ports.iter().map(|p| format!("{}:{}", p.name, p.port)).collect();
            let address = workload.address.value.map_or_else(|| "nowhere".to_owned(), |ip| ip.to_string());
            format!("{} {address} {}", workload.service_account.value, ports.join(" "))
        }
    };
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("{}, {}", mesh.trim_end(), addresses.join(" "))
}

#[test]
fn a_pod_with_a_proxy_is_in_the_mesh() {
    let proxy = json!({"name": "mesh-proxy", "ports": [{"containerPort": 15020, "name": "health"}]});
    let ports = json!([
        {"name": "web", "containerPort": 8080, "protocol": "TCP"},
        {"name": "web", "containerPort": 8081},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"name": "again", "containerPort": 8080},
        {"containerPort": 15006},
    ]);
    let app = json!({"name": "app", "image": "x", "ports": ports});
    let running =
        json!({"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]});
    let check = |spec: Value, status: &Value, expected: &str| {
        let (object, problems) = pod(&spec, status);
        assert_eq!(told(object), expected, "{spec} {status}");
        assert!(problems.is_empty(), "{problems:?}");
    };
    check(
        json!({"serviceAccountName": "cart", "containers": [app, proxy]}),
        &running,
        "cart 10.0.0.1 web:8080 :8081, 10.0.0.1 fd00::1",
    );
    let native = json!({"containers": [app], "initContainers": [proxy]});
    check(native.clone(), &running, "default 10.0.0.1 web:8080 :8081, 10.0.0.1 fd00::1");
    check(json!({"containers": [proxy]}), &running, "default 10.0.0.1, 10.0.0.1 fd00::1");
    check(json!({"containers": [app]}), &running, "outside, 10.0.0.1 fd00::1");
    check(json!({"containers": [app]}), &Value::Null, "outside, ");
    check(native.clone(), &json!({"phase": "Pending"}), "default nowhere web:8080 :8081, ");
    for phase in ["Succeeded", "Failed"] {
        check(native.clone(), &json!({"phase": phase, "podIP": "10.0.0.1"}), "ended, ");
    }
}

#[test]
fn what_a_pod_cannot_be_is_told() {
    let proxy = json!([{"name": "mesh-proxy"}]);
    let running = json!({"phase": "Running", "podIP": "10.0.0.1"});
    let (object, problems) = pod(&json!({"hostNetwork": true, "containers": proxy}), &running);
    assert_eq!(told(object), "outside, 10.0.0.1");
    assert!(problems[0].starts_with("Pod shop/cart-1: spec: ") && problems[0].contains("host's network"));

    let (object, problems) = pod(&json!({"containers": proxy}), &json!({"podIP": "10.0.0"}));
    assert_eq!(told(object), "refused");
    assert!(problems[0].contains("\"10.0.0\" is no IP address"), "{problems:?}");

    let (object, problems) = pod(&json!({"containers": {"name": "mesh-proxy"}}), &running);
    assert_eq!(told(object), "refused");
    assert!(problems[0].contains("unknown shape"), "{problems:?}");

    let metadata = json!({"name": "a", "namespace": "shop", "annotations": {"meshctl.dev/mtls": "strickt"}});
    let misspelt =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": proxy}});
    let (object, problems) = read(&misspelt);
    assert_eq!(told(object), "refused");
    assert!(problems[0].contains("strickt"), "{problems:?}");
}

#[test]
fn endpoints_and_their_conditions() {
    let conditions = [
        (Value::Null, "true true"),
        (json!({"ready": true}), "true true"),
        (json!({"ready": false}), "false false"),
        (json!({"ready": false, "serving": true, "terminating": true}), "false true"),
    ];
    for (conditions, expected) in conditions {
        let mut endpoint = json!({"addresses": ["10.0.0.1", "10.0.0.9"], "zone": "a",
            "targetRef": {"kind": "Pod", "name": "cart-1", "namespace": "shop"}});
        if !conditions.is_null() {
            endpoint["conditions"] = conditions;
        }
        let (object, problems) = read(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "cart-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
            "endpoints": [endpoint],
            "ports": [
                {"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http"},
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "all", "port": null},
            ],
        }));
        assert!(problems.is_empty(), "{problems:?}");
        let Some(Object::EndpointSlice(slice)) = object else { panic!("an EndpointSlice") };
        assert_eq!(&*slice.service, "cart");
        let ports: Vec<String> =
            slice.ports.iter().map(|p| format!("{} {} {}", p.name, p.port, p.protocol)).collect();
        assert_eq!(ports, ["http 8080 http"]);
        let [found] = slice.endpoints.as_slice() else { panic!("{:?}", slice.endpoints) };
        assert_eq!(format!("{} {}", found.ready, found.serving), expected);
        assert_eq!(
            (found.address.to_string(), found.pod.as_deref(), &*found.zone),
            ("10.0.0.1".into(), Some("cart-1"), "a")
        );
    }
}

#[test]
fn names_are_no_endpoints_and_wrong_addresses_are_refused() {
    let slice = |kind: &str, address: &str| {
        read(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind, "ports": null,
            "metadata": {"name": "x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "cart"}},
            "endpoints": [{"addresses": [address]}],
        }))
    };
    let (Some(Object::EndpointSlice(found)), problems) = slice("FQDN", "example.com") else {
        panic!("a slice")
    };
    assert!(found.endpoints.is_empty() && problems.is_empty());
    let (object, problems) = slice("IPv4", "example.com");
    assert!(object.is_none());
    assert!(problems[0].starts_with("EndpointSlice shop/x: endpoints[0].addresses: "), "{problems:?}");
}

#[test]
fn other_kinds_are_read_as_in_files() {
    let service = |ports: Value| {
        let metadata = json!({"name": "cart", "namespace": "shop", "uid": "1", "resourceVersion": "7"});
        let spec = json!({"ports": ports, "clusterIP": "10.96.0.3", "clusterIPs": ["10.96.0.3"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None", "type": "ClusterIP", "selector": {"app": "cart"}});
        read(&json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec,
            "status": {"loadBalancer": {}}}))
    };
    let dns = json!({"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53});
    let (object, problems) =
        service(json!([{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}, dns]));
    let Some(Object::Service(found)) = object else { panic!("{problems:?}") };
    // Nobody wrote it for the mesh: what does not concern it is no problem.
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!((found.ports.len(), found.cluster_ips.len()), (1, 1));
    let (object, problems) = service(json!([{"port": 70_000}]));
    assert!(object.is_none());
    assert!(problems[0].starts_with("Service shop/cart: spec.ports[0].port: "), "{problems:?}");
}

#[test]
fn opaque_ports_of_a_pod_are_opaque_and_its_other_options_are_no_spelling_mistakes() {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "db", "namespace": "shop", "annotations": {
            "meshctl.dev/opaque-ports": "3306,5000-5001", "meshctl.dev/injected": "0.1.0",
            "meshctl.dev/log-level": "debug" } },
        "spec": { "containers": [{ "name": "db", "ports": [{ "name": "sql", "containerPort": 3306 }, { "containerPort": 80 }] },
            { "name": "mesh-proxy" }] },
        "status": { "podIP": "10.0.0.1", "phase": "Running" },
    });
    let (objects, problems, _) = parse_object("Pod shop/db", &object);
    assert_eq!(problems, []);
    let Some(Object::Pod(Pod { mesh: Membership::Inside(workload), .. })) =
        objects.into_iter().next().map(|l| l.object)
    else {
        panic!("not in the mesh")
    };
    let ports: Vec<_> = workload.ports.iter().map(|p| (p.port, &*p.name, p.protocol)).collect();
    let opaque = Protocol::Opaque;
    assert_eq!(
        ports,
        [(3306, "sql", opaque), (80, "", Protocol::Undeclared), (5000, "", opaque), (5001, "", opaque)]
    );

    let mut wrong = object;
    wrong["metadata"]["annotations"]["meshctl.dev/opaque-ports"] = "many".into();
    let (objects, problems, _) = parse_object("Pod shop/db", &wrong);
    assert_eq!((objects.len(), problems.len()), (1, 1));
    assert!(!problems[0].refused && problems[0].field.contains("opaque-ports"), "{}", problems[0]);
}

#[test]
fn names_that_another_version_knows_take_no_pod_out_of_the_mesh() {
    let read = |kind: &str, version: &str, labels: Value, annotations: Value| {
        let metadata =
            json!({ "name": "cart-1", "namespace": "shop", "labels": labels, "annotations": annotations });
        let spec = json!({ "containers": [{ "name": "mesh-proxy" }] });
        let status = json!({ "phase": "Running", "podIP": "10.0.0.1" });
        read(
            &json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, "status": status }),
        )
    };
    let check = |labels: Value, annotations: Value, expected: &str| {
        let (object, problems) = read("Pod", "v1", labels, annotations);
        let Some(Object::Pod(Pod { mesh: Membership::Inside(workload), .. })) = object else {
            panic!("not in the mesh: {problems:?}")
        };
        assert_eq!(workload.labels["app"], "cart");
        assert_eq!(problems, [expected]);
    };
    let app = json!({ "app": "cart" });
    let known = crate::labels::ALL.join(", ");
    check(
        app.clone(),
        json!({ "meshctl.dev/of-tomorrow": "1", "meshctl.dev/injected": "9.0.0" }),
        &format!(
            "Pod shop/cart-1: metadata.annotations[meshctl.dev/of-tomorrow]: the option is unknown; known: {known}"
        ),
    );
    check(
        json!({ "app": "cart", "meshctl.dev/log-levle": "info", "meshctl.dev/inject": "enabled" }),
        json!({}),
        "Pod shop/cart-1: metadata.labels[meshctl.dev/log-levle]: the option is unknown; \
         did you mean \"meshctl.dev/log-level\"?",
    );
    check(
        app,
        json!({ "meshctl.dev/default-policy": "deny" }),
        "Pod shop/cart-1: metadata.annotations[meshctl.dev/default-policy]: it has no effect on a pod; \
         put it on the Namespace",
    );
    // Kubernetes copies a Service's labels to its slices: it is told of the Service.
    let copied =
        json!({ "kubernetes.io/service-name": "cart", "meshctl.dev/mtls": "on", "meshctl.dev/foo": "1" });
    let (object, problems) = read("EndpointSlice", "discovery.k8s.io/v1", copied, json!({}));
    assert!(matches!(object, Some(Object::EndpointSlice(_))) && problems.is_empty(), "{problems:?}");
}
