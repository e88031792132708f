//! Our pair: a controller that reads a mesh of three workloads, and their sidecars.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Application, Arrangement, Places, Protocol, Way, socket, write};
use crate::bench::probe;
use crate::bench::process::Process;

/// Our pair's name in reports.
const NAME: &str = "mesh";
const MESH: &str = include_str!("mesh.yaml");
const CLIENT: &str = "127.9.0.2";
const SERVER: &str = "127.9.0.3";
/// The client's side that carries HTTP/1.1 over HTTP/2.
const CLIENT_H1H2: &str = "127.9.0.4";

/// Starts controller and sidecars and waits until all are ready.
pub(super) fn start(places: &Places, application: &Application) -> Result<(Process, Arrangement)> {
    let folder = &places.folder;
    let (source, data) = (folder.join("mesh"), folder.join("data"));
    std::fs::create_dir_all(&source).context("cannot make the mesh's folder")?;
    write(&source, "mesh.yaml", MESH, Some(application))?;
    let mut command = Command::new(places.target.join("release").join("mesh-controller"));
    command.arg("run").arg("--source").arg(&source).arg("--data-dir").arg(&data);
    command.args(["--listen", "127.9.0.1:0", "--view", "127.9.0.1:0", "--health", "127.9.0.1:0"]);
    let mut controller = Process::start("mesh-controller", folder, &mut command)?;
    let mut address = None;
    controller.wait_until("listening", || {
        address = control_address(&data);
        address.is_some()
    })?;
    let address = address.context("the controller tells no address")?;

    let program = places.target.join("dist").join("mesh-proxy");
    let start = |workload: &str, account: &str, ip: &str, transport: &str| -> Result<Process> {
        let mut command = Command::new(&program);
        command.args(["run", "--mode", "explicit", "--workers", "1", "--access-log", "off"]);
        command.args(["--workload", &format!("bench/{workload}"), "--address", ip, "--controller", &address]);
        command.args(["--http1-transport", transport]);
        command.arg("--token-file").arg(data.join("tokens").join("bench").join(account));
        command.arg("--trust-bundle").arg(data.join("trust-bundle.pem"));
        command.arg("--admin-socket").arg(folder.join(format!("{workload}.sock")));
        let mut proxy = Process::start(&format!("mesh-{workload}"), folder, &mut command)?;
        let health = socket(ip, 15020)?;
        proxy.wait_until("being ready", || probe::get(health, "/ready").is_ok_and(|status| status == 200))?;
        Ok(proxy)
    };
    let processes = vec![
        start("client", "client", CLIENT, "h1")?,
        start("server", "server", SERVER, "h1")?,
        start("client-h1h2", "client", CLIENT_H1H2, "h1h2")?,
    ];
    let (entry, tcp, entry_h1h2) =
        (socket(CLIENT, 15001)?, socket(CLIENT, 17000)?, socket(CLIENT_H1H2, 15001)?);
    let ways = vec![
        Way::new(Protocol::Http1, entry, "server:8080", &[0, 1]),
        Way::new(Protocol::Http1OverHttp2, entry_h1h2, "server:8080", &[2, 1]),
        Way::new(Protocol::Grpc, entry, "server:8081", &[0, 1]),
        Way::new(Protocol::Tcp, tcp, "server:7000", &[0, 1]),
    ];
    Ok((controller, Arrangement { name: NAME, processes, ways, authorises: true }))
}

/// Where the controller takes proxies, once it does.
fn control_address(data: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join("controller.json")).ok()?;
    let told: Value = serde_json::from_str(&text).ok()?;
    Some(told["control"].as_str()?.to_owned())
}
