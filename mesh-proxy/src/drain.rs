//! How a proxy is told to end.

/// What workers do with new and running work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// Serve.
    Running,
    /// Finish what runs: GOAWAY, `Connection: close`; nothing in flight is refused.
    Draining,
    /// Time is up: abort all.
    Stopped,
}
