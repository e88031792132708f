//! Envoy's pair: the same path with the same checks, configured from files.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Application, Arrangement, Protocol, Way, socket, wait_for_ports, write};
use crate::bench::process::Process;

/// The pair's name in reports.
pub(super) const NAME: &str = "envoy";
const OUTBOUND: &str = include_str!("envoy-outbound.yaml");
const INBOUND: &str = include_str!("envoy-inbound.yaml");
const CLIENT: &str = "127.9.1.2";
const SERVER: &str = "127.9.1.3";

/// Starts both Envoys.
pub(super) fn start(program: &Path, folder: &Path, application: &Application) -> Result<Arrangement> {
    let start = |name, config: &str| -> Result<Process> {
        let file = write(folder, &format!("{name}.yaml"), config, Some(application))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning"]);
        Process::start(name, folder, &mut command)
    };
    let mut server = start("envoy-inbound", INBOUND)?;
    wait_for_ports(&mut server, SERVER, &[15006, 15007, 15008])?;
    let mut client = start("envoy-outbound", OUTBOUND)?;
    wait_for_ports(&mut client, CLIENT, &[15001, 15002, 15003, 15004])?;
    let way = |protocol, port| Ok(Way::new(protocol, socket(CLIENT, port)?, "server", &[0, 1]));
    let ways: Result<_> = [
        way(Protocol::Http1, 15001),
        way(Protocol::Http1OverHttp2, 15002),
        way(Protocol::Grpc, 15003),
        way(Protocol::Tcp, 15004),
    ]
    .into_iter()
    .collect();
    Ok(Arrangement { name: NAME, processes: vec![client, server], ways: ways?, authorises: true })
}
