//! Our pair: a controller that reads a mesh of three workloads, and their sidecars.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Application, Arrangement, Places, Protocol, Way, socket, write};
use crate::bench::probe;
use crate::bench::process::Process;

/// Our pair's name in reports.
const NAME: &str = "mesh";
const MESH: &str = include_str!("mesh.yaml");
/// Address of the client's proxy.
pub(crate) const CLIENT: &str = "127.9.0.2";
/// Address of the server's proxy.
pub(crate) const SERVER: &str = "127.9.0.3";
/// The client's side that carries HTTP/1.1 over HTTP/2.
pub(crate) const CLIENT_H1H2: &str = "127.9.0.4";

/// Starts controller and sidecars and waits until all are ready.
pub(crate) fn start(places: &Places, application: &Application) -> Result<(Process, Arrangement)> {
    let controller = control(places, application, &[])?;
    let processes = vec![
        sidecar(places, "client", "client", CLIENT, "h1")?,
        sidecar(places, "server", "server", SERVER, "h1")?,
        sidecar(places, "client-h1h2", "client", CLIENT_H1H2, "h1h2")?,
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

/// The folder that the controller reads.
pub(crate) fn source(places: &Places) -> PathBuf {
    places.folder.join("mesh")
}

fn data(places: &Places) -> PathBuf {
    places.folder.join("data")
}

/// Starts the controller with these arguments beside the usual ones.
pub(crate) fn control(places: &Places, application: &Application, args: &[&str]) -> Result<Process> {
    let (source, data) = (source(places), data(places));
    std::fs::create_dir_all(&source).context("cannot make the mesh's folder")?;
    write(&source, "mesh.yaml", MESH, Some(application))?;
    let mut command = Command::new(places.target.join(places.others).join("mesh-controller"));
    command.arg("run").arg("--source").arg(&source).arg("--data-dir").arg(&data);
    command.args(["--listen", "127.9.0.1:0", "--view", "127.9.0.1:0", "--health", "127.9.0.1:0"]);
    command.args(args);
    let mut controller = Process::start("mesh-controller", &places.folder, &mut command)?;
    controller.wait_until("listening", || control_address(&data).is_some())?;
    Ok(controller)
}

/// Starts a sidecar and waits until it is ready.
pub(crate) fn sidecar(
    places: &Places,
    workload: &str,
    account: &str,
    ip: &str,
    transport: &str,
) -> Result<Process> {
    let (folder, data) = (&places.folder, data(places));
    let controller = control_address(&data).context("the controller tells no address")?;
    let mut command = Command::new(places.target.join(places.profile).join("mesh-proxy"));
    command.args(["run", "--mode", "explicit", "--workers", "1", "--access-log", "off"]);
    command.args(["--workload", &format!("bench/{workload}"), "--address", ip, "--controller", &controller]);
    command.args(["--http1-transport", transport]);
    command.arg("--token-file").arg(data.join("tokens").join("bench").join(account));
    command.arg("--trust-bundle").arg(data.join("trust-bundle.pem"));
    command.arg("--admin-socket").arg(folder.join(format!("{workload}.sock")));
    let mut proxy = Process::start(&format!("mesh-{workload}"), folder, &mut command)?;
    let health = socket(ip, 15020)?;
    proxy.wait_until("being ready", || probe::get(health, "/ready").is_ok_and(|status| status == 200))?;
    Ok(proxy)
}

/// Where the controller takes proxies, once it does.
fn control_address(data: &Path) -> Option<String> {
    let text = std::fs::read_to_string(data.join("controller.json")).ok()?;
    let told: Value = serde_json::from_str(&text).ok()?;
    Some(told["control"].as_str()?.to_owned())
}
