//! The example shop in the mesh: it runs, it is encrypted, split, and closed to whom policy does not name.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::cluster::Cluster;
use super::pods;
use super::sniff::Sniffer;

/// The shop's Deployments.
pub(super) const ALL: [&str; 6] = [
    "deployment/inventory",
    "deployment/cart",
    "deployment/catalog-v1",
    "deployment/catalog-v2",
    "deployment/storefront",
    "deployment/load",
];
/// Longest time from an application that is ready to its pod's being ready, in seconds; the API has whole seconds.
const READY: i64 = 3;

/// Arguments of a load.
pub(super) fn load(rate: u32, seconds: u32) -> [String; 4] {
    [
        "load".to_owned(),
        "--target=storefront:80".to_owned(),
        format!("--rate={rate}"),
        format!("--duration={seconds}"),
    ]
}

/// Applies the shop as plain manifests; the namespace's label does the rest.
pub(super) fn deploy(cluster: &Cluster<'_>) -> Result<()> {
    cluster.apply_shop("kubernetes/shop.yaml")?;
    cluster.rolled_out("shop", &ALL)?;
    let pods = cluster.get(&["pods", "-n", "shop"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let inits = pod["spec"]["initContainers"].as_array().into_iter().flatten();
        let sidecar = inits.into_iter().find(|c| c["name"] == "mesh-proxy");
        let sidecar = sidecar.with_context(|| format!("pod {name} has no sidecar"))?;
        ensure!(sidecar["restartPolicy"] == "Always", "pod {name} has no native sidecar");
        let late = late(pod).with_context(|| format!("pod {name} does not say when it was ready"))?;
        println!("{name}: ready {late} s after its application started");
        ensure!(late <= READY, "pod {name} was ready {late} s after its application, and may take {READY}");
    }
    Ok(())
}

/// Seconds from the start of the last application's container to the readiness of the pod.
fn late(pod: &Value) -> Option<i64> {
    let started = pod["status"]["containerStatuses"].as_array()?.iter();
    let started = started.filter_map(|s| seconds(s["state"]["running"]["startedAt"].as_str()?)).max()?;
    let conditions = pod["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready" && c["status"] == "True")?;
    Some(seconds(ready["lastTransitionTime"].as_str()?)? - started)
}

/// Seconds of the day of a time as in 2026-01-31T12:34:56Z.
fn seconds(time: &str) -> Option<i64> {
    let clock = time.split_once('T')?.1.trim_end_matches('Z');
    clock.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<i64>().ok()?))
}

/// All edges are secured, as both sides say and as the wire shows.
pub(super) fn encryption(cluster: &Cluster<'_>) -> Result<()> {
    let sniffer = Sniffer::start(cluster)?;
    let mut secured = BTreeSet::new();
    let wanted: BTreeSet<String> =
        ["load>storefront", "storefront>catalog", "storefront>cart", "cart>inventory"]
            .map(str::to_owned)
            .into();
    let short = |id: &Value| id.as_str().and_then(|id| id.rsplit('/').next()).unwrap_or("?").to_owned();
    cluster.wait_for("secured edges", || {
        let edges = cluster.ask(&["edges", "-n", "shop"])?;
        for edge in edges["edges"].as_array().into_iter().flatten() {
            let name = format!("{}>{}", short(&edge["source"]), short(&edge["destination"]));
            // Calls from before there was anybody to answer.
            if edge["destination"].is_null() {
                continue;
            }
            ensure!(edge["secured"] == true, "{name} is not secured: {edge}");
            secured.insert(name);
        }
        Ok(wanted.is_subset(&secured))
    })?;
    let Some(sniffer) = sniffer else {
        println!("all edges are secured; the wire of somebody else's cluster is not looked at");
        return Ok(());
    };
    thread::sleep(Duration::from_secs(2));
    let seen = sniffer.stop()?;
    ensure!(seen.plain == 0, "there is plaintext between pods: {}", seen.sample);
    ensure!(seen.tls > 50, "there was hardly any TLS between pods: {seen:?}");
    println!("{} packets between pods, {} begin a TLS record, none is plaintext", seen.packets, seen.tls);
    control(cluster)
}

/// The same watch sees plaintext where there is some: a caller outside of the mesh, which permissive mode lets in.
fn control(cluster: &Cluster<'_>) -> Result<()> {
    let sniffer = Sniffer::start(cluster)?.context("no watch")?;
    let args = ["load", "--target=storefront:80", "--count=20"];
    let outside = cluster.start_labelled("outside", "load", pods::OUTSIDE, &args)?;
    let (code, summary) = outside.finish()?;
    ensure!(code == 0, "a caller outside of the mesh is not served: {summary}");
    let seen = sniffer.stop()?;
    ensure!(seen.plain >= 20, "the plaintext of a caller outside of the mesh was not seen: {seen:?}");
    println!("the plaintext of a caller outside of the mesh is seen: {}", seen.sample);
    Ok(())
}

/// A TrafficSplit by kubectl moves traffic.
pub(super) fn split(cluster: &Cluster<'_>) -> Result<()> {
    let share = |name: &str| -> Result<f64> {
        let args = ["load", "--target=storefront:80", "--rate=400", "--count=1000", "--path=/"];
        let (code, summary) = cluster.start(name, "load", &args)?.finish()?;
        ensure!(code == 0, "requests failed: {summary}");
        let version = |v: &str| summary["versions"][v].as_f64().unwrap_or_default();
        Ok(version("v2") / (version("v1") + version("v2")).max(1.0))
    };
    let even = share("split-none")?;
    cluster.apply_shop("mesh/split.yaml")?;
    cluster.applied()?;
    let tenth = share("split-tenth")?;
    let change =
        r#"{"spec":{"backends":[{"service":"catalog-v1","weight":0},{"service":"catalog-v2","weight":1}]}}"#;
    cluster.run(&["patch", "trafficsplit", "-n", "shop", "catalog", "--type=merge", "-p", change])?;
    cluster.applied()?;
    let all = share("split-all")?;
    println!("version 2 gets {even:.3} without a split, {tenth:.3} of 90/10, {all:.3} of 0/1");
    // Five standard deviations of a thousand draws.
    ensure!((tenth - 0.1).abs() < 0.048, "a tenth was asked for");
    // Who is slow at first is asked less for a while.
    ensure!(even > 0.02 && all > 0.9999, "both were asked for, then all");
    cluster.apply_shop("mesh/split.yaml")
}

/// TrafficTargets by kubectl let in whom they name, and nobody else.
pub(super) fn policy(cluster: &Cluster<'_>) -> Result<()> {
    let (code, told) = cluster.start("batch-before", "batch", &["batch"])?.finish()?;
    ensure!(code == 0, "without a policy the batch job is refused: {told}");
    cluster.apply_shop("mesh/policy.yaml")?;
    cluster.applied()?;
    cluster.wait_for("refusal of the batch job", || {
        let (code, told) = cluster.start("batch-after", "batch", &["batch"])?.finish()?;
        Ok(code == 3 && told["mesh_reason"] == "AUTHZ_DENIED")
    })?;
    let args = ["load", "--target=storefront:80", "--rate=200", "--count=400"];
    let (code, summary) = cluster.start("allowed", "load", &args)?.finish()?;
    ensure!(code == 0, "whom the policy names is refused: {summary}");
    println!("the batch job is refused with AUTHZ_DENIED, the storefront is not");
    Ok(())
}
