//! HAProxy's pair: the same path with the same checks, configured from files.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::{Application, Arrangement, pair, write};
use crate::bench::process::Process;

/// The pair's name in reports.
pub(super) const NAME: &str = "haproxy";
const OUTBOUND: &str = include_str!("haproxy-outbound.cfg");
const INBOUND: &str = include_str!("haproxy-inbound.cfg");
const CLIENT: &str = "127.9.2.2";
const SERVER: &str = "127.9.2.3";

/// Starts both HAProxies.
pub(super) fn start(program: &Path, folder: &Path, application: &Application) -> Result<Arrangement> {
    pair(NAME, CLIENT, SERVER, |side| {
        let config = if side == "inbound" { INBOUND } else { OUTBOUND };
        let name = format!("{NAME}-{side}");
        let file = write(folder, &format!("{name}.cfg"), config, Some(application))?;
        let mut command = Command::new(program);
        // In the foreground, without a master beside it.
        command.arg("-db").arg("-f").arg(&file);
        Process::start(&name, folder, &mut command)
    })
}
