//! `install`, `upgrade` and `uninstall` against a cluster: what is refused, in what order all comes and goes, and what
//! becomes of failures in between.

use serde_json::{Value, json};

use crate::living::Living;

const SYSTEM: &str = "/api/v1/namespaces/mesh-system";

/// Nothing was changed.
#[track_caller]
fn untouched(cluster: &Living) {
    assert_eq!(cluster.state().changes, Vec::<String>::new());
}

#[test]
fn the_trust_domain_stays() {
    let cluster = Living::with_mesh(&["--set", "trustDomain=prod.example.com"]);
    let told = "the trust domain of this mesh is prod.example.com, and would become cluster.local";
    for verb in ["install", "upgrade"] {
        cluster.check(&[verb, "--set", "trustDomain=cluster.local"], 1, &["nothing was changed", told]);
    }
    cluster.check(
        &["upgrade", "--reset-values"],
        1,
        &[told, "keep it with --set trustDomain=prod.example.com"],
    );
    untouched(&cluster);
    // A first installation that was not completed is held to it as well, but not before there are keys.
    cluster.state().objects.remove(&format!("{SYSTEM}/configmaps/mesh-installation"));
    cluster.check(&["install"], 1, &[told]);
    untouched(&cluster);
    cluster.state().objects.remove(&format!("{SYSTEM}/secrets/mesh-ca"));
    cluster.check(&["install"], 0, &["is ready"]);
}

#[test]
fn values_of_the_installation_stay_when_others_are_typed() {
    let cluster = Living::with_mesh(&["--set", "trustDomain=prod.example.com,controller.replicas=3"]);
    cluster.check(&["install", "--set", "controller.logLevel=debug"], 0, &["is ready"]);
    let state = cluster.state();
    let config = &state.objects[&format!("{SYSTEM}/configmaps/mesh-config")]["data"]["inject.yaml"];
    assert!(config.as_str().unwrap().contains("trustDomain: \"prod.example.com\""), "{config}");
    let deployment = &state.objects["/apis/apps/v1/namespaces/mesh-system/deployments/mesh-controller"];
    assert_eq!(deployment["spec"]["replicas"], 3);
}

const CONTROLLER: &str = "/apis/apps/v1/namespaces/mesh-system/deployments/mesh-controller";
const AGENTS: &str = "/apis/apps/v1/namespaces/mesh-system/daemonsets/mesh-cni";
const BUDGET: &str = "/apis/policy/v1/namespaces/mesh-system/poddisruptionbudgets/mesh-controller";
const RELEASE: &str = "/api/v1/namespaces/mesh-system/configmaps/mesh-installation";

fn pod(name: &str, app: &str, status: &Value) -> Value {
    let labels = json!({"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "mesh",
        "pod-template-hash": "h"});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "mesh-system",
        "uid": format!("uid-of-{name}"), "labels": labels}, "status": status,
        "spec": {"nodeName": format!("node-of-{name}"), "containers": []}})
}

/// A controller that is not ready, and its replica set; what it becomes when it is.
fn not_ready(cluster: &Living, conditions: &Value, seen: i64) -> Value {
    let ready = cluster.object(CONTROLLER);
    let mut deployment = ready.clone();
    deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("7");
    deployment["status"] = json!({"observedGeneration": seen, "replicas": 1, "updatedReplicas": 1,
        "conditions": conditions});
    cluster.put(CONTROLLER, deployment);
    let labels = json!({"app.kubernetes.io/name": "mesh-controller", "app.kubernetes.io/part-of": "mesh",
        "pod-template-hash": "h"});
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "set", "uid": "set",
        "namespace": "mesh-system", "labels": labels,
        "annotations": {"deployment.kubernetes.io/revision": "7"}}, "status": {"replicas": 1}});
    cluster.put("/apis/apps/v1/namespaces/mesh-system/replicasets/set", set);
    ready
}

fn back_off(reason: &str) -> Value {
    json!({"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 9,
        "state": {"waiting": {"reason": reason, "message": "it said so"}}}]})
}

/// What was wrong with it may be mended, and Kubernetes would try it again only in minutes.
#[test]
fn a_pod_that_was_past_help_before_is_made_anew() {
    let cluster = Living::with_mesh(&[]);
    let ready = not_ready(&cluster, &json!([]), 99);
    let path = format!("{SYSTEM}/pods/old");
    cluster.put(&path, pod("old", "mesh-controller", &back_off("ImagePullBackOff")));
    cluster.after_delete(&path, CONTROLLER, Some(ready));
    cluster.check(&["install"], 0, &["is ready"]);
    assert!(!cluster.has(&path));
}

#[test]
fn a_pod_that_is_past_help_now_is_told_at_once() {
    let cluster = Living::with_mesh(&[]);
    not_ready(&cluster, &json!([]), 99);
    // It comes when the configuration is applied.
    let path = format!("{SYSTEM}/pods/new");
    let new = pod("new", "mesh-controller", &back_off("CrashLoopBackOff"));
    cluster.after_patch("configmaps/mesh-config", &path, new);
    let told = "the controller does not start: pod new: CrashLoopBackOff: it said so";
    cluster.check(&["install"], 1, &[told]);
    assert!(cluster.has(&path), "what is new is not taken away");
}

#[test]
fn a_failure_that_was_not_seen_to_be_of_this_run_is_none() {
    let cluster = Living::with_mesh(&[]);
    let failure = json!([{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}]);
    let ready = not_ready(&cluster, &failure, 0);
    cluster.after_reads(CONTROLLER, 6, ready);
    cluster.check(&["install"], 0, &["is ready"]);
}

#[test]
fn a_cluster_that_is_away_for_a_moment_is_waited_for() {
    let cluster = Living::start();
    let after = "deployments/mesh-controller";
    cluster.fail(after, &format!("GET {CONTROLLER}"), 503, 3);
    cluster.fail(after, "PATCH /apis/admissionregistration.k8s.io/v1/mutatingwebhook", 500, 2);
    cluster.fail(after, "GET /apis/admissionregistration.k8s.io/v1/validatingwebhook", 429, 4);
    cluster.check(&["install"], 0, &["is ready"]);
    // A refusal is one.
    let cluster = Living::start();
    cluster.fail(after, &format!("GET {CONTROLLER}"), 403, 1);
    cluster.check(&["install"], 1, &["the cluster refuses it: it is out of order"]);
}

#[test]
fn a_deletion_that_fails_turns_nothing_back() {
    let cluster = Living::with_mesh(&["--set", "controller.replicas=2"]);
    cluster.fail("", &format!("DELETE {BUDGET}"), 409, 1);
    let args = ["upgrade", "--set", "controller.replicas=1"];
    let told = cluster.check(
        &args,
        1,
        &["is ready", "PodDisruptionBudget mesh-system/mesh-controller is still there"],
    );
    assert!(!told.contains("going back"), "{told}");
    let kept = cluster.object(RELEASE)["data"]["values.json"].to_string();
    assert!(kept.contains("replicas\\\":1"), "{kept}");
    // What the last run has left, this one finds by its label.
    assert!(cluster.has(BUDGET));
    cluster.check(
        &["install", "--dry-run"],
        0,
        &["delete    PodDisruptionBudget mesh-system/mesh-controller"],
    );
    cluster.check(&["install"], 0, &["deleted   PodDisruptionBudget mesh-system/mesh-controller"]);
    assert!(!cluster.has(BUDGET));
}

#[test]
fn the_right_to_delete_is_asked_for_first() {
    let cluster = Living::with_mesh(&["--set", "controller.replicas=2"]);
    cluster.state().denied.insert("delete poddisruptionbudgets".to_owned());
    let told = "you may not delete poddisruptionbudgets.policy in mesh-system";
    cluster.check(&["upgrade", "--set", "controller.replicas=1"], 1, &[told]);
    untouched(&cluster);
    cluster.check(&["upgrade", "--set", "controller.replicas=3"], 0, &["is ready"]);
}

#[test]
fn agents_come_before_what_relies_on_them() {
    let cluster = Living::with_mesh(&[]);
    cluster.check(&["upgrade", "--set", "cni.enabled=true"], 0, &["is ready"]);
    let (agents, config) =
        (cluster.turn("PATCH", "/daemonsets/mesh-cni"), cluster.turn("PATCH", "/mesh-config"));
    assert!(agents < config);

    let cluster = Living::with_mesh(&[]);
    cluster.hold(
        AGENTS,
        json!({"observedGeneration": 99, "desiredNumberScheduled": 2,
        "updatedNumberScheduled": 2, "numberReady": 1}),
    );
    cluster.put(&format!("{SYSTEM}/pods/a"), pod("a", "mesh-cni", &back_off("ImagePullBackOff")));
    // It was so before: it is tried again, and waited for.
    let told = "the agents of the CNI plugin are not ready within 1s: 2 of 2 nodes have the new one, 1 ready";
    let args = ["install", "--set", "cni.enabled=true", "--within", "1s"];
    cluster.check(&args, 1, &[told]);
    assert!(!cluster.has(&format!("{SYSTEM}/pods/a")));
    let changes = cluster.state().changes.join("\n");
    assert!(!changes.contains("mesh-config"), "{changes}");
}

/// The other way around: what relies on the agents goes first, and what they need last.
#[test]
fn agents_go_before_what_they_need() {
    let cluster = Living::with_mesh(&["--set", "cni.enabled=true"]);
    let path = format!("{SYSTEM}/pods/a");
    let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    cluster.put(&path, pod("a", "mesh-cni", &ready));
    cluster.hold(
        AGENTS,
        json!({"observedGeneration": 99, "desiredNumberScheduled": 2,
        "updatedNumberScheduled": 2, "numberReady": 2}),
    );
    cluster.after_delete(AGENTS, &path, None);
    // One node has none that is ready.
    let told = "no agent was ready to take the CNI plugin out (1 node without an agent)";
    cluster.check(&["upgrade", "--set", "cni.enabled=false"], 1, &["is ready", told]);
    let agents = cluster.turn("DELETE", "/daemonsets/mesh-cni");
    assert!(cluster.turn("PATCH", "/mesh-config") < agents);
    assert!(agents < cluster.turn("PATCH", "/namespaces/mesh-system"));
    assert!(agents < cluster.turn("DELETE", "/serviceaccounts/mesh-cni"));
    assert!(agents < cluster.turn("DELETE", "/clusterrolebindings/mesh-cni"));
}

#[test]
fn nodes_that_would_keep_the_plugin_are_named() {
    let cluster = Living::with_mesh(&["--set", "cni.enabled=true"]);
    let ready = |is| json!({"conditions": [{"type": "Ready", "status": is}]});
    let (a, b) = (format!("{SYSTEM}/pods/a"), format!("{SYSTEM}/pods/b"));
    cluster.put(&a, pod("a", "mesh-cni", &ready("True")));
    cluster.put(&b, pod("b", "mesh-cni", &ready("False")));
    cluster.after_delete(AGENTS, &a, None);
    let told = "the CNI plugin would stay on nodes whose agent is not ready (node-of-b)";
    cluster.check(&["uninstall"], 1, &["nothing was changed", told]);
    untouched(&cluster);
    let told = "no agent was ready to take the CNI plugin out (node-of-b)";
    cluster.check(&["uninstall", "--force"], 1, &["the mesh is gone", told]);
    let agents = cluster.turn("DELETE", "/daemonsets/mesh-cni");
    assert!(agents < cluster.turn("DELETE", "/clusterroles/mesh-cni"));
    assert!(!cluster.has("/api/v1/namespaces/mesh-system"));
    // Where all are ready there is nothing to say.
    let cluster = Living::with_mesh(&["--set", "cni.enabled=true"]);
    cluster.hold(AGENTS, json!({"desiredNumberScheduled": 1, "numberReady": 1}));
    cluster.put(&a, pod("a", "mesh-cni", &ready("True")));
    cluster.after_delete(AGENTS, &a, None);
    cluster.fail("", &format!("DELETE {AGENTS}"), 503, 2);
    cluster.check(&["uninstall"], 0, &["the mesh is gone"]);
}

#[test]
fn proxies_that_would_be_too_far_away_are_named() {
    let cluster = Living::with_mesh(&[]);
    let mut release = cluster.object(RELEASE);
    release["data"]["version"] = json!("0.0.9");
    cluster.put(RELEASE, release);
    let mut cart = pod("cart", "cart", &json!({"phase": "Running"}));
    cart["metadata"]["namespace"] = json!("shop");
    cart["metadata"]["annotations"] = json!({"meshctl.dev/injected": "9.9.9"});
    cart["spec"]["containers"] = json!([{"name": "mesh-proxy", "image": "i"}]);
    cluster.put("/api/v1/namespaces/shop/pods/cart", cart.clone());
    let told = "1 pod has a proxy more than one minor version away from";
    cluster.check(&["upgrade"], 1, &["nothing was changed", told, "(shop/cart: 9.9.9)"]);
    untouched(&cluster);
    cluster.check(&["upgrade", "--dry-run", "--force"], 0, &["nothing was changed"]);
    cart["metadata"]["annotations"] = json!({"meshctl.dev/injected": "0.0.9"});
    cluster.put("/api/v1/namespaces/shop/pods/cart", cart);
    cluster.check(&["upgrade"], 0, &["is ready"]);
}
