//! The mesh comes, is upgraded, and goes without a trace.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::cluster::Cluster;
use super::left::Objects;
use crate::workspace;

/// Longest time from `meshctl install` to a mesh that is ready, in seconds.
const INSTALL: f64 = 20.0;

/// Installs, checks, and installs again, which changes nothing.
pub(super) fn install(cluster: &Cluster<'_>) -> Result<()> {
    workspace::status(&mut cluster.meshctl(&["check", "--pre"]))?;
    let begun = Instant::now();
    workspace::status(&mut cluster.meshctl(&["install"]))?;
    let took = begun.elapsed().as_secs_f64();
    println!("installed and ready after {took:.1} s");
    ensure!(took <= INSTALL, "meshctl install took {took:.1} s, and may take {INSTALL}");
    workspace::status(&mut cluster.meshctl(&["check"]))?;
    let pods = || cluster.run(&["get", "pods", "-n", "mesh-system", "-o", "name"]);
    let before = pods()?;
    workspace::status(&mut cluster.meshctl(&["install"])).context("a second time")?;
    ensure!(before == pods()?, "a second `meshctl install` replaced pods");
    Ok(())
}

/// Upgrades to three controllers of another setting, under load, and kills the one that leads.
pub(super) fn upgrade(cluster: &Cluster<'_>) -> Result<()> {
    let load = cluster.start("load-upgrade", "load", &super::shop::load(300, 45))?;
    load.running()?;
    let settings = ["upgrade", "--set", "controller.replicas=3,controller.logLevel=debug"];
    workspace::status(&mut cluster.meshctl(&settings))?;
    let leader = || {
        let lease = cluster.get(&["lease", "-n", "mesh-system", "mesh-controller"])?;
        Ok::<_, anyhow::Error>(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
    };
    let mut first = String::new();
    cluster.wait_for("leader", || {
        first = leader()?;
        Ok(!first.is_empty())
    })?;
    // What leads is called as its pod, with something behind that tells it from an earlier one of this name.
    let pod = first.split('_').next().unwrap_or_default();
    cluster.run(&["delete", "pod", "-n", "mesh-system", pod, "--force", "--grace-period=0"])?;
    let begun = Instant::now();
    cluster.wait_for("another leader", || leader().map(|holder| !holder.is_empty() && holder != first))?;
    let took = begun.elapsed().as_secs_f64();
    cluster.rolled_out("mesh-system", &["deployment/mesh-controller"])?;
    let (code, summary) = load.finish()?;
    ensure!(code == 0, "requests failed while the controller was upgraded, or its leader killed: {summary}");
    println!(
        "upgraded under load, another leader {took:.1} s after the first was killed: {} requests, none failed",
        summary["requests"]
    );
    workspace::status(&mut cluster.meshctl(&["check"]))
}

/// Refuses while pods are in the mesh, then leaves nothing.
pub(super) fn uninstall(cluster: &Cluster<'_>) -> Result<()> {
    let before = Objects::remembered()?;
    let refused = cluster.meshctl(&["uninstall"]).output()?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success(), "meshctl uninstall did not mind pods that are in the mesh");
    ensure!(told.contains("shop"), "it does not say which pods are in the mesh: {told}");
    cluster.run(&["delete", "namespace", "shop", "plain", "--ignore-not-found"])?;
    workspace::status(&mut cluster.meshctl(&["uninstall"]))?;
    let mut left = Vec::new();
    let gone = cluster.wait_for("end of all objects", || {
        left = Objects::list(cluster)?.more_than(&before);
        Ok(left.is_empty())
    });
    gone.with_context(|| format!("these are left:\n{}", left.join("\n")))
}
