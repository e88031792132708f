//! The lab's own test, a stage of `cargo xtask test --with-lab`: clusters of one and two nodes do what a cluster must, and
//! leave nothing, wherever they are interrupted.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::place::{API, DNS, Lab};
use super::process::PAUSE;
use super::remains::{Before, Inside};
use super::{binaries, cni, controller, down, image, needs, template, up};
use crate::stages::Stages;
use crate::workspace;

/// How long a cluster may take to do what it is told.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the machine lacks for the test.
pub(crate) fn missing() -> Result<()> {
    needs::check_root()?;
    needs::check(&needs::to_run(&lab()?)?)
}

fn lab() -> Result<Lab> {
    Lab::from_environment("test")
}

/// Runs it, if it can run here, and says how long its parts took.
pub(super) fn run_alone() -> Result<()> {
    missing()?;
    let mut stages = Stages::default();
    let done = run(&mut stages);
    stages.print();
    done
}

/// Runs it. When it fails, the lab is left as it is, to look into.
pub(crate) fn run(stages: &mut Stages) -> Result<()> {
    let lab = lab()?;
    stages.run("lab: compile", || binaries::build(&lab))?;
    // Of a test that failed or was killed.
    down::run(&lab)?;
    let done = parts(&lab, stages);
    if done.is_err() && lab.is_begun() {
        println!(
            "{lab} is left: `{}` looks into it, `{}` ends it",
            lab.command("shell"),
            lab.command("down")
        );
    }
    done
}

fn parts(lab: &Lab, stages: &mut Stages) -> Result<()> {
    let before = Before::look();
    stages.run("lab: cut short, down", || {
        interrupted(lab)?;
        end(lab, &before)
    })?;
    stages.run("lab: cut short, up", || {
        interrupted(lab)?;
        start(lab, 1)
    })?;
    stages.run("lab: one node", || cluster(lab))?;
    stages.run("lab: controller", || controller::check(lab))?;
    stages.run("lab: down", || end(lab, &before))?;
    stages.run("lab: up, two nodes", || start(lab, 2))?;
    stages.run("lab: two nodes", || cluster(lab))?;
    stages.run("lab: rules from the nodes", || cni::check(lab))?;
    stages.run("lab: down again", || end(lab, &before))
}

fn start(lab: &Lab, nodes: u8) -> Result<()> {
    up::run(lab, &up::Options { nodes, install: false })
}

/// Starts `lab up`, and kills it when kubelet has just been started.
fn interrupted(lab: &Lab) -> Result<()> {
    // Not the file of this process: the build of the workspace, before the tests, may have replaced it.
    let own = workspace::target_directory()?.join("debug").join("xtask");
    let mut command = Command::new(&own);
    command.args(["lab", "--name", lab.name(), "up"]).stdout(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", own.display()))?;
    let seen = wait_for("start of kubelet", || Ok(lab.processes().join("node1-kubelet").exists()));
    child.kill().context("cannot kill `lab up`")?;
    child.wait()?;
    seen?;
    ensure!(!lab.is_ready(), "the cluster was ready before `lab up` could be killed");
    Ok(())
}

/// Ends the lab; nothing of it may be left.
fn end(lab: &Lab, before: &Before) -> Result<()> {
    let inside = Inside::of(lab);
    ensure!(!inside.is_empty(), "{lab} has no namespaces to look into");
    down::run(lab)?;
    let left = before.left(lab, &inside)?;
    ensure!(left.is_empty(), "{lab} has left behind:\n{}", left.join("\n"));
    Ok(())
}

/// Pods run, find services by name, reach them, and see each other's addresses; on two nodes from one to the other.
fn cluster(lab: &Lab) -> Result<()> {
    let nodes = lab.nodes();
    let (first, last) = nodes.first().zip(nodes.last()).context("a cluster without a node")?;
    let objects = lab.folder().join("check.yaml");
    let values = [("image", image::BUSYBOX), ("client_node", &*first.name()), ("server_node", &*last.name())];
    template::write(&objects, include_str!("files/check.yaml"), &values)?;
    workspace::output(lab.kubectl(["apply", "-f"]).arg(&objects))?;
    let begun = Instant::now();
    let ready = ["wait", "--for=condition=Ready", "--timeout=60s", "pod/server", "pod/client"];
    workspace::output(&mut lab.kubectl(ready)).context("pods do not get ready")?;
    println!("both pods are ready after {:.1} s", begun.elapsed().as_secs_f64());

    let (server, client) = (pod_ip(lab, "server")?, pod_ip(lab, "client")?);
    for (ip, node) in [(&client, first), (&server, last)] {
        let range = node.pods();
        let start = range.trim_end_matches("0/24");
        ensure!(
            ip.starts_with(start),
            "a pod of {} has the address {ip}, which is not in {range}",
            node.name()
        );
    }
    // From both nodes, for DNS runs on the first.
    for pod in ["client", "server"] {
        let answer = within(lab, pod, "nslookup kubernetes.default.svc.cluster.local")?;
        ensure!(
            answer.contains(&API.to_string()) && answer.contains(&DNS.to_string()),
            "{pod} is told wrongly where the API server is:\n{answer}"
        );
        let version =
            within(lab, pod, &format!("wget -q -O - --no-check-certificate https://{API}/version"))?;
        ensure!(version.contains("gitVersion"), "the API server answers {pod}:\n{version}");
    }
    let service = workspace::output(&mut lab.kubectl([
        "get",
        "service",
        "server",
        "-o",
        "jsonpath={.spec.clusterIP}",
    ]))?;
    let expected = format!("server {client}\n");
    for host in ["server", "server.default.svc.cluster.local", &service, &format!("{server}:8080")] {
        let answer = within(lab, "client", &format!("wget -q -O - http://{host}/cgi-bin/who"))?;
        ensure!(
            answer == expected,
            "{host} answers `{answer}`, not `{expected}`: who asks is not known by its address"
        );
    }
    // Itself by its service: the reply must come back the same way.
    let answer = within(lab, "server", "wget -q -O - http://server.default.svc/cgi-bin/who")?;
    ensure!(answer.starts_with("server "), "the server answers itself `{answer}`");
    let outside = within(lab, "client", "wget -O - http://192.0.2.1 2>&1; true")?;
    ensure!(outside.contains("unreachable"), "who asks for what is outside is told:\n{outside}");
    println!("{}, {client}, reaches {}, {server}, by name, service and address", first.name(), last.name());
    Ok(())
}

fn pod_ip(lab: &Lab, pod: &str) -> Result<String> {
    workspace::output(&mut lab.kubectl(["get", "pod", pod, "-o", "jsonpath={.status.podIP}"]))
}

/// What a command prints in a pod. Services and endpoints take a moment to reach all nodes: it is tried again.
fn within(lab: &Lab, pod: &str, command: &str) -> Result<String> {
    let mut answer = String::new();
    let done = wait_for("answer", || {
        answer =
            workspace::output(&mut lab.kubectl(["exec", pod, "--", "timeout", "5", "sh", "-c", command]))?;
        Ok(true)
    });
    done.map(|()| answer)
}

/// [`wait_within`] the time that a cluster may take.
pub(super) fn wait_for(what: &str, ask: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_within(PATIENCE, what, ask)
}

/// Asks again and again until the answer is yes, and fails with the last error.
pub(crate) fn wait_within(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        match ask() {
            Ok(true) => return Ok(()),
            Ok(false) | Err(_) if Instant::now() < deadline => thread::sleep(PAUSE),
            Ok(false) => bail!("no {what} after {} s", patience.as_secs()),
            Err(error) => return Err(error.context(format!("no {what} after {} s", patience.as_secs()))),
        }
    }
}
