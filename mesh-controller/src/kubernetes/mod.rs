//! What the controller does in a cluster beside following its objects: it asks whose a token is, keeps its secrets
//! there, hands out trust, and agrees with its replicas on who leads.
//!
//! *Invariants:* no key of the authority is on a disk; every request ends within [`LIMIT`], whatever the API server does.

mod bundle;
#[cfg(test)]
pub(crate) mod fake;
mod lead;
mod lease;
mod secrets;
mod status;
#[cfg(test)]
mod tests;
mod tokens;
mod webhooks;

use std::{sync::Arc, time::Duration};

use kube::{Client, Config};

pub(crate) use self::{
    bundle::Bundles,
    lead::run as lead,
    secrets::{Held, Secrets},
    status::Noted,
    tokens::{BoundPod, Reviews, TokenError},
};
use crate::config::InCluster;

/// Longest wait for an answer of the API server.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a watch lasts, in seconds: after that it is begun anew, so that a dead connection does not go unnoticed.
pub(crate) const WATCH: u32 = 120;
/// Longest silence in a watch, which ends before that.
const SILENCE: Duration = Duration::from_secs(130);
/// How long the API server may be away when the controller starts.
const START: Duration = Duration::from_secs(60);
/// Pause before it is asked again then.
const PAUSE: Duration = Duration::from_millis(500);
/// Who the controller is for the API server's notes on who wrote what, and the label of what it makes.
const MANAGER: &str = "mesh-controller";
/// The label that says who keeps an object.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Why the API server did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no cluster to talk to.
    #[error(
        "--kubernetes: no usable configuration: {0}; run in a pod with a ServiceAccount, or let KUBECONFIG name a file"
    )]
    NoCluster(String),
    /// It cannot be asked at the moment.
    #[error("cannot {what}: the API server cannot be asked: {why}")]
    Away {
        /// What was tried.
        what: String,
        /// What is known about that.
        why: String,
    },
    /// It said no.
    #[error("cannot {what}: the API server refuses it ({code}): {why}")]
    Refused {
        /// What was tried.
        what: String,
        /// The HTTP status.
        code: u16,
        /// What it said.
        why: String,
    },
}

impl ClusterError {
    /// The HTTP status with which it was refused.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::NoCluster(_) | Self::Away { .. } => None,
        }
    }

    /// True when asking again may help.
    pub(crate) fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// The cluster that the controller works in.
pub(crate) struct Cluster {
    /// Shared by all that talk to it.
    pub(crate) client: Client,
    /// Its address, for people.
    pub(crate) url: String,
    /// The controller's own namespace.
    pub(crate) namespace: String,
    /// Who this replica is among the others: another one after each start.
    pub(crate) replica: String,
    /// What objects say of themselves.
    pub(crate) noted: Arc<Noted>,
}

impl Cluster {
    /// Connects as `KUBECONFIG` says, or else as a pod is told to.
    pub(crate) async fn connect(own: &InCluster) -> Result<Self, ClusterError> {
        let unusable = |error: &dyn std::error::Error| ClusterError::NoCluster(told(error));
        let mut config = Config::infer().await.map_err(|error| unusable(&error))?;
        config.read_timeout = Some(SILENCE);
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        let pod = own.pod.as_deref().unwrap_or(MANAGER);
        let replica = format!("{pod}_{:08x}", fastrand::u32(..));
        let (namespace, noted) = (own.namespace.clone(), Arc::default());
        Ok(Self { client, url, namespace, replica, noted })
    }
}

/// Asks the API server, and waits no longer than [`LIMIT`].
async fn ask<T>(
    what: impl FnOnce() -> String,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ClusterError> {
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
            let why = short(&status.message);
            Err(ClusterError::Refused { what: what(), code: status.code, why })
        }
        Ok(Err(kube::Error::Api(status))) => Err(ClusterError::Away {
            what: what(),
            why: format!("{} {}", status.code, short(&status.message)),
        }),
        Ok(Err(error)) => Err(ClusterError::Away { what: what(), why: told(&error) }),
        Err(_) => Err(ClusterError::Away { what: what(), why: format!("no answer within {LIMIT:?}") }),
    }
}

/// Tries again for a while as long as the API server is away: pods often start before it can be reached.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, E>>, E: std::fmt::Display>(
    is_away: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    let deadline = tokio::time::Instant::now() + START;
    loop {
        match attempt().await {
            Err(error) if is_away(&error) && tokio::time::Instant::now() < deadline => {
                tracing::warn!(%error, "waiting for the API server");
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    short(&text)
}

/// What others said, in one line that is not too long.
fn short(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(printable).take(400).collect()
}
