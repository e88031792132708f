//! JSON lines, one per request or TCP connection, through a bounded queue to a writer thread.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::SyncSender,
    },
    time::SystemTime,
};

use mesh_core::edge::Direction;

use super::{EdgeStats, Outcome};

/// One line.
pub(crate) struct Entry {
    /// The proxy's side.
    pub direction: Direction,
    /// The edge; None when the call ended before one was known.
    pub edge: Option<Arc<EdgeStats>>,
    /// The other end of the accepted connection.
    pub peer: Option<SocketAddr>,
    /// Where the call was sent.
    pub upstream: Option<SocketAddr>,
    /// HTTP method; None for TCP.
    pub method: Option<http::Method>,
    /// Host as the caller wrote it.
    pub authority: Option<String>,
    /// Path without the query, for that may hold secrets.
    pub path: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Handle of the log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AccessLog {
    shared: Arc<Shared>,
}

struct Shared {
    enabled: AtomicBool,
    dropped: AtomicU64,
    queue: SyncSender<Box<(SystemTime, Entry)>>,
}

impl AccessLog {
    /// True when lines are wanted: ask before an [`Entry`] is made.
    pub(crate) fn enabled(&self) -> bool {
        self.shared.enabled.load(Relaxed)
    }

    /// Queues one line; drops it (counted) when the writer does not keep up.
    pub(crate) fn write(&self, entry: Entry) {
        if self.shared.queue.try_send(Box::new((SystemTime::now(), entry))).is_err() {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }
}
