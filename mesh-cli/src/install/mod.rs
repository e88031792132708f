//! The mesh in a cluster: put there, changed, taken away.
//!
//! ```text
//! chart::render ──▶ preflight ──▶ dry run ──▶ steps (apply in order, wait) ──▶ release (what was installed)
//! ```
//! *Invariant:* nothing is changed before all that can be found out is known to be well; a run that was interrupted is
//! completed by the next one.

pub(crate) mod domain;
pub(crate) mod release;
pub(crate) mod remove;
pub(crate) mod steps;

use crate::{
    cluster::{ClusterError, preflight::Obstacle, wait::WaitError},
    out::Out,
};

/// Why the mesh is not as it was asked for: exit code 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// Something is in the way; nothing was changed.
    #[error("nothing was changed:{}", list(.0))]
    Obstacles(Vec<Obstacle>),
    /// The API server would refuse an object; nothing was changed.
    #[error("nothing was changed: {0}")]
    Refused(ClusterError),
    /// It was begun, and does not come up.
    #[error("{cause}\n{rest}")]
    NotReady {
        /// What is wrong.
        cause: WaitError,
        /// How it stands now, and what to do.
        rest: String,
    },
    /// The cluster refused something, or went away, in between.
    #[error("{cause}\n{rest}")]
    Interrupted {
        /// What is wrong.
        cause: ClusterError,
        /// How it stands now, and what to do.
        rest: String,
    },
}

fn list(obstacles: &[Obstacle]) -> String {
    obstacles.iter().map(|o| format!("\n  {}: {}", o.what, o.remedy)).collect()
}

impl InstallError {
    /// One reason, with what to do.
    pub(crate) fn obstacle(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Obstacles(vec![Obstacle { what: what.into(), remedy: remedy.into() }])
    }
}

/// Says an [`InstallError`] and gives its exit code; other errors are passed on.
///
/// # Errors
/// Whatever is no [`InstallError`].
pub(crate) fn told(error: anyhow::Error, out: &Out) -> anyhow::Result<crate::Exit> {
    match error.downcast::<InstallError>() {
        Ok(error) => {
            out.failure(&error.to_string());
            Ok(crate::Exit::NotWell)
        }
        Err(other) => Err(other),
    }
}
