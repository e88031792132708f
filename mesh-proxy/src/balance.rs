//! Endpoints as this worker sees them: their load, and their connections. They outlive changes of the endpoint set.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use mesh_core::{
    balance::{ewma::PeakEwma, p2c},
    config::Endpoint,
    identity::SpiffeId,
    name::WorkloadRef,
    protocol::Protocol,
};

use crate::pool::Upstream;

/// How long connections to peers stay idle: shorter than peers wait for a request's head.
const KEEP_IDLE: Duration = Duration::from_secs(30);
/// Latency that a failed connection counts as, in nanoseconds, so that others are preferred for a while.
const FAILURE_NANOS: u64 = 5_000_000_000;

/// One endpoint.
pub(crate) struct EndpointState {
    /// As the controller describes it.
    pub endpoint: Endpoint,
    /// Its connections.
    pub upstream: Rc<Upstream>,
    load: RefCell<PeakEwma>,
    epoch: Instant,
}

impl EndpointState {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
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
    epoch: Instant,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self { known: RefCell::default(), epoch: Instant::now() }
    }
}

impl Endpoints {
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
        let state = Rc::new(EndpointState {
            upstream: Upstream::new(key.address, key.identity.clone(), KEEP_IDLE),
            endpoint: endpoint.clone(),
            load: RefCell::new(PeakEwma::new(self.epoch.elapsed().as_nanos() as u64)),
            epoch: self.epoch,
        });
        known.insert(key, Rc::downgrade(&state));
        state
    }

    /// Forgets endpoints that nobody uses, and closes idle connections of the others.
    pub(crate) fn sweep(&self, now: Instant) {
        self.known.borrow_mut().retain(|_, state| match state.upgrade() {
            Some(state) => {
                state.upstream.sweep(now);
                true
            }
            None => false,
        });
    }
}

/// Picks the better of two endpoints.
pub(crate) fn pick(endpoints: &[Rc<EndpointState>]) -> Option<usize> {
    let now = match endpoints {
        [] => return None,
        [_] => return Some(0),
        [first, ..] => first.now(),
    };
    let cost = |at: usize| endpoints.get(at).map_or(f64::MAX, |e| e.load.borrow().cost(now));
    p2c::pick(endpoints.len(), fastrand::u64(..), cost)
}

/// One request (or connection) on its way to an endpoint. Dropped, it no longer counts as load.
pub(crate) struct Flight {
    endpoint: Rc<EndpointState>,
    started: u64,
    latency: Option<u64>,
}

impl Flight {
    /// Begins.
    pub(crate) fn start(endpoint: &Rc<EndpointState>) -> Self {
        endpoint.load.borrow_mut().start();
        Self { endpoint: Rc::clone(endpoint), started: endpoint.now(), latency: None }
    }

    /// The endpoint answered: the time until now is its latency.
    pub(crate) fn answered(&mut self) {
        self.latency = Some(self.endpoint.now().saturating_sub(self.started));
    }

    /// The endpoint did not answer: others are better for a while.
    pub(crate) fn failed(&mut self) {
        self.latency = Some(FAILURE_NANOS);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut load = self.endpoint.load.borrow_mut();
        match self.latency {
            Some(latency) => load.finish(self.endpoint.now(), latency),
            None => load.abandon(),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::addr::EndpointAddr;

    use super::*;

    fn endpoint(port: u16, name: &str) -> Endpoint {
        Endpoint {
            address: EndpointAddr(([127, 0, 0, 1], port).into()),
            identity: Some(format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap()),
            workload: WorkloadRef::new("shop", name),
            protocol: Protocol::Http1,
            zone: "".into(),
        }
    }

    #[test]
    fn an_endpoint_keeps_its_state_and_another_identity_is_another_endpoint() {
        let endpoints = Endpoints::default();
        let first = endpoints.get(&endpoint(1, "a"));
        assert!(Rc::ptr_eq(&first, &endpoints.get(&endpoint(1, "a"))));
        assert!(!Rc::ptr_eq(&first, &endpoints.get(&endpoint(1, "b"))));
        drop(first);
        endpoints.sweep(Instant::now());
        assert!(endpoints.known.borrow().is_empty());
    }

    #[test]
    fn what_fails_is_avoided() {
        let endpoints = Endpoints::default();
        let both = [endpoints.get(&endpoint(1, "a")), endpoints.get(&endpoint(2, "b"))];
        Flight::start(&both[0]).failed();
        for _ in 0..50 {
            assert_eq!(pick(&both), Some(1));
            Flight::start(&both[1]).answered();
        }
        assert_eq!(both[0].load.borrow().pending(), 0);
    }
}
