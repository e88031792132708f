//! The yardstick: `examples/bare-pair`, two processes for each protocol.

use std::process::Command;

use anyhow::Result;

use super::{Application, Arrangement, Places, Protocol, Way, socket, wait_for_ports};
use crate::bench::process::Process;

/// The pair's name in reports.
pub(super) const NAME: &str = "bare";
const CLIENT: &str = "127.9.3.2";
const SERVER: &str = "127.9.3.3";

/// Starts all of them.
pub(super) fn start(places: &Places, application: &Application) -> Result<Arrangement> {
    let program = places.target.join(places.profile).join("bare-pair");
    let start = |name: &str, role: &str, mode: &str, listen: (&str, u16), to: String| -> Result<Process> {
        let (own, peer) = if role == "outbound" { ("client", "server") } else { ("server", "client") };
        let mut command = Command::new(&program);
        command.args([role, "--mode", mode, "--listen", &socket(listen.0, listen.1)?.to_string()]);
        command.args(["--to", &to, "--peer", &format!("spiffe://cluster.local/ns/bench/sa/{peer}")]);
        command.arg("--cert").arg(places.folder.join(format!("{own}.pem")));
        command.arg("--key").arg(places.folder.join(format!("{own}.key")));
        command.arg("--roots").arg(places.folder.join("root.pem"));
        let mut process = Process::start(name, &places.folder, &mut command)?;
        wait_for_ports(&mut process, listen.0, &[listen.1])?;
        Ok(process)
    };
    let protocols = [
        (Protocol::Http1, "h1", application.http),
        (Protocol::Http1OverHttp2, "h1h2", application.http),
        (Protocol::Grpc, "h2", application.grpc),
        (Protocol::Tcp, "tcp", application.tcp),
    ];
    let (mut processes, mut ways) = (Vec::new(), Vec::new());
    for ((protocol, mode, to), port) in protocols.into_iter().zip(15001..) {
        let (outbound, inbound) = (format!("bare-{mode}-outbound"), format!("bare-{mode}-inbound"));
        let server = start(&inbound, "inbound", mode, (SERVER, port), to.to_string())?;
        let between = socket(SERVER, port)?.to_string();
        let client = start(&outbound, "outbound", mode, (CLIENT, port), between)?;
        let first = processes.len();
        processes.extend([client, server]);
        ways.push(Way::new(protocol, socket(CLIENT, port)?, "server", &[first, first + 1]));
    }
    Ok(Arrangement { name: NAME, processes, ways, authorises: false })
}
