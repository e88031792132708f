//! `meshctl check` against a cluster that has no mesh, one with a mesh that is not well, and none.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    support::{command, compare},
};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

fn review(allowed: bool) -> Value {
    json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}, "spec": {},
        "status": {"allowed": allowed}})
}

fn pod(
    namespace: &str,
    name: &str,
    labels: Value,
    spec: Value,
    status: Value,
) -> (&'static str, &'static str, Value) {
    let mut object =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name}});
    object["metadata"]["labels"] = labels;
    object["spec"] = spec;
    object["status"] = status;
    ("/api/v1", "pods", object)
}

#[track_caller]
fn check(cluster: &Cluster, args: &[&str], stdout: &str) {
    let output = cluster.run(args);
    // The API server is one of HTTP here, without a date where hyper writes none.
    compare(&output, cluster.dir.path(), &cluster.address.to_string(), 1, stdout, "");
}

/// Without the rights nothing else can be found out.
#[test]
fn whether_it_can_be_installed_begins_with_rights() {
    let cluster = Cluster::start(&[], &[(REVIEWS, 201, review(false))]);
    let output = cluster.run(&["check", "--pre", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["failed"]), (Some(1), &json!(1)), "{report}");
    let last = report["checks"].as_array().unwrap().last().unwrap();
    assert_eq!(last["check"], "you may install the mesh");
    assert!(
        last["reason"].as_str().unwrap().contains("get, create, patch deployments.apps in mesh-system"),
        "{last}"
    );
    assert!(!cluster.asked().iter().any(|asked| asked.starts_with("PATCH")), "{:?}", cluster.asked());
}

#[test]
fn there_is_no_mesh() {
    let cluster = Cluster::start(&[], &[(REVIEWS, 201, review(true))]);
    check(
        &cluster,
        &["check"],
        r#"
Cluster
  ok    the API server answers (http://ADDR)
  ok    its version is supported (Kubernetes 1.34)
  ok    it has native sidecars
  ok    its clock agrees with this machine's
  ok    you may look into the mesh

Installation
  FAIL  the mesh is installed
        there is no Deployment mesh-system/mesh-controller
        install it with `meshctl install`, or name another cluster with --context

Controller
  FAIL  the view API answers
        Secret mesh-system/mesh-view-token: it is not there: no mesh is installed in the cluster at http://ADDR, or its controller never ran
        see `meshctl install`, or name another cluster with --context

7 checks, 2 failed
"#,
    );
}

/// What stands in the way is found before anything is changed.
#[test]
fn something_else_is_in_the_way() {
    let named = |kind: &str, name: &str, more: Value| {
        let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    let webhook = named("MutatingWebhookConfiguration", "istio-sidecar-injector-1-26", json!({}));
    let tight = json!({"metadata": {"name": "tight", "labels": {"meshctl.dev/inject": "enabled",
        "pod-security.kubernetes.io/enforce": "baseline"}}});
    let old = json!({"metadata": {"name": "httproutes.gateway.networking.k8s.io"},
        "spec": {"versions": [{"name": "v1beta1", "served": true}]}});
    let objects = [
        ("/apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", webhook),
        ("/api/v1", "namespaces", named("Namespace", "linkerd", json!({}))),
        ("/api/v1", "namespaces", named("Namespace", "tight", tight)),
        (
            "/apis/apiextensions.k8s.io/v1",
            "customresourcedefinitions",
            named("CustomResourceDefinition", "x", old),
        ),
    ];
    let version = json!({"major": "1", "minor": "28+", "gitVersion": "v1.28.3", "gitCommit": "", "gitTreeState": "",
        "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
    let cluster = Cluster::start(&objects, &[(REVIEWS, 201, review(true)), ("/version", 200, version)]);
    let output = cluster.run(&["check", "--pre"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for expected in [
        "warn  it has native sidecars\n        they came with Kubernetes 1.29, and this is 1.28: ",
        "FAIL  CustomResourceDefinition httproutes.gateway.networking.k8s.io: the kind is served in the version that the mesh reads\n",
        "        the mesh reads v1, and the cluster serves v1beta1\n",
        "warn  Namespace linkerd: no pod is asked for by two meshes\n        Linkerd seems to live there\n",
        "FAIL  Namespace tight: its Pod Security level takes pods with a proxy\n        baseline is enforced, and mesh-init needs NET_ADMIN",
        "FAIL  no other mesh injects pods\n        Istio is installed (MutatingWebhookConfiguration istio-sidecar-injector-1-26)\n",
        "  ok    nobody else manages the mesh's objects\n",
    ] {
        assert!(told.contains(expected), "{expected}---\n{told}");
    }
}

/// Each proxy is asked through the API server: one is well, one is somebody else, one does not answer.
#[test]
fn proxies_say_themselves_how_they_are() {
    let pod = |name: &str| {
        (
            "/api/v1",
            "pods",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name},
            "spec": {"serviceAccountName": "cart", "containers": [{"name": "mesh-proxy"}]}, "status": {"phase": "Running"}}),
        )
    };
    let cluster =
        Cluster::in_mesh(&[pod("cart-1"), pod("cart-2"), pod("cart-3")], &[(REVIEWS, 201, review(true))]);
    let status = json!({"ready": true, "missing": [], "version": crate::support::VERSION, "discovery_connected": true,
        "discovery_age_seconds": 0.0});
    let identity =
        |account: &str| json!({"identity": format!("spiffe://cluster.local/ns/shop/sa/{account}")});
    cluster.proxy("shop/cart-1", &[("/status", status.clone()), ("/certificates", identity("cart"))]);
    cluster.proxy("shop/cart-2", &[("/status", status), ("/certificates", identity("till"))]);
    let output = cluster.run(&["check", "--proxy"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for expected in [
        "  ok    Pod shop/cart-1: it is connected, up to date, and who it should be (0.1.0, configuration current, \
         spiffe://cluster.local/ns/shop/sa/cart)\n",
        "  FAIL  Pod shop/cart-2: it is connected, up to date, and who it should be\n        it is \
         spiffe://cluster.local/ns/shop/sa/till, and its pod runs as spiffe://cluster.local/ns/shop/sa/cart\n",
        "  FAIL  Pod shop/cart-3: it is connected, up to date, and who it should be\n        its admin cannot be asked: ",
        "  ok    the view API answers (pod mesh-system/mesh-controller-1)\n",
    ] {
        assert!(told.contains(expected), "{expected}---\n{told}");
    }
}

#[test]
fn the_cluster_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a, user: a}}]\n\
                clusters: [{name: a, cluster: {server: \"http://127.0.0.1:1\"}}]\nusers: [{name: a, user: {}}]\n";
    std::fs::write(&kubeconfig, text).unwrap();
    let run =
        |dir: &Path, args: &[&str]| command(dir, args).arg("--kubeconfig").arg(&kubeconfig).output().unwrap();
    for args in [&["check"][..], &["check", "--pre"], &["check", "--proxy"]] {
        let output = run(dir.path(), args);
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(
            told.contains(
                "FAIL  the API server answers\n        the cluster at http://127.0.0.1:1 does not answer"
            ),
            "{told}"
        );
        assert!(told.ends_with("1 check, 1 failed\n"), "{told}");
    }
}

/// A pod without its proxy, one on the host's network, a controller that has crashed, and webhooks without a root.
#[test]
fn a_mesh_that_is_not_well() {
    let app = json!({"containers": [{"name": "app", "image": "i"}]});
    let crashed = json!({
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            "lastState": {"terminated": {"reason": "Error", "exitCode": 1}}}],
    });
    let controller =
        json!({"app.kubernetes.io/name": "mesh-controller", "app.kubernetes.io/part-of": "mesh"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": "mesh-system", "name": "mesh-controller", "labels": {}}});
    let webhook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "mesh-injector"}, "webhooks": [{"name": "a", "clientConfig": {}}]});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"meshctl.dev/inject": "enabled"}}});
    let agents = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"namespace": "mesh-system", "name": "mesh-cni"},
        "status": {"desiredNumberScheduled": 2, "numberReady": 1}});
    let split = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "trafficsplits.split.smi-spec.io"}, "spec": {"versions": [{"name": "v1alpha1", "served": true}]}});
    let both = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "both",
        "labels": {"meshctl.dev/inject": "enabled", "istio-injection": "enabled"}}});
    let stuck = json!({"phase": "Running", "initContainerStatuses": [{"name": "mesh-proxy", "ready": false, "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
    let objects = [
        ("/apis/apps/v1", "deployments", deployment),
        ("/apis/admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", webhook),
        ("/api/v1", "namespaces", namespace),
        pod("mesh-system", "mesh-controller-1", controller, app.clone(), crashed),
        ("/apis/apps/v1", "daemonsets", agents),
        ("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", split),
        ("/api/v1", "namespaces", both),
        pod(
            "shop",
            "stuck",
            json!({}),
            json!({"initContainers": [{"name": "mesh-proxy"}], "containers": []}),
            stuck,
        ),
        pod("shop", "bare", json!({}), app, json!({"phase": "Running"})),
        pod(
            "shop",
            "host",
            json!({}),
            json!({"hostNetwork": true, "containers": [{"name": "app", "image": "i"}]}),
            json!({"phase": "Running"}),
        ),
    ];
    let cluster = Cluster::start(&objects, &[(REVIEWS, 201, review(false))]);
    let output = cluster.run(&["check"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    for expected in [
        "warn  you may look into the mesh\n        you may not list namespaces; list pods; ",
        "FAIL  a controller leads\n        nobody holds the Lease mesh-controller\n",
        "FAIL  the CNI plugin's agents are ready\n        1 of 2 are: ",
        "FAIL  CustomResourceDefinition trafficsplits.split.smi-spec.io: the kind is served in the version that the mesh reads\n",
        "FAIL  Namespace both: no pod is asked for by two meshes\n        it asks for a proxy of this mesh, and by istio-injection for one of Istio\n",
        "FAIL  Pod shop/stuck: its proxy is ready\n        CrashLoopBackOff; it was restarted 4 times\n",
        "warn  CustomResourceDefinition workloads.meshctl.dev: the kind is served\n        it is not there",
        "FAIL  ServiceAccount mesh-system/mesh-controller: is there, as it was installed\n        it is not there\n",
        "FAIL  Pod mesh-system/mesh-controller-1: the controller's pods are ready\n        pod mesh-controller-1: CrashLoopBackOff, exit code 1: back-off\n",
        "warn  Pod mesh-system/mesh-controller-1: the controller's pods stay up\n        it was restarted 3 times, last for Error, exit code 1\n",
        "FAIL  Namespace both: has the mesh's present root\n        the ConfigMap mesh-trust-bundle is not there: pods with a \
         proxy do not start\n        also Namespace mesh-system, Namespace shop\n",
        "FAIL  MutatingWebhookConfiguration mesh-injector: the API server knows the controller's certificate\n        a has no caBundle\n",
        "FAIL  the webhook can be reached\n",
        "FAIL  Pod shop/bare: has the proxy that it is to have\n",
        "        delete it, and make it again\n",
        "warn  Pod shop/host: has the proxy that it is to have\n        it is on the host's network",
    ] {
        assert!(told.contains(expected), "{expected}---\n{told}");
    }
    let asked = cluster.asked();
    assert!(!asked.iter().any(|asked| asked.contains("secrets/mesh-ca")), "{asked:?}");
}
