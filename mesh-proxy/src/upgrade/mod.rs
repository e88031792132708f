//! Hot upgrade: the running process starts another binary, hands it all listening sockets and its certificate, and ends
//! when that one is ready. No connection is lost: both hold the same sockets, and with them the queues of connections
//! that wait to be accepted.
//!
//! The new process finds one end of a socket pair as its standard input, so that nobody else can take part, and answers
//! on it. Up to the word that it accepts, nothing has changed for the old one: it goes on if the new one fails.
//!
//! ```text
//! old → new   Offer, then Batches with the sockets
//! new → old   Ready (identity, configuration and listeners stand) or Failed
//! old → new   Go
//! new → old   Accepting; now the old one stops accepting and drains
//! ```

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod new;
mod old;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    net::{SocketAddr, TcpListener},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

pub use self::new::{Succession, SuccessionError};
pub(crate) use self::old::{Bequest, UpgradeError, hand_over};
use crate::identity::Handed;

/// Names the way on which a process is handed sockets; set by the process that it succeeds.
const VARIABLE: &str = "MESH_HANDOVER";
/// The one way there is.
const STDIN: &str = "stdin";
/// Version of what is said.
const VERSION: u32 = 1;
/// How long a new process may take to be ready, unless told otherwise.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// Asks for an upgrade.
pub(crate) struct Request {
    /// The new binary; None: the one that runs, as it is now on disk.
    pub binary: Option<PathBuf>,
    /// How long it may take to be ready.
    pub within: Duration,
    /// Hears how it went.
    pub reply: Option<oneshot::Sender<Result<String, String>>>,
}

/// What the old process gives away.
#[derive(Serialize, Deserialize)]
struct Offer {
    version: u32,
    /// Which process in the row of upgrades the new one is; the first is 1.
    generation: u64,
    /// How long it may take to be ready.
    within_millis: u64,
    /// Number of sockets that follow.
    sockets: usize,
    identity: Option<Handed>,
}

/// Some of the sockets; as many descriptors come along.
#[derive(Serialize, Deserialize)]
struct Batch {
    sockets: Vec<Listed>,
}

/// A socket that is handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// What it is for.
    pub what: String,
    /// The address that was asked for, whose port may be 0. None: the admin socket.
    pub asked: Option<SocketAddr>,
}

/// A socket to hand over.
pub(crate) type Handle<'a> = (Listed, BorrowedFd<'a>);

/// What is said once the sockets are handed over.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// All stands.
    Ready { version: String },
    /// It will not become ready.
    Failed { error: String },
    /// Accept now.
    Go,
    /// Done.
    Accepting,
}

/// Sockets of the process that this one succeeds; none for a process that succeeds nobody.
#[derive(Default)]
pub(crate) struct Inherited(Mutex<Vec<(Listed, OwnedFd)>>);

impl Inherited {
    /// The socket that stands where `asked` says; any port of its own kind when that is 0.
    pub(crate) fn take(&self, what: &str, asked: SocketAddr) -> Option<TcpListener> {
        let fits =
            |listed: &Listed| listed.asked == Some(asked) && (asked.port() != 0 || listed.what == what);
        self.find(fits).map(TcpListener::from)
    }

    /// The admin socket.
    pub(crate) fn take_admin_socket(&self) -> Option<UnixListener> {
        self.find(|listed| listed.asked.is_none()).map(UnixListener::from)
    }

    /// Closes what nobody wanted: it would hold its address.
    pub(crate) fn clear(&self) {
        self.sockets().clear();
    }

    fn find(&self, fits: impl Fn(&Listed) -> bool) -> Option<OwnedFd> {
        let mut sockets = self.sockets();
        let at = sockets.iter().position(|(listed, _)| fits(listed))?;
        Some(sockets.swap_remove(at).1)
    }

    fn sockets(&self) -> std::sync::MutexGuard<'_, Vec<(Listed, OwnedFd)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
