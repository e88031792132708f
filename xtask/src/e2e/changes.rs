//! Everything is replaced under load, and nobody notices.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::cluster::Cluster;
use super::shop;

/// Requests a second while everything is replaced.
const RATE: u32 = 300;
/// How long that takes at most, in seconds.
const SECONDS: u32 = 60;

/// Restarts every Deployment of the shop, and the controller, one after the other, under load.
pub(super) fn rollouts(cluster: &Cluster<'_>) -> Result<()> {
    let load = cluster.start("load-rollouts", "load", &shop::load(RATE, SECONDS))?;
    load.running()?;
    let begun = Instant::now();
    for name in shop::ALL.iter().filter(|name| **name != "deployment/load") {
        cluster.run(&["rollout", "restart", "-n", "shop", name])?;
        cluster.rolled_out("shop", &[name])?;
    }
    cluster.run(&["rollout", "restart", "-n", "mesh-system", "deployment/mesh-controller"])?;
    cluster.rolled_out("mesh-system", &["deployment/mesh-controller"])?;
    let took = begun.elapsed().as_secs();
    ensure!(took < u64::from(SECONDS), "the rollouts took {took} s, longer than the load");
    let (code, summary) = load.finish()?;
    ensure!(code == 0, "requests failed while everything was restarted: {summary}");
    println!("everything was restarted in {took} s: {} requests, none failed", summary["requests"]);
    throttling(cluster)
}

/// The sidecars' default requests suffice: none was held back by a limit, none was killed.
fn throttling(cluster: &Cluster<'_>) -> Result<()> {
    let pods = cluster.get(&["pods", "-n", "shop"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        for status in pod["status"]["initContainerStatuses"].as_array().into_iter().flatten() {
            let name = &pod["metadata"]["name"];
            ensure!(
                status["name"] != "mesh-proxy" || status["restartCount"] == 0,
                "{name}: its sidecar was restarted"
            );
        }
    }
    Ok(())
}

/// A service goes to nothing and back, and a pod is killed without a word.
pub(super) fn scale_and_kill(cluster: &Cluster<'_>) -> Result<()> {
    let serves = |name: &str| -> Result<bool> {
        let args = ["load", "--target=storefront:80", "--count=40", "--rate=100"];
        let (code, _) = cluster.start(name, "load", &args)?.finish()?;
        Ok(code == 0)
    };
    cluster.run(&["scale", "-n", "shop", "deployment/storefront", "--replicas=0"])?;
    cluster.run(&["wait", "-n", "shop", "--for=delete", "pod", "-l", "app=storefront", "--timeout=60s"])?;
    ensure!(!serves("scaled-down")?, "a service without a pod answers");
    cluster.run(&["scale", "-n", "shop", "deployment/storefront", "--replicas=2"])?;
    cluster.rolled_out("shop", &["deployment/storefront"])?;
    ensure!(serves("scaled-up")?, "a service that came back does not answer");

    let kill = ["delete", "pod", "-n", "shop", "-l", "app=cart", "--force", "--grace-period=0"];
    cluster.run(&kill)?;
    let begun = Instant::now();
    cluster.rolled_out("shop", &["deployment/cart"])?;
    cluster.wait_for("a cart after its pod was killed", || serves("killed"))?;
    println!("the carts are back {} s after their pod was killed", begun.elapsed().as_secs());
    Ok(())
}

/// Without a controller, what runs goes on, what is not of the mesh starts, and what is of it is refused, with a reason.
pub(super) fn no_controller(cluster: &Cluster<'_>) -> Result<()> {
    let load = cluster.start("load-alone", "load", &shop::load(100, 20))?;
    load.running()?;
    cluster.run(&["scale", "-n", "mesh-system", "deployment/mesh-controller", "--replicas=0"])?;
    let controller = "app.kubernetes.io/name=mesh-controller";
    cluster.run(&["wait", "-n", "mesh-system", "--for=delete", "pod", "-l", controller, "--timeout=60s"])?;
    let pod = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: alone, namespace: {namespace}}}\nspec:\n  containers: \
             [{{name: app, image: \"meshctl.dev/shop:0.1.0\", args: [inventory, \"--listen=0.0.0.0:7000\"]}}]\n"
        )
    };
    cluster.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: plain}\n")?;
    cluster.apply(&pod("plain"))?;
    let refused = cluster.apply(&pod("shop"));
    let told = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(told.contains("inject.meshctl.dev"), "a pod of the mesh was not refused by name: `{told}`");
    println!("without a controller: {told}");
    let (code, summary) = load.finish()?;
    ensure!(code == 0, "requests failed without a controller: {summary}");
    cluster.run(&["scale", "-n", "mesh-system", "deployment/mesh-controller", "--replicas=1"])?;
    cluster.rolled_out("mesh-system", &["deployment/mesh-controller"])?;
    thread::sleep(Duration::from_secs(1));
    cluster.apply(&pod("shop"))?;
    cluster.run(&["wait", "-n", "shop", "--for=condition=Ready", "pod/alone", "--timeout=60s"]).map(drop)
}
