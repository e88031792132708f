//! What the controller says, as watch channels: workload configuration, TLS epoch, destinations.

pub(crate) mod channel;
pub(crate) mod dump;
mod session;
mod store;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mesh_core::{
    config::{Destination, Endpoint, TrustBundle, WorkloadConfig},
    name::ServicePort,
    resource::DestinationKey,
};
use mesh_proto::discovery::v1::{KnownResource, Rejected, WatchResponse};
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;

use self::{
    store::{Sink, Store},
    subscriptions::Subscriptions,
};
use crate::{config::Config, identity::Keeper, tls::TlsEpoch};

pub(crate) use self::session::run;

/// What is known about a destination.
#[derive(Clone)]
pub(crate) enum DestinationState {
    /// Nothing yet.
    Pending,
    /// The newest answer; stays when the controller is lost.
    Ready(Arc<Resolved>),
}

/// A destination with the endpoints of all its backends.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Access to what the controller says. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Control {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    keeper: Arc<Keeper>,
    state: Mutex<State>,
    /// Wakes the session: `State::changes` is not empty.
    changed: Notify,
    workload: watch::Sender<Option<Arc<WorkloadConfig>>>,
    /// The connection to the controller, while it stands.
    channel: watch::Sender<Option<Channel>>,
}

struct State {
    store: Store,
    subscriptions: Subscriptions,
    /// What the controller must be told; filled only while a stream is open.
    changes: Vec<Change>,
    streaming: bool,
    /// When a stream last ended; before the first: when the proxy started.
    lost_at: Instant,
}

/// A subscription that begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Begin(DestinationKey),
    End(DestinationKey),
}

impl Control {
    /// Knows nothing yet.
    pub(crate) fn new(config: Arc<Config>, keeper: Arc<Keeper>) -> Self {
        let now = Instant::now();
        let state = State {
            store: Store::default(),
            subscriptions: Subscriptions::new(now),
            changes: Vec::new(),
            streaming: false,
            lost_at: now,
        };
        Self {
            shared: Arc::new(Shared {
                config,
                keeper,
                state: Mutex::new(state),
                changed: Notify::new(),
                workload: watch::Sender::new(None),
                channel: watch::Sender::new(None),
            }),
        }
    }

    /// Configuration of the proxy's workload: None before the first, then the last good one.
    pub(crate) fn workload(&self) -> watch::Receiver<Option<Arc<WorkloadConfig>>> {
        self.shared.workload.subscribe()
    }

    /// Certificate and roots: None before the first.
    pub(crate) fn tls(&self) -> watch::Receiver<Option<Arc<TlsEpoch>>> {
        self.shared.keeper.epochs()
    }

    /// The connection to the controller, while a discovery stream stands on it.
    pub(crate) fn channel(&self) -> watch::Receiver<Option<Channel>> {
        self.shared.channel.subscribe()
    }

    /// Joins or opens the subscription of a destination. Takes a lock: callers keep the receiver.
    ///
    /// # Errors
    /// [`SubscribeError::Limit`].
    pub(crate) fn destination(
        &self,
        key: &DestinationKey,
    ) -> Result<watch::Receiver<DestinationState>, SubscribeError> {
        let mut state = self.shared.state();
        let joined = state.subscriptions.join(key, Instant::now())?;
        if joined.new {
            // A stale answer that is still held beats none.
            if let Some(resolved) = state.store.resolve(key) {
                state.subscriptions.publish(key, DestinationState::Ready(Arc::new(resolved)));
            }
            if state.streaming {
                state.changes.extend(joined.evicted.map(Change::End));
                state.changes.push(Change::Begin(key.clone()));
                self.shared.changed.notify_one();
            }
        }
        Ok(joined.receiver)
    }

    /// Whether a discovery stream stands.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.state().streaming
    }

    /// How old what is held may be: zero while connected.
    pub(crate) fn age(&self) -> Duration {
        let state = self.shared.state();
        if state.streaming { Duration::ZERO } else { state.lost_at.elapsed() }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a stream: what the controller need not send again, and what is wanted.
    fn begin_stream(&self) -> (Vec<KnownResource>, Vec<DestinationKey>) {
        let mut state = self.state();
        let State { store, subscriptions, changes, streaming, .. } = &mut *state;
        store.retain(|key| subscriptions.contains(key));
        changes.clear();
        *streaming = true;
        (store.known(), subscriptions.keys().cloned().collect())
    }

    fn end_stream(&self) {
        let mut state = self.state();
        state.streaming = false;
        state.changes.clear();
        state.lost_at = Instant::now();
    }

    fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.state().changes)
    }

    /// Ends idle subscriptions.
    fn sweep(&self) {
        let mut state = self.state();
        let ended = state.subscriptions.sweep(Instant::now());
        if state.streaming && !ended.is_empty() {
            state.changes.extend(ended.into_iter().map(Change::End));
            self.changed.notify_one();
        }
    }

    /// Applies a response and publishes what it changed.
    fn apply(&self, response: &WatchResponse) -> Vec<Rejected> {
        let mut state = self.state();
        let State { store, subscriptions, .. } = &mut *state;
        let applied = store.apply(response, &mut Own { shared: self });
        for key in &applied.touched {
            if let Some(resolved) = store.resolve(key) {
                subscriptions.publish(key, DestinationState::Ready(Arc::new(resolved)));
            }
        }
        applied.rejected
    }

    fn resources(&self) -> usize {
        self.state().store.len()
    }
}

/// Takes what concerns the proxy itself.
struct Own<'a> {
    shared: &'a Shared,
}

impl Sink for Own<'_> {
    fn trust_bundle(&mut self, bundle: TrustBundle) -> Result<(), String> {
        let own = &self.shared.config.trust_domain;
        if bundle.trust_domain != *own {
            return Err(format!("the bundle is that of trust domain {}, not {own}", bundle.trust_domain));
        }
        self.shared.keeper.set_bundle(&bundle).map_err(|error| error.to_string())
    }

    fn workload(&mut self, workload: WorkloadConfig) -> Result<(), String> {
        let own = &self.shared.config.workload;
        if workload.workload != *own {
            return Err(format!("the configuration is that of workload {}, not {own}", workload.workload));
        }
        match self.shared.keeper.identity() {
            Some(identity) if identity == workload.identity => {}
            Some(identity) => {
                return Err(format!(
                    "the configuration is for {}, the certificate is {identity}",
                    workload.identity
                ));
            }
            None => return Err("there is no certificate yet".to_owned()),
        }
        self.shared.workload.send_replace(Some(Arc::new(workload)));
        Ok(())
    }
}
