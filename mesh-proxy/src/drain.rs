//! How a proxy is told to end.

use mesh_core::edge::Direction;
use tokio::sync::watch;

/// What workers do with new and running work. Each step goes further than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Serve.
    Running,
    /// Inbound ends: nothing new is taken, what runs is finished (GOAWAY, `Connection: close`). Outbound serves as
    /// ever, since the application may need others to finish its own work.
    Draining,
    /// Outbound ends likewise.
    Ending,
    /// Time is up: abort all.
    Stopped,
}

impl Drain {
    /// Its name, for people and tools.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Ending => "ending",
            Self::Stopped => "stopped",
        }
    }

    /// Whether connections of that direction are to end.
    pub(crate) fn ends(self, direction: Direction) -> bool {
        match self {
            Self::Running => false,
            Self::Draining => direction == Direction::Inbound,
            Self::Ending | Self::Stopped => true,
        }
    }
}

/// Returns when connections of that direction are to end.
pub(crate) async fn ending(drain: &mut watch::Receiver<Drain>, direction: Direction) {
    // An error: the sender is gone, and so is the proxy.
    let _ = drain.wait_for(|state| state.ends(direction)).await;
}
