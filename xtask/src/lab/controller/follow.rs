//! What the controller says of the cluster's objects follows them, also when the API server is away.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::check::wait_for;
use super::super::place::Lab;
use super::super::process::Started;
use super::super::{cluster, image, template};
use super::proxy::{self, Proxy};
use super::{Controller, apply, apply_template, busybox, kubectl};
use crate::workspace;

/// The chart's definition of a kind. All in it that is not plain YAML are lines that may be left out.
const WORKLOADS: &str = include_str!("../../../../charts/mesh/templates/crds/workloads.yaml");

/// Objects that come, change and vanish, and an API server that is away.
pub(super) fn check(lab: &Lab) -> Result<()> {
    apply_template(lab, "mesh.yaml", include_str!("../files/mesh.yaml"), &[("image", image::BUSYBOX)])?;
    let controller = Controller::start(lab, 0)?;
    let meshed = "spiffe://cluster.local/ns/shop/sa/cart";
    controller.serves("both pods", &[("inside", meshed), ("outside", "null")])?;
    println!("a pod with a proxy has an identity, one without has none");

    custom_resources(&controller)?;
    let token = proxy::token(lab, "shop", "cart", proxy::AUDIENCE, Some("inside"))?;
    // What is noted as its process only holds its namespaces.
    let mut kill = controller.node.inside(&busybox()?)?;
    workspace::output(kill.args(["killall", "-9", "kube-apiserver"]))?;
    wait_for("controller that notices", || Ok(controller.metrics()?.contains("{state=\"followed\"} 0\n")))?;
    controller.serves("both pods without the API server", &[("inside", meshed), ("outside", "null")])?;
    controller.protects("TrafficTarget shop/to-cart")?;
    let proxy = Proxy::start(&controller, "shop/inside", (6, &token))?;
    proxy.refused("the API server cannot be asked", "Unavailable")?;
    cluster::api_server(&mut Started::default(), &controller.node)?;
    wait_for("pod that is deleted", || {
        workspace::output(&mut lab.kubectl(["delete", "pod", "-n", "shop", "outside"])).map(|_| true)
    })?;
    controller.serves("the pod that is left", &[("inside", meshed)])?;
    controller.protects("TrafficTarget shop/to-cart")?;
    proxy.certified(meshed, "")?;
    told(lab, ("traffictarget", "to-cart"), "Applied", "True AllProxies")?;
    println!("the API server was away, and nothing was lost");

    kubectl(lab, &["delete", "crd", "traffictargets.access.smi-spec.io"])?;
    controller.protects("Namespace shop")?;
    kubectl(lab, &["delete", "namespace", "shop", "--wait=false"])?;
    wait_for("end of the Service", || Ok(controller.service().is_err()))?;
    println!("what is deleted vanishes, with its kind too");
    Ok(())
}

/// Kinds that are installed while the controller runs; and a bad object.
fn custom_resources(controller: &Controller<'_>) -> Result<()> {
    let lab = controller.lab;
    for (name, text) in [
        ("crd.yaml", include_str!("../files/crd.yaml")),
        ("target.yaml", include_str!("../files/target.yaml")),
    ] {
        let file = lab.folder().join(name);
        template::write(&file, text, &[])?;
        wait_for("API for what is in that file", || apply(lab, &file).map(|()| true))?;
    }
    controller.protects("TrafficTarget shop/to-cart")?;
    let bad = r#"{"spec":{"destination":{"name":"Wrong!"}}}"#;
    kubectl(lab, &["patch", "traffictarget", "-n", "shop", "to-cart", "--type=merge", "-p", bad])?;
    wait_for("problem of the bad object", || {
        let checked = controller.meshctl(&["check"]).output()?;
        let told = "TrafficTarget shop/to-cart: spec.destination.name: \"Wrong!\"";
        Ok(String::from_utf8_lossy(&checked.stdout).contains(told))
    })?;
    controller.protects("TrafficTarget shop/to-cart")?;
    let target = ("traffictarget", "to-cart");
    let why = "its last good version stays; spec.destination.name: \"Wrong!\"";
    told(lab, target, "Accepted", &format!("False LastGoodKept {why}"))?;
    told(lab, target, "Applied", "Unknown NoProxies")?;
    let good = r#"{"spec":{"destination":{"name":"cart"}}}"#;
    kubectl(lab, &["patch", "traffictarget", "-n", "shop", "to-cart", "--type=merge", "-p", good])?;
    told(lab, target, "Accepted", "True Accepted")?;
    println!("a kind that is installed later is followed, and a bad object keeps its last good version");
    conflict(lab)
}

/// Two objects of which one can be in force, with the chart's own definition of their kind.
fn conflict(lab: &Lab) -> Result<()> {
    let definition: Vec<&str> = WORKLOADS.lines().filter(|line| !line.contains("{{")).collect();
    let file = lab.folder().join("workloads.yaml");
    // Paths of its columns have an @.
    fs::write(&file, definition.join("\n")).with_context(|| format!("cannot write {}", file.display()))?;
    apply(lab, &file)?;
    let file = lab.folder().join("conflict.yaml");
    template::write(&file, include_str!("../files/conflict.yaml"), &[])?;
    wait_for("API for Workloads", || apply(lab, &file).map(|()| true))?;
    told(lab, ("workload", "first"), "Accepted", "True Accepted")?;
    let why = "spec.address: 192.0.2.1:80 is served by Workload shop/first already";
    told(lab, ("workload", "second"), "Accepted", &format!("False Conflict {why}"))?;
    let get = |args: &[&str]| workspace::output(lab.kubectl(["get", "workload", "-n", "shop"]).args(args));
    let shown = get(&["--no-headers"])?;
    let shown: Vec<String> =
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for (at, beginning) in
        ["first 192.0.2.1 True Unknown ", "second 192.0.2.1 False False "].iter().enumerate()
    {
        ensure!(shown.get(at).is_some_and(|line| line.starts_with(beginning)), "kubectl shows {shown:?}");
    }
    // It is looked at every two seconds.
    let version = ["-o", "jsonpath={.items[*].metadata.resourceVersion}"];
    let before = get(&version)?;
    thread::sleep(Duration::from_secs(5));
    ensure!(get(&version)? == before, "statuses are written again though nothing has changed");
    kubectl(lab, &["delete", "workload", "-n", "shop", "first", "second"])?;
    println!("an object says of itself whether it is in force, and what is wrong with it, once");
    Ok(())
}

/// Waits until a condition of an object says so, of the version that is there.
fn told(lab: &Lab, (kind, name): (&str, &str), condition: &str, expected: &str) -> Result<()> {
    let mut found = Value::Null;
    let done = wait_for("condition", || {
        let get = ["get", kind, "-n", "shop", name, "-o", "json"];
        found = serde_json::from_str(&workspace::output(&mut lab.kubectl(get))?)?;
        let mut all = found["status"]["conditions"].as_array().into_iter().flatten();
        let one = all.find(|one| one["type"] == condition).unwrap_or(&Value::Null);
        let text = format!("{} {} {}", plain(&one["status"]), plain(&one["reason"]), plain(&one["message"]));
        let of_version = |value: &Value| value["observedGeneration"] == found["metadata"]["generation"];
        Ok(text.starts_with(expected) && of_version(one) && of_version(&found["status"]))
    });
    done.with_context(|| format!("{condition} of {kind} {name} is not {expected:?}: {}", found["status"]))
}

impl Controller<'_> {
    fn json(&self, args: &[&str]) -> Result<Value> {
        let mut command = self.meshctl(args);
        let text = workspace::output(command.args(["-n", "shop", "-o", "json"]))?;
        serde_json::from_str(&text).context("meshctl printed no JSON")
    }

    fn service(&self) -> Result<Value> {
        self.json(&["inspect", "service", "cart"])
    }

    /// Waits until exactly these workloads, with these identities, stand behind both ports of the Service.
    fn serves(&self, what: &str, expected: &[(&str, &str)]) -> Result<()> {
        let mut found = Vec::new();
        let done = wait_for(what, || {
            let service = self.service()?;
            let ports = service["ports"].as_array().context("a Service without ports")?;
            let endpoints = |port: &Value| -> Vec<(String, String)> {
                let all = port["endpoints"].as_array().into_iter().flatten();
                let all = all.map(|e| (plain(&e["workload"]), plain(&e["identity"])));
                // Which address each pod was given is chance.
                all.collect::<BTreeSet<_>>().into_iter().collect()
            };
            let wanted: Vec<(String, String)> =
                expected.iter().map(|(pod, id)| (format!("shop/{pod}"), (*id).to_owned())).collect();
            found = ports.iter().map(endpoints).collect();
            Ok(found.len() == 2 && found.iter().all(|port| *port == wanted))
        });
        done.with_context(|| format!("the endpoints are {found:?}"))
    }

    /// Waits until this object decides about calls that no rule matches.
    fn protects(&self, object: &str) -> Result<()> {
        let mut found = String::new();
        let done = wait_for("policy", || {
            let args = ["inspect", "workload", "inside", "-n", "shop"];
            found = workspace::output(&mut self.meshctl(&args))?;
            Ok(found.lines().any(|line| line.contains("Otherwise:") && line.contains(object)))
        });
        done.with_context(|| format!("{object} does not decide:\n{found}"))
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
