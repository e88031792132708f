//! The CNI plugin in the lab: a namespace that allows no privilege, other programs that write the network's configuration,
//! an agent that is away, and pods that came up without their rules.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::check::wait_for;
use super::place::Lab;
use super::{image, kubectl, load, template};
use crate::image::archives;
use crate::workspace;

const IMAGES: [&str; 2] = ["mesh-proxy", "mesh-controller"];
/// A node that is none.
const NOWHERE: &str = r#"{"spec":{"template":{"spec":{"nodeSelector":{"lab":"nowhere"}}}}}"#;
const EVERYWHERE: &str = r#"{"spec":{"template":{"spec":{"nodeSelector":{"lab":null}}}}}"#;

/// Runs the whole test in a cluster that has no mesh.
pub(super) fn check(lab: &Lab) -> Result<()> {
    images(lab)?;
    let before = configurations(lab)?;
    meshctl(
        lab,
        &[
            "install",
            "--set",
            "cni.enabled=true",
            "--set",
            "cni.binDir=/var/lib/cni/bin",
            "--set",
            "cni.confDir=/var/lib/cni/net.d",
        ],
    )?;
    kubectl(lab, &["rollout", "status", "-n", "mesh-system", "--timeout=60s", "daemonset/mesh-cni"])?;
    ensure!(chained(lab)? == before.len(), "an agent is ready, and its plugin not chained");

    guarded(lab)?;
    rewritten(lab, &before)?;
    raced(lab, &before)?;
    removed(lab, &before)
}

/// Builds the images and imports them.
fn images(lab: &Lab) -> Result<()> {
    workspace::status(&mut workspace::cargo(["build", "--workspace", "--bins", "--locked"]))?;
    load(lab, &archives(&IMAGES)?)
}

/// A pod without any privilege is in the mesh.
fn guarded(lab: &Lab) -> Result<()> {
    let objects = lab.folder().join("guarded.yaml");
    template::write(&objects, include_str!("files/guarded.yaml"), &[("image", image::BUSYBOX)])?;
    kubectl(lab, &[OsStr::new("apply"), OsStr::new("-f"), objects.as_os_str()])?;
    kubectl(lab, &["rollout", "status", "-n", "guarded", "--timeout=60s", "deployment/server"])?;
    let pod = pod(lab)?;
    let own = pod["spec"]["initContainers"].as_array().context("it was not injected")?;
    let names: Vec<&str> = own.iter().filter_map(|container| container["name"].as_str()).collect();
    ensure!(names == ["mesh-proxy"], "its init containers are {names:?}");
    let carried = carried(lab)?;
    let answer = within(lab, "wget -q -O - http://server/")?;
    ensure!(answer == "hello", "it is answered `{answer}`");
    ensure!(self::carried(lab)? > carried, "the call went past its proxy");
    println!("a pod in a namespace of the level baseline is called through its proxy");
    Ok(())
}

/// Other programs write the configuration anew.
fn rewritten(lab: &Lab, before: &[(PathBuf, Value)]) -> Result<()> {
    let begun = Instant::now();
    for (path, network) in before {
        fs::write(path, network.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    wait_for("plugin in all configurations", || Ok(chained(lab)? == before.len()))?;
    println!("the plugin is chained again after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Without an agent pods wait. One that came up without the plugin is replaced when there is an agent again.
fn raced(lab: &Lab, before: &[(PathBuf, Value)]) -> Result<()> {
    let patch =
        |patch: &str| kubectl(lab, &["patch", "daemonset", "-n", "mesh-system", "mesh-cni", "-p", patch]);
    patch(NOWHERE)?;
    let agents = ["get", "pods", "-n", "mesh-system", "-l", "app.kubernetes.io/name=mesh-cni", "-o", "name"];
    wait_for("end of the agents", || Ok(workspace::output(&mut lab.kubectl(agents))?.is_empty()))?;
    ensure!(chained(lab)? == before.len(), "the plugin went with an agent that will come again");
    let first = pod(lab)?["metadata"]["uid"].clone();
    kubectl(lab, &["delete", "pod", "-n", "guarded", "-l", "app=server", "--wait=false"])?;
    let reason = "reason=FailedCreatePodSandBox";
    let events =
        ["get", "events", "-n", "guarded", "--field-selector", reason, "-o", "jsonpath={.items[*].message}"];
    wait_for("pod that waits for the agent", || {
        Ok(workspace::output(&mut lab.kubectl(events))?
            .contains("see that a pod of the DaemonSet mesh-cni runs"))
    })?;
    println!("a pod waits while there is no agent");

    for (path, network) in before {
        fs::write(path, network.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let code = ".status.initContainerStatuses[?(@.name=='mesh-proxy')]";
    let code =
        format!("jsonpath={{{code}.state.terminated.exitCode}}{{{code}.lastState.terminated.exitCode}}");
    let codes = ["get", "pods", "-n", "guarded", "-o", &code.replace("{.status", "{.items[*].status")];
    wait_for("proxy that finds no rules", || Ok(workspace::output(&mut lab.kubectl(codes))?.contains("76")))?;
    let second = pod(lab)?["metadata"]["uid"].clone();
    patch(EVERYWHERE)?;
    wait_for("pod in place of the raced one", || {
        let pod = pod(lab)?;
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        Ok(ready && ![&first, &second].contains(&&pod["metadata"]["uid"]))
    })?;
    ensure!(within(lab, "wget -q -O - http://server/")? == "hello", "the new pod is not in the mesh");
    println!("a pod that came up without its rules was replaced");
    Ok(())
}

/// The mesh goes, and the network is as it was.
fn removed(lab: &Lab, before: &[(PathBuf, Value)]) -> Result<()> {
    kubectl(lab, &["delete", "namespace", "guarded"])?;
    meshctl(lab, &["uninstall"])?;
    wait_for("configuration as it was", || Ok(configurations(lab)? == before))?;
    println!("the plugin went with the mesh");
    Ok(())
}

/// The network of each node.
fn configurations(lab: &Lab) -> Result<Vec<(PathBuf, Value)>> {
    let read = |path: PathBuf| {
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let network = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        Ok((path, network))
    };
    lab.nodes().iter().map(|node| read(node.networks().join("lab.conflist"))).collect()
}

/// On how many nodes the plugin is chained.
fn chained(lab: &Lab) -> Result<usize> {
    let has = |network: &Value| {
        network["plugins"].as_array().is_some_and(|all| all.iter().any(|plugin| plugin["type"] == "mesh-cni"))
    };
    Ok(configurations(lab)?.iter().filter(|(_, network)| has(network)).count())
}

/// The newest pod of the workload.
fn pod(lab: &Lab) -> Result<Value> {
    let get = ["get", "pods", "-n", "guarded", "-l", "app=server", "-o", "json"];
    let list: Value = serde_json::from_str(&workspace::output(&mut lab.kubectl(get))?)?;
    let pods = list["items"].as_array().context("kubectl printed no list")?;
    let born = |pod: &&Value| pod["metadata"]["creationTimestamp"].as_str().map(str::to_owned);
    pods.iter().max_by_key(born).cloned().context("the workload has no pod")
}

/// How many requests its proxy has carried.
fn carried(lab: &Lab) -> Result<u64> {
    let metrics = within(lab, "wget -q -O - http://127.0.0.1:15020/metrics")?;
    let counts = metrics.lines().filter(|line| line.starts_with("mesh_requests_total"));
    Ok(counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}

/// What a command prints in the workload. Endpoints take a moment: it is tried again.
fn within(lab: &Lab, command: &str) -> Result<String> {
    let mut answer = String::new();
    let exec = ["exec", "-n", "guarded", "deployment/server", "-c", "app", "--", "sh", "-c", command];
    wait_for("answer", || {
        answer = workspace::output(&mut lab.kubectl(exec))?;
        Ok(true)
    })?;
    Ok(answer.trim().to_owned())
}

fn meshctl(lab: &Lab, args: &[&str]) -> Result<()> {
    let program = workspace::target_directory()?.join("debug").join("meshctl");
    workspace::status(lab.in_network(&program).args(args).env("KUBECONFIG", lab.kubeconfig()))
}
