//! Changes of the mesh under load, by its source files: every 100 ms an endpoint comes or goes, and a route changes.

use std::path::Path;
use std::thread::{Scope, ScopedJoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::bench::arrange::{Places, mesh};
use crate::bench::client::Application;

/// Time between two changes.
const EVERY: Duration = Duration::from_millis(100);
/// How long before the end the last one is.
const QUIET: Duration = Duration::from_secs(2);

const SECOND: &str = include_str!("second.yaml");
const ROUTE: &str = include_str!("route.yaml");

/// Writes the second server's files before the controller starts.
pub(super) fn prepare(places: &Places, application: &Application) -> Result<()> {
    let addresses = [("HTTP", application.http), ("GRPC", application.grpc), ("TCP", application.tcp)];
    let filled = addresses.iter().fold(SECOND.to_owned(), |text, (what, address)| {
        text.replace(&format!("UPSTREAM_{what}"), &address.to_string())
    });
    std::fs::create_dir_all(mesh::source(places)).context("cannot make the mesh's folder")?;
    std::fs::write(places.folder.join("second.yaml"), filled).context("cannot write the second server")?;
    step(places, 0)
}

/// What changes, until it ends.
pub(super) struct Changes<'scope>(ScopedJoinHandle<'scope, Result<u64>>);

impl<'scope> Changes<'scope> {
    /// Changes things for about as long as the soak takes.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        places: &'env Places,
        took: Duration,
    ) -> Self {
        Self(scope.spawn(move || {
            let start = Instant::now();
            for count in 1.. {
                if start.elapsed() + QUIET > took {
                    return Ok(count - 1);
                }
                step(places, count)?;
                sleep(EVERY);
            }
            Ok(0)
        }))
    }

    /// How many there were.
    pub(super) fn count(self) -> Result<u64> {
        self.0.join().map_err(|_| anyhow!("what changes the mesh died"))?
    }
}

/// The change number `count`.
fn step(places: &Places, count: u64) -> Result<()> {
    let source = mesh::source(places);
    let second = std::fs::read_to_string(places.folder.join("second.yaml")).context("cannot read it back")?;
    let label = if count.is_multiple_of(2) { "server" } else { "spare" };
    replace(&source, "second.yaml", &second.replace("LABEL", label))?;
    replace(&source, "route.yaml", &ROUTE.replace("COUNT", &count.to_string()))
}

/// Replaces a file as an editor does: no half of it is ever seen.
fn replace(folder: &Path, name: &str, text: &str) -> Result<()> {
    let (file, new) = (folder.join(name), folder.join(format!(".{name}.new")));
    std::fs::write(&new, text)
        .and_then(|()| std::fs::rename(&new, &file))
        .with_context(|| format!("cannot write {}", file.display()))
}
