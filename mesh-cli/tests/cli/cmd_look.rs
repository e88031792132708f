//! `inspect`, `proxy-config`, `version` and `status` of a mesh in a cluster.

use serde_json::{Value, json};

use crate::{cluster::Cluster, support::VERSION};

/// An object and its collection, as the canned API server takes it.
type Object = (&'static str, &'static str, Value);

pub(crate) fn namespace(name: &str, labels: Value) -> Object {
    let mut object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    object["metadata"]["labels"] = labels;
    ("/api/v1", "namespaces", object)
}

pub(crate) fn pod(name: &str, more: &Value) -> Object {
    let mut object = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": "cart"}},
        "spec": {"nodeName": "one", "serviceAccountName": "cart", "containers": [{"name": "app", "image": "i"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]}});
    for (path, value) in more.as_object().unwrap() {
        *object.pointer_mut(path).unwrap() = value.clone();
    }
    ("/api/v1", "pods", object)
}

/// A pod with its proxy; `cart` is a workload that the shop's controller knows.
pub(crate) fn meshed() -> Object {
    let sidecar = json!([{"name": "mesh-init", "image": "p"}, {"name": "mesh-proxy", "image": "p"}]);
    let (group, plural, mut object) = pod("cart", &json!({}));
    object["spec"]["initContainers"] = sidecar;
    object["metadata"]["annotations"] = json!({"meshctl.dev/injected": VERSION});
    object["status"]["initContainerStatuses"] = json!([{"name": "mesh-proxy", "image": "mesh-proxy:1", "ready": true, "restartCount": 1, "state": {"running": {}}}]);
    (group, plural, object)
}

fn shop() -> Cluster {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "shop", "name": "cart"},
        "spec": {"selector": {"matchLabels": {"app": "cart"}},
            "template": {"metadata": {"labels": {"app": "cart"}}, "spec": {"serviceAccountName": "cart",
                "containers": [{"name": "app", "image": "i"}]}}}});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"},
        "status": {"nodeInfo": {"kubeletVersion": "v1.34.0", "kernelVersion": "6.1", "operatingSystem": "linux",
            "architecture": "amd64", "containerRuntimeVersion": "containerd://2.1"},
            "conditions": [{"type": "Ready", "status": "True"}]}});
    let host = json!({"/spec": {"nodeName": "one", "hostNetwork": true, "containers": [{"name": "app", "image": "i"}]}});
    let objects = [
        namespace(
            "shop",
            json!({"meshctl.dev/inject": "enabled", "pod-security.kubernetes.io/enforce": "baseline"}),
        ),
        meshed(),
        pod("bare", &json!({})),
        pod("host", &host),
        ("/apis/apps/v1", "deployments", deployment),
        ("/api/v1", "nodes", node),
    ];
    let cluster = Cluster::in_mesh(&objects, &[]);
    let endpoints = json!([{"address": "10.0.0.9:8080", "identity": "spiffe://cluster.local/ns/shop/sa/till",
        "workload": "shop/till-1", "protocol": "http", "zone": "a"}]);
    cluster.proxy(
        "shop/cart",
        &[
            ("/status", json!({"version": VERSION, "ready": true, "listeners": [{"address": "127.0.0.1:15001", "role": "outbound"}]})),
            ("/config", json!({"proxy": {"workload": "shop/cart"}})),
            ("/destinations", json!([])),
            ("/endpoints", json!([{"name": "shop/till:8080", "version": "1", "endpoints": endpoints}])),
            ("/certificates", json!({"identity": "spiffe://cluster.local/ns/shop/sa/cart", "serial": "1", "not_after": 1, "roots": []})),
            ("/edges", json!([])),
        ],
    );
    cluster
}

/// Runs it, and sees that it succeeds and says all of this.
#[track_caller]
fn says(cluster: &Cluster, args: &[&str], expected: &[&str]) {
    let output = cluster.run(args);
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{told}{errors}");
    for line in expected {
        assert!(told.contains(line), "{args:?}: {line:?} is not in\n{told}{errors}");
    }
}

/// Runs it, and sees that it says on stderr what is wrong.
#[track_caller]
fn refuses(cluster: &Cluster, args: &[&str], expected: &str) {
    let output = cluster.run(args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?} {errors}");
    assert!(errors.contains(expected), "{args:?}: {errors}");
}

#[test]
fn a_pod_and_what_its_proxy_has() {
    let cluster = shop();
    let inside = format!("In the mesh:  yes, its proxy was put there by version {VERSION}\n");
    says(
        &cluster,
        &["inspect", "pod", "cart"],
        &[
            "Pod shop/cart\n",
            &inside,
            "Made by:      nobody",
            "Restarts:        1\n",
            "Kind:            native sidecar\n",
            "Firewall rules:  written by the init container mesh-init\n",
            "Workload shop/cart\n  Identity:   spiffe://cluster.local/ns/shop/sa/cart\n",
            "Who may call it\n  mTLS:       strict",
            "Proxy, as the controller sees it\n  State:          connected",
            "Proxy, as it says itself at pod shop/cart:15000/status\n",
            "Calls in the last 30s\n  SOURCE ",
        ],
    );
    let output = cluster.run(&["inspect", "po", "shop/bare", "-o", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["kind"], &told["inMesh"], &told["calls"]), (&json!("Pod"), &json!(false), &json!([])));
    assert!(told["why"].as_str().unwrap().starts_with("no: it is to be, and was made before"), "{told}");
    says(&cluster, &["inspect", "pod", "host"], &["In the mesh:  no: it is on the host's network"]);
    refuses(&cluster, &["inspect", "pod", "crat"], "there is no pod crat; did you mean shop/cart?");
    refuses(&cluster, &["inspect", "pod", "nothing-like-it"], "`kubectl get pods -A` lists them");
}

#[test]
fn what_makes_pods_namespaces_and_nodes() {
    let cluster = shop();
    says(
        &cluster,
        &["inspect", "deploy", "cart"],
        &[
            "Deployment shop/cart\n  Next pod:  it gets a proxy\n",
            "Identity:  spiffe://cluster.local/ns/shop/sa/cart\n",
            "Services:  shop/cart:8080\n",
            "Who may call shop/cart\n",
        ],
    );
    says(
        &cluster,
        &["inspect", "ns", "shop"],
        &[
            "Gets proxies:                 every pod that is made there\n",
            "Pod Security:                 baseline\n",
            "ConfigMap mesh-trust-bundle:  not there\n",
            "1 pod: yes, its proxy",
            "1 pod: no: it is on the host's network",
        ],
    );
    says(
        &cluster,
        &["inspect", "node", "one"],
        &["Kubelet:    v1.34.0\n", "CNI agent:  none", "1 pod: yes, its proxy"],
    );
    refuses(&cluster, &["inspect", "node", "two"], "there is no node two; `kubectl get nodes` lists them");
    refuses(&cluster, &["inspect", "deploy", "till"], "there is no deployment till");
}

#[test]
fn things_of_a_cluster_need_one() {
    let dir = tempfile::tempdir().unwrap();
    let output = crate::support::run(dir.path(), &["inspect", "pod", "cart"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("add --context or --kubeconfig"), "{output:?}");
}

#[test]
fn all_that_a_proxy_has() {
    let cluster = shop();
    says(
        &cluster,
        &["proxy-config", "cart"],
        &[
            "Status\n",
            "Listeners\n  ADDRESS ",
            "Destinations\n  none\n",
            "Certificate\n  Identity:  spiffe://",
            "Configuration\n  proxy:\n",
        ],
    );
    says(
        &cluster,
        &["proxy-config", "shop/cart", "endpoints"],
        &["shop/till:8080  10.0.0.9:8080  shop/till-1  spiffe://cluster.local/ns/shop/sa/till  http      a"],
    );
    let output = cluster.run(&["proxy-config", "cart", "listeners", "-o", "json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told, json!([{"address": "127.0.0.1:15001", "role": "outbound"}]));
    refuses(
        &cluster,
        &["proxy-config", "bare"],
        "pod shop/bare has no proxy; `meshctl inspect pod shop/bare` says why",
    );
}

#[test]
fn versions_and_status() {
    let cluster = shop();
    says(&cluster, &["version"], &[&format!("controller:  {VERSION}\nproxies:     {VERSION} (4)\n")]);
    says(
        &cluster,
        &["status"],
        &[
            "Cluster:        http://",
            ", Kubernetes 1.34, context here\n",
            "Controllers:    1 of 1 ready\n",
            "Pods:           1 with a proxy, 1 that lack theirs\n",
        ],
    );
}

#[test]
fn help() {
    crate::cmd_help::shows(
        &["proxy-config", "--help"],
        r#"
Show what a proxy really has

Usage: meshctl proxy-config [OPTIONS] <NAME> [PART]

Arguments:
  <NAME>  Name of the pod or workload, or NAMESPACE/NAME
  [PART]  Which part [default: all] [possible values: status, listeners, config, destinations,
          routes, endpoints, certificates, edges]

Options:
  -h, --help                   Print help
  -n, --namespace <NAMESPACE>  Its namespace; needed only when the name exists in several

{COMMON}
Examples:
  meshctl proxy-config cart-7d4b9-x2x1 -n shop              All of it
  meshctl proxy-config shop/cart-7d4b9-x2x1 endpoints
  meshctl proxy-config shop/cart-7d4b9-x2x1 routes -o json  As the proxy says it

In a cluster it takes the right to create pods/portforward in the pod's namespace. Private keys are
in none of it: proxies do not tell them.
"#,
    );
}
