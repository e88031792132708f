//! `lab up`: starts a cluster and waits until it is ready.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::lock::Lock;
use super::node::Node;
use super::place::Lab;
use super::process::Started;
use super::{binaries, cgroups, cluster, down, image, needs, network, pki, quietly, status};
use crate::stages::Stages;
use crate::workspace;

/// How long a step may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Options of `lab up`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of nodes; the first also runs the control plane.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(super) nodes: u8,
    /// Install missing Debian packages by apt-get.
    #[arg(long)]
    pub(super) install: bool,
}

/// Starts the cluster, unless it runs, and says how long each step took.
pub(super) fn run(lab: &Lab, options: &Options) -> Result<()> {
    needs::check_root()?;
    let missing = needs::to_run(lab)?;
    let mut stages = Stages::default();
    if options.install {
        stages.run("packages", || needs::install(&missing))?;
    } else {
        needs::check(&missing)?;
    }
    let done = steps(lab, options.nodes, &mut stages);
    stages.print();
    done?;
    println!(
        "{lab} is up: `{}` lists its pods, `{}` ends it",
        lab.command("shell kubectl get pods -A"),
        lab.command("down")
    );
    Ok(())
}

fn steps(lab: &Lab, nodes: u8, stages: &mut Stages) -> Result<()> {
    stages.run("compile", || binaries::build(lab))?;

    let lock = Lock::take(lab)?;
    if is_up(lab, nodes)? {
        return Ok(());
    }
    stages.run("prepare", || prepare(lab, nodes))?;
    let mut started = Started::default();
    stages.run("control plane", || control_plane(lab, &mut started))?;
    stages.run("nodes", || join(lab, &mut started))?;
    stages.run("dns and accounts", || services(lab, &mut started))?;
    write(&lab.ready_file(), "")?;
    drop(lock);
    Ok(())
}

/// True if there is nothing to do. What was left half-way, or has partly ended, is removed.
fn is_up(lab: &Lab, nodes: u8) -> Result<bool> {
    if !lab.is_begun() {
        return Ok(false);
    }
    let ended = status::ended(lab)?;
    if lab.is_ready() && ended.is_empty() {
        let there = lab.nodes().len();
        ensure!(
            there == usize::from(nodes),
            "{lab} is up with {there} node(s): end it by `{}` first, or take another --name",
            lab.command("down")
        );
        return Ok(true);
    }
    let why = if ended.is_empty() {
        "was not finished".to_owned()
    } else {
        format!("has lost {}", ended.join(", "))
    };
    println!("{lab} {why}: it is started anew");
    down::remove(lab)?;
    Ok(false)
}

/// Folders, keys, networks, control groups, the image, and the namespaces of nodes.
fn prepare(lab: &Lab, nodes: u8) -> Result<()> {
    network::check_free(lab, nodes)?;
    let folder = lab.folder();
    let empty = fs::read_dir(&folder).map_or(true, |mut entries| entries.next().is_none());
    ensure!(empty, "{} is not empty, but no lab made it: give another by --state", folder.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    write(&lab.plan(), &format!("{nodes}\n"))?;
    let all = lab.nodes();
    let image = folder.join("image");
    for folder in [lab.logs(), lab.processes(), image.clone()].into_iter().chain(all.iter().map(Node::folder))
    {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    pki::make(lab)?;
    image::make(&image, &image_file(lab))?;
    network::make(lab)?;
    for node in &all {
        cgroups::make(&node.cgroup())?;
    }
    let mut holders = Started::default();
    for node in &all {
        holders.watch(format!("the first process of {}", node.name()), node.log("holder"), node.hold()?);
    }
    holders.wait_until("namespaces of nodes", PATIENCE, || all.iter().all(Node::is_held))
}

fn control_plane(lab: &Lab, started: &mut Started) -> Result<()> {
    let nodes = lab.nodes();
    let first = nodes.first().context("a cluster without a node")?;
    cluster::etcd(started, first)?;
    cluster::api_server(started, first)?;
    // They need nothing of each other.
    for node in &nodes {
        cluster::containerd(started, node)?;
    }
    started.wait_until("API server", PATIENCE, || succeeds(&mut lab.kubectl(["get", "--raw", "/readyz"])))?;
    cluster::controllers(started, first)
}

fn join(lab: &Lab, started: &mut Started) -> Result<()> {
    let nodes = lab.nodes();
    for node in &nodes {
        let answers = || {
            let mut ctr = Command::new("ctr");
            succeeds(ctr.arg("--address").arg(node.containerd()).arg("version"))
        };
        started.wait_until("containerd", PATIENCE, answers)?;
        image::import(node, &image_file(lab))?;
        cluster::kubelet(started, node)?;
    }
    for node in &nodes {
        let name = node.name();
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        started.wait_until(&format!("readiness of {name}"), PATIENCE, || {
            let answer = workspace::output(&mut lab.kubectl(["get", "node", &name, "-o", path]));
            answer.is_ok_and(|answer| answer == "True")
        })?;
        // We gave it to the node; others may read it.
        let range = format!("{{\"spec\":{{\"podCIDR\":\"{0}\",\"podCIDRs\":[\"{0}\"]}}}}", node.pods());
        quietly(&mut lab.kubectl(["patch", "node", &name, "-p", &range]))?;
    }
    Ok(())
}

/// DNS, and the account without which no pod can be made.
fn services(lab: &Lab, started: &mut Started) -> Result<()> {
    let nodes = lab.nodes();
    let first = nodes.first().context("a cluster without a node")?;
    cluster::coredns(started, first)?;
    started.wait_until("DNS", PATIENCE, || {
        let mut ask = first.in_network(Path::new("busybox"));
        succeeds(ask.args(["wget", "-q", "-O", "-", "http://127.0.0.1:8181/ready"]))
    })?;
    started.wait_until("default service account", PATIENCE, || {
        succeeds(&mut lab.kubectl(["get", "serviceaccount", "default"]))
    })
}

fn image_file(lab: &Lab) -> std::path::PathBuf {
    lab.folder().join("image.tar")
}

fn succeeds(command: &mut Command) -> bool {
    workspace::output(command).is_ok()
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
