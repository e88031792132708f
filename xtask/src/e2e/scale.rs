//! A large cluster: what the controller takes, and how soon a proxy knows of a change that was written through the API.
//!
//! The pods stand on a node that nobody runs: they are objects with addresses, which is all that a controller sees of any.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::cluster::Cluster;
use super::within::{Inside, exchange};
use crate::lab::place::Lab;

const SERVICES: usize = 1_000;
const PODS_EACH: usize = 5;
/// kubectl's that write at a time.
const WRITERS: usize = 8;
/// Changes of which the time is taken.
const CHANGES: usize = 200;
/// Most memory of the controller, in MB.
const MEMORY: f64 = 120.0;
/// Longest time of 99 in 100 changes, in milliseconds.
const LATE: f64 = 200.0;
/// Where `kubectl proxy` listens in the node.
const API: &str = "127.0.0.1:18001";
/// Where the EndpointSlice is that is changed.
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/scale/endpointslices/changing";

/// Fills the cluster, and measures.
pub(super) fn run(cluster: &Cluster<'_>) -> Result<()> {
    let lab = cluster.lab.context("memory is read on the node: only in a lab")?;
    let begun = Instant::now();
    cluster.apply(include_str!("files/scale.yaml"))?;
    fill(cluster)?;
    println!(
        "{SERVICES} Services, {} pods: written in {} s",
        SERVICES * PODS_EACH,
        begun.elapsed().as_secs()
    );
    let mut endpoints = 0;
    cluster.wait_for("EndpointSlices", || {
        let text = cluster.run(&["get", "endpointslices", "-n", "scale", "--no-headers"])?;
        endpoints = text.lines().count();
        Ok(endpoints > SERVICES)
    })?;
    cluster.run(&["wait", "-n", "scale", "--for=condition=Ready", "pod/watcher", "--timeout=60s"])?;
    let times = changes(cluster, lab)?;
    thread::sleep(Duration::from_secs(30));
    let memory = Inside::find(lab, "mesh-controller", "")?.memory()?;
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!(
        "change to proxy: median {:.0} ms, p99 {:.0} ms, longest {:.0} ms; controller {memory:.1} MB",
        at(50),
        at(99),
        at(100)
    );
    ensure!(memory <= MEMORY, "the controller takes {memory:.1} MB, and may take {MEMORY}");
    ensure!(at(99) <= LATE, "99 of 100 changes took {:.0} ms, and may take {LATE}", at(99));
    Ok(())
}

/// Writes Services, pods, and the state of pods.
fn fill(cluster: &Cluster<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut jobs = Vec::new();
    for part in 0..WRITERS {
        let (mut objects, mut states) = (String::new(), String::new());
        for service in (part..SERVICES).step_by(WRITERS) {
            write_service(&mut objects, &mut states, service)?;
        }
        for (name, text) in [("objects", objects), ("states", states)] {
            let file = folder.path().join(format!("{name}-{part}.yaml"));
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            jobs.push((name, file));
        }
    }
    let how: [(&str, &[&str]); 2] = [
        ("objects", &["apply", "--server-side", "-f"]),
        ("states", &["apply", "--server-side", "--force-conflicts", "--subresource=status", "-f"]),
    ];
    for (what, args) in how {
        let mut running = Vec::new();
        for (_, file) in jobs.iter().filter(|(name, _)| *name == what) {
            let mut command = cluster.kubectl(args);
            command.arg(file).stdout(std::process::Stdio::null());
            running.push(command.spawn().context("cannot start kubectl")?);
        }
        for mut child in running {
            ensure!(child.wait()?.success(), "kubectl could not write all {what}");
        }
    }
    Ok(())
}

fn write_service(objects: &mut String, states: &mut String, service: usize) -> Result<()> {
    writeln!(
        objects,
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: svc-{service}, namespace: scale}}\nspec:\n  selector: \
         {{svc: \"{service}\"}}\n  ports: [{{name: http, port: 80, targetPort: 8080, appProtocol: http}}]"
    )?;
    for pod in 0..PODS_EACH {
        let number = service * PODS_EACH + pod;
        let ip = format!("10.200.{}.{}", number / 250, number % 250 + 1);
        let meta = format!("{{name: pod-{number}, namespace: scale, labels: {{svc: \"{service}\"}}}}");
        writeln!(
            objects,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {meta}\nspec:\n  nodeName: nobody\n  serviceAccountName: app\n  \
             automountServiceAccountToken: false\n  tolerations: [{{operator: Exists}}]\n  initContainers: [{{name: \
             mesh-proxy, image: none, restartPolicy: Always}}]\n  containers: [{{name: app, image: none, ports: \
             [{{containerPort: 8080}}]}}]"
        )?;
        writeln!(
            states,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {meta}\nstatus:\n  phase: Running\n  podIP: {ip}\n  podIPs: [{{ip: \
             {ip}}}]\n  conditions: [{{type: Ready, status: \"True\"}}]"
        )?;
    }
    Ok(())
}

/// Changes a Service's endpoint again and again; how long until a proxy that uses it has the new one, in milliseconds,
/// sorted.
fn changes(cluster: &Cluster<'_>, lab: &Lab) -> Result<Vec<f64>> {
    let mut proxy = cluster.kubectl(&["proxy", "--address=127.0.0.1", "--port=18001"]);
    let mut proxy =
        proxy.stdout(std::process::Stdio::null()).spawn().context("cannot start kubectl proxy")?;
    let node = Inside::node(lab);
    let pod = Inside::find(lab, "mesh-proxy", "MESH_WORKLOAD=scale/watcher")?;
    let done = measure(&node, &pod);
    proxy.kill()?;
    proxy.wait()?;
    let mut times = done?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn measure(node: &Inside, pod: &Inside) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    let mut known = None;
    for number in 0..=CHANGES {
        let ip = format!("10.201.{}.{}", number / 250, number % 250 + 1);
        let body = json!({"endpoints": [{"addresses": [ip], "conditions": {"ready": true}}]}).to_string();
        let patch = format!(
            "PATCH {SLICE} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: \
             application/merge-patch+json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // The time of the write itself is in it.
        let begun = Instant::now();
        let written = node.run(|| exchange(API, &patch));
        let written = if number == 0 { retried(node, &patch, written) } else { written }?;
        ensure!(written.contains("200 OK"), "the API server did not take a change: {written}");
        let has = |text: &str| text.contains(&ip);
        let deadline = begun + Duration::from_secs(20);
        loop {
            let dump = pod.run(|| exchange("127.0.0.1:15000", GET))?;
            if has(&dump) {
                break;
            }
            ensure!(Instant::now() < deadline, "a proxy does not hear of {ip}; before it had {known:?}");
            thread::sleep(Duration::from_millis(2));
        }
        // The first is for everybody to wake up.
        if number > 0 {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        known = Some(ip);
        thread::sleep(Duration::from_millis(150));
    }
    Ok(times)
}

const GET: &str = "GET /endpoints HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";

/// `kubectl proxy` takes a moment to listen.
fn retried(node: &Inside, patch: &str, first: Result<String>) -> Result<String> {
    let mut last = first;
    for _ in 0..50 {
        if last.as_ref().is_ok_and(|text| text.contains("200 OK")) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
        last = node.run(|| exchange(API, patch));
    }
    last
}
