//! `mesh-proxy cni-install`: puts this program where container runtimes look for plugins.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::NAME;

/// Flags of `mesh-proxy cni-install`.
#[derive(Clone, Debug, clap::Args)]
pub struct Install {
    /// Directory of the node's CNI plugins
    #[arg(long, env = "MESH_CNI_BIN_DIR", value_name = "DIR", default_value = "/opt/cni/bin")]
    bin: PathBuf,
}

/// Why the plugin was not installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}; the plugin there, if any, is as it was", path.display())]
pub struct InstallError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Install {
    /// Copies the running program to `DIR/mesh-cni`. One that runs there goes on: it is replaced, not written to.
    ///
    /// # Errors
    /// [`InstallError`].
    pub fn run(&self) -> Result<(), InstallError> {
        let temporary = self.bin.join(format!(".{NAME}.new"));
        let done = copy(&temporary).and_then(|()| {
            let target = self.bin.join(NAME);
            fs::rename(&temporary, &target).map_err(on("replace", &target))
        });
        if done.is_err() {
            // It may not be there.
            let _ = fs::remove_file(&temporary);
        }
        done
    }
}

fn copy(to: &Path) -> Result<(), InstallError> {
    let own = Path::new("/proc/self/exe");
    let mut from = File::open(own).map_err(on("read", own))?;
    // Of an installation that was cut short; it may not be there.
    let _ = fs::remove_file(to);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o755).open(to).map_err(on("make", to))?;
    io::copy(&mut from, &mut file).map_err(on("write", to))?;
    file.sync_all().map_err(on("write", to))
}

fn on<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> InstallError + 'a {
    move |source| InstallError { action, path: path.to_owned(), source }
}
