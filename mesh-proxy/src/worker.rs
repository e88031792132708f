//! One worker: it accepts on all listeners and carries connections, on one thread.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    config::Config,
    control::Control,
    drain::Drain,
    listeners::Listeners,
    telemetry::{Shard, access_log::AccessLog},
};

/// What one worker works with.
pub(crate) struct WorkerContext {
    /// Number of the worker, from 0.
    pub index: usize,
    /// The proxy's configuration.
    pub config: Arc<Config>,
    /// What the controller says.
    pub control: Control,
    /// Where to accept.
    pub listeners: watch::Receiver<Listeners>,
    /// Where this worker counts.
    pub shard: Arc<Shard>,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// When to end.
    pub drain: watch::Receiver<Drain>,
}

/// Runs until drained. Called inside a `LocalSet` on the worker's thread.
pub(crate) async fn run(context: WorkerContext) {
    let mut drain = context.drain;
    let _ended = drain.wait_for(|state| *state != Drain::Running).await;
}
