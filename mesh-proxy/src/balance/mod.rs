//! Endpoints as this worker sees them: their load, what their calls show, and their connections. They outlive changes of
//! the endpoint set.

mod balancer;
mod checks;
mod flight;
mod usable;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::{
    balance::{ewma::PeakEwma, outlier::Record},
    config::Endpoint,
    edge::Direction,
    identity::SpiffeId,
    name::WorkloadRef,
    protocol::Protocol,
    settings::Outlier,
};

pub(crate) use self::{
    balancer::{Affinity, Balancer, Picked},
    flight::Flight,
};
use crate::{
    pool::Upstream,
    telemetry::{LeftOut, Refusals, Shard},
    tls::TlsEpoch,
};

/// How long connections to peers stay idle: shorter than peers wait for a request's head.
const KEEP_IDLE: Duration = Duration::from_secs(30);

/// One endpoint.
pub(crate) struct EndpointState {
    /// As the controller describes it.
    pub endpoint: Endpoint,
    /// Its connections.
    pub upstream: Rc<Upstream>,
    load: RefCell<PeakEwma>,
    /// What its calls have shown, and how that is judged; of several Services the last that said so counts.
    record: RefCell<Record>,
    outlier: Cell<Option<Outlier>>,
    /// False: its health checks fail.
    healthy: Cell<bool>,
    /// The task that checks it.
    check: RefCell<Option<checks::Running>>,
    /// When it began to get calls, in nanoseconds of the worker's clock.
    since: Cell<u64>,
    shared: Rc<Shared>,
}

/// What all endpoints of a worker share.
struct Shared {
    shard: Arc<Shard>,
    epoch: Instant,
    /// Grows when an endpoint is left out or comes back before its time.
    changes: Cell<u64>,
}

impl EndpointState {
    /// Nanoseconds of the worker's clock.
    fn now(&self) -> u64 {
        self.shared.epoch.elapsed().as_nanos() as u64
    }

    /// Other endpoints are to be looked for: this one is left out, or back (`cause` is None).
    fn changed(&self, cause: Option<LeftOut>) {
        if let Some(cause) = cause {
            self.shared.shard.left_out(cause);
        }
        self.shared.changes.set(self.shared.changes.get() + 1);
    }

    /// Counts how a call ended.
    fn judge(&self, failed: bool) {
        let Some(settings) = self.outlier.get() else { return };
        if self.record.borrow_mut().count(self.now(), failed, &settings) {
            let endpoint = &self.endpoint;
            tracing::info!(workload = %endpoint.workload, address = %endpoint.address, "endpoint left out: its calls fail");
            self.changed(Some(LeftOut::Calls));
        }
    }
}

/// What makes two endpoints the same.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    identity: Option<SpiffeId>,
    workload: WorkloadRef,
    protocol: Protocol,
}

/// All endpoints that somebody uses.
pub(crate) struct Endpoints {
    known: RefCell<HashMap<Key, Weak<EndpointState>>>,
    shared: Rc<Shared>,
}

impl Endpoints {
    /// No endpoints; what happens to them counts in `shard`.
    pub(crate) fn new(shard: &Arc<Shard>) -> Self {
        let shared = Shared { shard: Arc::clone(shard), epoch: Instant::now(), changes: Cell::new(0) };
        Self { known: RefCell::default(), shared: Rc::new(shared) }
    }

    /// The state of an endpoint, with what is known about it already.
    pub(crate) fn get(&self, endpoint: &Endpoint) -> Rc<EndpointState> {
        let key = Key {
            address: endpoint.address.0,
            identity: endpoint.identity.clone(),
            workload: endpoint.workload.clone(),
            protocol: endpoint.protocol,
        };
        let mut known = self.known.borrow_mut();
        if let Some(state) = known.get(&key).and_then(Weak::upgrade) {
            return state;
        }
        let now = self.shared.epoch.elapsed().as_nanos() as u64;
        let refusals = Refusals::new(&self.shared.shard, Direction::Outbound);
        let state = Rc::new(EndpointState {
            upstream: Upstream::new(key.address, key.identity.clone(), KEEP_IDLE, refusals),
            endpoint: endpoint.clone(),
            load: RefCell::new(PeakEwma::new(now)),
            record: RefCell::default(),
            outlier: Cell::new(None),
            healthy: Cell::new(true),
            check: RefCell::new(None),
            since: Cell::new(now),
            shared: Rc::clone(&self.shared),
        });
        known.insert(key, Rc::downgrade(&state));
        state
    }

    /// Forgets endpoints that nobody uses, and closes idle connections of the others. Returns with how many connections
    /// peers are from now on not trusted.
    pub(crate) fn sweep(&self, now: Instant, epoch: Option<&TlsEpoch>) -> usize {
        let mut untrusted = 0;
        self.known.borrow_mut().retain(|_, state| match state.upgrade() {
            Some(state) => {
                untrusted += state.upstream.sweep(now, epoch);
                true
            }
            None => false,
        });
        untrusted
    }
}

#[cfg(test)]
mod tests;
