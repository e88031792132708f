//! Our pair: a controller that reads a mesh of two workloads, and the sidecars of both.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::process::Process;
use super::{Pair, load};

/// Our pair's name in reports.
pub(super) const NAME: &str = "mesh";
const MESH: &str = include_str!("mesh.yaml");
const CLIENT: &str = "127.9.0.2";
const SERVER: &str = "127.9.0.3";

/// Starts controller and sidecars and waits until both are ready.
pub(super) fn start(target: &Path, folder: &Path, upstream: SocketAddr) -> Result<(Process, Pair)> {
    let (source, data) = (folder.join("mesh"), folder.join("data"));
    std::fs::create_dir_all(&source).context("cannot make the mesh's folder")?;
    std::fs::write(source.join("mesh.yaml"), MESH.replace("UPSTREAM", &upstream.to_string()))
        .context("cannot write the mesh")?;
    let mut command = Command::new(target.join("release").join("mesh-controller"));
    command.arg("run").arg("--source").arg(&source).arg("--data-dir").arg(&data);
    command.args(["--listen", "127.9.0.1:0", "--view", "127.9.0.1:0", "--health", "127.9.0.1:0"]);
    let mut controller = Process::start("mesh-controller", folder, &mut command)?;
    let mut address = None;
    controller.wait_until("listening", || {
        address = control_address(&data);
        address.is_some()
    })?;
    let address = address.context("the controller tells no address")?;

    let program = target.join("dist").join("mesh-proxy");
    let start = |name, workload: &str, ip: &str| -> Result<Process> {
        let mut command = Command::new(&program);
        command.args(["run", "--mode", "explicit", "--workers", "1", "--access-log", "off"]);
        command.args(["--workload", &format!("bench/{workload}"), "--address", ip, "--controller", &address]);
        command.arg("--token-file").arg(data.join("tokens").join("bench").join(workload));
        command.arg("--trust-bundle").arg(data.join("trust-bundle.pem"));
        command.arg("--admin-socket").arg(folder.join(format!("{workload}.sock")));
        let mut proxy = Process::start(name, folder, &mut command)?;
        let health = format!("{ip}:15020").parse().context("cannot make the health address")?;
        proxy.wait_until("being ready", || load::get(health, "/ready").is_ok_and(|status| status == 200))?;
        Ok(proxy)
    };
    let server = start("mesh-proxy-server", "server", SERVER)?;
    let client = start("mesh-proxy-client", "client", CLIENT)?;
    let entry = format!("{CLIENT}:15001").parse().context("cannot make the outbound address")?;
    Ok((controller, Pair { name: NAME, entry, host: "server:8080", proxies: [client, server] }))
}

/// Where the controller takes proxies, once it does.
fn control_address(data: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join("controller.json")).ok()?;
    let told: Value = serde_json::from_str(&text).ok()?;
    Some(told["control"].as_str()?.to_owned())
}
