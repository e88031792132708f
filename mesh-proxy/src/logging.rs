//! Logging of the process, to standard error.

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

static LEVEL: OnceLock<reload::Handle<LevelFilter, Registry>> = OnceLock::new();

/// Why the level is not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No such level.
    #[error("{0:?} is not a log level: off, error, warn, info, debug or trace")]
    Level(String),
    /// [`init`] was not called, or another subscriber was there before.
    #[error("logging is not set up in this process")]
    NotSetUp,
}

/// Sets logging up for the whole process; only binaries do so.
///
/// # Errors
/// [`LogError`].
pub fn init(level: &str) -> Result<(), LogError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| LogError::NotSetUp)?;
    LEVEL.set(handle).map_err(|_| LogError::NotSetUp)
}

/// Changes the level.
///
/// # Errors
/// [`LogError`].
pub fn set_level(level: &str) -> Result<(), LogError> {
    let level = parse(level)?;
    let handle = LEVEL.get().ok_or(LogError::NotSetUp)?;
    handle.reload(level).map_err(|_| LogError::NotSetUp)
}

fn parse(level: &str) -> Result<LevelFilter, LogError> {
    level.parse().map_err(|_| LogError::Level(level.chars().take(40).collect()))
}
