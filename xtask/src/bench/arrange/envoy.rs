//! Envoy's pair: the same path with the same checks, configured from files.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Application, Arrangement, pair, write};
use crate::bench::process::Process;

/// The pair's name in reports.
pub(super) const NAME: &str = "envoy";
const OUTBOUND: &str = include_str!("envoy-outbound.yaml");
const INBOUND: &str = include_str!("envoy-inbound.yaml");
const CLIENT: &str = "127.9.1.2";
const SERVER: &str = "127.9.1.3";

/// Starts both Envoys.
pub(super) fn start(program: &Path, folder: &Path, application: &Application) -> Result<Arrangement> {
    pair(NAME, CLIENT, SERVER, |side| {
        let config = if side == "inbound" { INBOUND } else { OUTBOUND };
        let name = format!("{NAME}-{side}");
        let file = write(folder, &format!("{name}.yaml"), config, Some(application))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning"]);
        Process::start(&name, folder, &mut command)
    })
}
