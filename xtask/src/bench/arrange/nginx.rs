//! nginx as the server, and no proxy: what a request costs a web server.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Arrangement, Protocol, Way, socket, wait_for_ports, write};
use crate::bench::process::Process;

/// Its name in reports.
pub(super) const NAME: &str = "nginx";
const CONFIG: &str = include_str!("nginx.conf");
const ADDRESS: &str = "127.9.4.2";
/// Sizes of the bodies that it serves.
const BODIES: [usize; 4] = [64, 1024, 64 * 1024, 1024 * 1024];

/// Starts it.
pub(super) fn start(program: &Path, folder: &Path) -> Result<Arrangement> {
    let bytes = folder.join("www").join("bytes");
    std::fs::create_dir_all(&bytes).context("cannot make nginx's folder")?;
    for size in BODIES {
        std::fs::write(bytes.join(size.to_string()), "x".repeat(size)).context("cannot write a body")?;
    }
    let file = write(folder, "nginx.conf", CONFIG, None)?;
    let mut process = Process::start(NAME, folder, Command::new(program).arg("-c").arg(&file))?;
    wait_for_ports(&mut process, ADDRESS, &[8080])?;
    let way = Way::new(Protocol::Http1, socket(ADDRESS, 8080)?, "nginx", &[0]);
    Ok(Arrangement { name: NAME, processes: vec![process], ways: vec![way], authorises: false })
}
