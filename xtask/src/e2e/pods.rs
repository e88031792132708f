//! Pods of all sorts: what injection must not break.

use anyhow::{Result, ensure};

use super::cluster::Cluster;

/// Labels of a pod that is to have no sidecar.
pub(super) const OUTSIDE: &str = "{meshctl.dev/inject: disabled}";
/// See there.
const PODS: &str = include_str!("files/pods.yaml");

/// Pods with several containers, init containers that need the network, no token of their own, the host's network, and
/// those that may not be in the mesh.
pub(super) fn check(cluster: &Cluster<'_>) -> Result<()> {
    cluster.apply(PODS)?;
    cluster.run(&["rollout", "status", "-n", "shop", "statefulset/several", "--timeout=90s"])?;
    cluster.run(&["rollout", "status", "-n", "shop", "daemonset/everywhere", "--timeout=90s"])?;
    cluster.run(&["wait", "-n", "shop", "--for=condition=Complete", "job/early", "--timeout=90s"])?;
    let host = cluster.get(&["pod", "-n", "shop", "host"])?;
    ensure!(host["spec"]["initContainers"].is_null(), "a pod of the host's network got a sidecar: {host}");
    let events =
        cluster.run(&["get", "events", "-n", "shop", "--field-selector=involvedObject.name=host"])?;
    ensure!(events.contains("hostNetwork"), "no event says why that pod has no sidecar:\n{events}");

    // A dead application behind a live proxy is seen by its probe.
    cluster.wait_for("a pod that is not ready", || {
        let pod = cluster.get(&["pod", "-n", "shop", "dead"])?;
        let of = |list: &str, name: &str| {
            let all = pod["status"][list].as_array().cloned().unwrap_or_default();
            all.into_iter().find(|s| s["name"] == name)
        };
        let sidecar = of("initContainerStatuses", "mesh-proxy").is_some_and(|s| s["ready"] == true);
        let app = of("containerStatuses", "app").is_some_and(|s| s["started"] == true && s["ready"] == false);
        Ok(sidecar && app)
    })?;
    let said = cluster.run(&["get", "events", "-n", "shop", "--field-selector=involvedObject.name=dead"])?;
    ensure!(said.contains("Readiness probe failed"), "kubelet does not say that the probe failed:\n{said}");

    let refused = cluster.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: thief, namespace: shop}\nspec:\n  containers: \
         [{name: app, image: \"meshctl.dev/shop:0.1.0\", securityContext: {runAsUser: 1337}}]\n",
    );
    let told = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(told.contains("1337") && told.contains("runAsUser"), "uid 1337 is not refused: `{told}`");
    println!("{told}");
    cluster.run(&["delete", "-n", "shop", "pod/dead", "pod/host", "job/early", "statefulset/several"])?;
    cluster.run(&["delete", "-n", "shop", "daemonset/everywhere"]).map(drop)
}
