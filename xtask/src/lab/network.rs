//! The network of the nodes: one namespace each, linked by a bridge in another. Nothing leads out of it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::place::Lab;
use super::quietly;

/// The bridge's own address. Whoever wants to go elsewhere is sent here, and told that there is no way.
const GATEWAY: &str = "10.99.0.254";
/// Where `ip netns` has its namespaces.
const NAMESPACES: &str = "/run/netns";

/// Makes the namespaces of all nodes and links them. None of them may exist.
pub(super) fn make(lab: &Lab) -> Result<()> {
    let switch = lab.switch();
    quietly(Command::new("ip").args(["netns", "add", &switch]))?;
    batch(
        &switch,
        &format!(
            "link set lo up\nlink add name nodes type bridge\naddr add {GATEWAY}/24 dev nodes\nlink set nodes up\n"
        ),
    )?;
    forward(&switch)?;
    for node in lab.nodes() {
        let (network, number, ip) = (node.network(), node.number, node.ip());
        quietly(Command::new("ip").args(["netns", "add", &network]))?;
        batch(
            &switch,
            &format!(
                "link add name node{number} type veth peer name eth0 netns {network}\n\
                 link set node{number} master nodes\nlink set node{number} up\n\
                 route add {} via {ip}\n",
                node.pods()
            ),
        )?;
        let mut inner = format!(
            "link set lo up\naddr add {ip}/24 dev eth0\nlink set eth0 up\nroute add default via {GATEWAY}\n"
        );
        for other in lab.nodes().iter().filter(|other| other.number != number) {
            inner += &format!("route add {} via {}\n", other.pods(), other.ip());
        }
        batch(&network, &inner)?;
        forward(&network)?;
    }
    Ok(())
}

/// Lets a namespace pass on what is not for itself, or say that it cannot.
fn forward(namespace: &str) -> Result<()> {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={NAMESPACES}/{namespace}"));
    quietly(command.args(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]))
}

/// Fails if there is a namespace of ours that we did not make.
pub(super) fn check_free(lab: &Lab, nodes: u8) -> Result<()> {
    let names = std::iter::once(lab.switch()).chain((1..=nodes).map(|number| lab.own(number)));
    for name in names {
        ensure!(
            !exists(&name),
            "there is a network namespace {name}, which {lab} did not make: take another --name, or remove \
             it by `ip netns del {name}`"
        );
    }
    Ok(())
}

/// Removes the namespaces of all nodes.
pub(super) fn remove(lab: &Lab) -> Result<()> {
    for name in names(lab).into_iter().filter(|name| exists(name)) {
        if quietly(Command::new("ip").args(["netns", "del", &name])).is_err() {
            // `ip netns add` makes a file and mounts the namespace on it; what ended between the two left the file.
            let file = Path::new(NAMESPACES).join(&name);
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    Ok(())
}

/// Names of all namespaces.
pub(super) fn names(lab: &Lab) -> Vec<String> {
    let nodes = lab.nodes().into_iter().map(|node| node.network());
    nodes.chain([lab.switch()]).collect()
}

/// True if there is a namespace of that name.
pub(super) fn exists(name: &str) -> bool {
    Path::new(NAMESPACES).join(name).exists()
}

/// Runs a batch of `ip` in a namespace.
fn batch(namespace: &str, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(["-n", namespace, "-batch", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip`: install the package iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes()).context("cannot write to `ip`")?;
    }
    let outcome = child.wait_with_output()?;
    if !outcome.status.success() {
        bail!("ip in {namespace}: {} in:\n{lines}", String::from_utf8_lossy(&outcome.stderr).trim());
    }
    Ok(())
}
