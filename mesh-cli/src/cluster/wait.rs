//! Waiting for the cluster, with the reason where waiting does not help.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Cluster, ClusterError,
    objects::Id,
    preflight,
    trouble::{self, Trouble, condition},
};
use crate::chart::NAMESPACE;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Why something did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    /// It took too long.
    #[error("{what} within {within:?}: {state}")]
    Late {
        /// What was waited for.
        what: &'static str,
        /// How long.
        within: Duration,
        /// How it stands.
        state: String,
    },
    /// It will not happen.
    #[error("{what} does not start: {reason}")]
    Hopeless {
        /// What was waited for.
        what: &'static str,
        /// Why it is hopeless.
        reason: String,
    },
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Until when, and how long that was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    end: Instant,
    within: Duration,
}

impl Deadline {
    pub(crate) fn new(within: Duration) -> Self {
        Self { end: Instant::now() + within, within }
    }

    /// As long again, from now.
    pub(crate) fn renewed(self) -> Self {
        Self::new(self.within)
    }

    /// What the cluster has answered. None: it cannot answer now, and a moment was waited; an error when time is over.
    ///
    /// # Errors
    /// When it refuses, or time is over.
    pub(crate) async fn heard<T>(
        self,
        what: &'static str,
        answer: Result<T, ClusterError>,
    ) -> Result<Option<T>, WaitError> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(away @ ClusterError::Away { .. }) => {
                self.pause(what, away.to_string()).await?;
                Ok(None)
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// Waits a moment; an error when it is over.
    pub(super) async fn pause(self, what: &'static str, state: String) -> Result<(), WaitError> {
        if Instant::now() >= self.end {
            return Err(WaitError::Late { what, within: self.within, state });
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// Waits until kinds are served.
///
/// # Errors
/// When they are not in time.
pub(crate) async fn established(cluster: &Cluster, ids: &[Id], deadline: Deadline) -> Result<(), WaitError> {
    for id in ids {
        loop {
            let what = "the kind is not served";
            let Some(object) = deadline.heard(what, id.read(cluster).await).await? else { continue };
            let object = object.unwrap_or_default();
            if condition(&object, "Established").is_some_and(|c| c["status"] == "True") {
                break;
            }
            let refused = condition(&object, "NamesAccepted").filter(|c| c["status"] == "False");
            let state = refused.and_then(|c| c["message"].as_str()).unwrap_or("not established");
            deadline.pause(what, format!("{id}: {state}")).await?;
        }
    }
    Ok(())
}

/// Waits until all replicas of the controller are new and ready; `say` hears how it goes. What was `stuck` before may be
/// mended by now, and is tried anew.
///
/// # Errors
/// When they are not in time, or will not be.
pub(crate) async fn rolled_out(
    cluster: &Cluster,
    deadline: Deadline,
    stuck: &HashSet<String>,
    mut say: impl FnMut(&str),
) -> Result<(), WaitError> {
    let what = "the controller is not ready";
    let mut said = String::new();
    loop {
        let answer = preflight::deployment().read(cluster).await;
        let Some(object) = deadline.heard(what, answer).await? else { continue };
        let object = object.unwrap_or_default();
        let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        let wanted = number("/spec/replicas");
        let (updated, ready) = (number("/status/updatedReplicas"), number("/status/availableReplicas"));
        let seen = number("/status/observedGeneration") >= number("/metadata/generation");
        if seen && wanted > 0 && updated >= wanted && ready >= wanted && number("/status/replicas") == wanted
        {
            return Ok(());
        }
        let mut state = format!("{updated} of {wanted} started, {ready} ready");
        if said != state {
            say(&state);
            said.clone_from(&state);
        }
        // Before it is seen, the newest pods are those of an earlier attempt.
        let answer = if seen { trouble::of_controller(cluster, &object, stuck).await } else { Ok(None) };
        let Some(found) = deadline.heard(what, answer).await? else { continue };
        if let Some(Trouble { text, is_hopeless }) = found {
            if is_hopeless {
                return Err(WaitError::Hopeless { what: "the controller", reason: text });
            }
            state = format!("{state}; {text}");
        }
        deadline.pause(what, state).await?;
    }
}

/// Waits until the API server can know the controller's certificate.
///
/// # Errors
/// When it cannot in time.
pub(crate) async fn trusted(cluster: &Cluster, webhooks: &[Id], deadline: Deadline) -> Result<(), WaitError> {
    for id in webhooks {
        loop {
            let what = "the controller has not given the API server its root certificate";
            let Some(object) = deadline.heard(what, id.read(cluster).await).await? else { continue };
            let object = object.unwrap_or_default();
            let hooks = object["webhooks"].as_array();
            let has = |hook: &Value| hook["clientConfig"]["caBundle"].as_str().is_some_and(|b| !b.is_empty());
            if hooks.is_some_and(|hooks| !hooks.is_empty() && hooks.iter().all(has)) {
                break;
            }
            let state =
                format!("{id} has no caBundle; see `kubectl -n {NAMESPACE} logs deploy/mesh-controller`");
            deadline.pause(what, state).await?;
        }
    }
    Ok(())
}

/// Deletes an object; false: it was not there.
///
/// # Errors
/// When the cluster refuses it, or does not answer in time.
pub(crate) async fn deleted(cluster: &Cluster, id: &Id, deadline: Deadline) -> Result<bool, WaitError> {
    loop {
        if let Some(was_there) = deadline.heard("not all is gone", id.delete(cluster).await).await? {
            return Ok(was_there);
        }
    }
}

/// Waits until objects are gone.
///
/// # Errors
/// When they are not in time.
pub(crate) async fn gone(cluster: &Cluster, ids: &[Id], deadline: Deadline) -> Result<(), WaitError> {
    let what = "not all is gone";
    for id in ids {
        loop {
            let Some(answer) = deadline.heard(what, id.read(cluster).await).await? else { continue };
            let Some(object) = answer else { break };
            let why = object["status"]["conditions"].as_array().into_iter().flatten();
            let why = why.filter(|c| c["status"] == "True").filter_map(|c| c["message"].as_str());
            let state = format!("{id} is still there {}", why.collect::<Vec<_>>().join("; "));
            deadline.pause(what, state).await?;
        }
    }
    Ok(())
}
