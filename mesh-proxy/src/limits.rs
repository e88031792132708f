//! What all workers count together: what is in use towards Services, and what a port lets in. No lock is taken for a
//! request: workers ask for the counters once and keep them.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use http::{HeaderMap, HeaderName};
use mesh_core::{
    identity::SpiffeId,
    name::ServicePort,
    reason::Reason,
    resilience::{
        breaker::{Breaker, Counted, Kind},
        concurrency::Concurrency,
        rate::{Bucket, Buckets, Rate},
    },
    settings::{self, AdaptiveConcurrency, InboundLimits, RateKey, RateLimit},
};

use crate::http::reply::Refusal;

/// Services that are remembered before those that nobody calls any more are looked for.
const MANY: usize = 256;

/// The counters of one process.
pub(crate) struct Shared {
    breakers: Mutex<HashMap<ServicePort, Weak<Breaker>>>,
    ports: Mutex<HashMap<u16, Arc<PortLimits>>>,
    /// Long before the first request: a time of 0 is none.
    epoch: Instant,
    hasher: RandomState,
}

impl Shared {
    /// Nothing is counted yet.
    pub(crate) fn new() -> Arc<Self> {
        let now = Instant::now();
        let epoch = now.checked_sub(std::time::Duration::from_secs(1)).unwrap_or(now);
        let (breakers, ports, hasher) = (Mutex::default(), Mutex::default(), RandomState::new());
        Arc::new(Self { breakers, ports, epoch, hasher })
    }

    /// The circuit towards a Service; None: nothing about it is limited.
    pub(crate) fn circuit(&self, service: &ServicePort, limits: settings::Breaker) -> Option<Circuit> {
        if limits == settings::Breaker::default() {
            return None;
        }
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = breakers.get(service).and_then(Weak::upgrade).unwrap_or_else(|| {
            let counts = Arc::<Breaker>::default();
            breakers.insert(service.clone(), Arc::downgrade(&counts));
            counts
        });
        if breakers.len() >= MANY {
            breakers.retain(|_, counts| counts.strong_count() > 0);
        }
        Some(Circuit { counts, limits })
    }

    /// The limits of a port; None: there are none. What is limited as before keeps its state.
    pub(crate) fn port(&self, port: u16, limits: &InboundLimits) -> Option<Arc<PortLimits>> {
        if limits.rates.is_empty() && limits.concurrency.is_none() {
            return None;
        }
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let old = ports.get(&port);
        if let Some(old) = old.filter(|old| old.limits == *limits) {
            return Some(Arc::clone(old));
        }
        let new = Arc::new(self.limits(limits, old.map(|old| &**old)));
        ports.insert(port, Arc::clone(&new));
        Some(new)
    }

    fn limits(&self, limits: &InboundLimits, old: Option<&PortLimits>) -> PortLimits {
        let state = |limit: &RateLimit| match limit.per {
            RateKey::Total => State::Total(Bucket::default()),
            RateKey::Identity | RateKey::Header(_) => State::Keyed(Buckets::default()),
        };
        let rates = limits.rates.iter().map(|limit| {
            let same = old.and_then(|old| old.rates.iter().find(|known| known.limit == *limit));
            let state = same.map_or_else(|| Arc::new(state(limit)), |same| Arc::clone(&same.state));
            Rated { rate: Rate::of(limit), limit: limit.clone(), state }
        });
        let concurrency = limits.concurrency.as_ref().map(|settings| {
            let same = old.and_then(|old| old.concurrency.as_ref()).filter(|same| same.0 == *settings);
            let new = || Arc::new((settings.clone(), Concurrency::new(settings)));
            same.map_or_else(new, Arc::clone)
        });
        PortLimits {
            limits: limits.clone(),
            rates: rates.collect(),
            concurrency,
            epoch: self.epoch,
            hasher: self.hasher.clone(),
        }
    }
}

/// What may be in use towards one Service.
pub(crate) struct Circuit {
    counts: Arc<Breaker>,
    limits: settings::Breaker,
}

impl Circuit {
    /// Counts one more.
    ///
    /// # Errors
    /// [`Reason::CircuitOpen`], when there are as many as may be.
    pub(crate) fn take(&self, kind: Kind) -> Result<Option<Counted>, Reason> {
        let limit = match kind {
            Kind::Connections => self.limits.connections,
            Kind::Pending => self.limits.pending,
            Kind::Requests => self.limits.requests,
        };
        let Some(limit) = limit else { return Ok(None) };
        self.counts.take(kind, limit).map(Some).ok_or(Reason::CircuitOpen)
    }
}

/// What one port of the workload lets in.
pub(crate) struct PortLimits {
    limits: InboundLimits,
    rates: Vec<Rated>,
    concurrency: Option<Arc<(AdaptiveConcurrency, Concurrency)>>,
    epoch: Instant,
    hasher: RandomState,
}

struct Rated {
    limit: RateLimit,
    rate: Rate,
    state: Arc<State>,
}

enum State {
    Total(Bucket),
    Keyed(Buckets),
}

impl PortLimits {
    /// Lets a request in, or says why not. What one limit let in and another did not counts for the first.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) fn admit(
        &self,
        caller: Option<&SpiffeId>,
        headers: &HeaderMap,
    ) -> Result<Option<Permit>, Refusal<'static>> {
        let now = Instant::now();
        let nanos = nanos(self.epoch, now);
        for Rated { limit, rate, state } in &self.rates {
            let taken = match (&**state, &limit.per) {
                (State::Total(bucket), _) => bucket.take(*rate, nanos),
                (State::Keyed(buckets), RateKey::Header(name)) if headers.contains_key(name) => {
                    buckets.take(self.hash_of(headers, name), *rate, nanos)
                }
                (State::Keyed(_), RateKey::Header(_)) => Ok(()),
                (State::Keyed(buckets), RateKey::Identity | RateKey::Total) => {
                    buckets.take(self.hasher.hash_one(caller.map(SpiffeId::as_str)), *rate, nanos)
                }
            };
            if let Err(wait) = taken {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                let refusal = Refusal::of(Reason::RateLimited);
                return Err(Refusal { retry_after: Some(seconds.max(1)), ..refusal });
            }
        }
        let Some(shared) = &self.concurrency else { return Ok(None) };
        if !shared.1.begin() {
            // Others may bear it.
            return Err(Refusal { unprocessed: true, ..Refusal::of(Reason::Overloaded) });
        }
        let (shared, epoch) = (Arc::clone(shared), self.epoch);
        Ok(Some(Permit { shared, epoch, began: now, latency: None }))
    }

    fn hash_of(&self, headers: &HeaderMap, name: &HeaderName) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        for value in headers.get_all(name) {
            value.hash(&mut hasher);
        }
        std::hash::Hasher::finish(&hasher)
    }
}

fn nanos(epoch: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(epoch).as_nanos()).unwrap_or(u64::MAX)
}

/// A request that was let in, until it is dropped.
pub(crate) struct Permit {
    shared: Arc<(AdaptiveConcurrency, Concurrency)>,
    epoch: Instant,
    began: Instant,
    latency: Option<u64>,
}

impl Permit {
    /// The application answered. An error of the proxy's own says nothing about it and is not noted.
    pub(crate) fn answered(&mut self) {
        self.latency = Some(nanos(self.began, Instant::now()));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (settings, state) = &*self.shared;
        state.end(settings, nanos(self.epoch, Instant::now()), self.latency);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderValue;
    use mesh_core::name::ObjectRef;

    use super::*;

    fn limit(per: RateKey, requests: u32) -> RateLimit {
        let object = ObjectRef::new("TrafficPolicy", "shop", "catalog");
        RateLimit { object, per, requests, interval: Duration::from_secs(3600), burst: requests }
    }

    #[test]
    fn a_change_elsewhere_gives_no_new_burst() {
        let shared = Shared::new();
        let total = InboundLimits { rates: vec![limit(RateKey::Total, 2)], concurrency: None };
        let headers = HeaderMap::new();
        let admitted = |limits: &InboundLimits| {
            let port = shared.port(80, limits).unwrap();
            (0..5).filter(|_| port.admit(None, &headers).is_ok()).count()
        };
        assert_eq!(admitted(&total), 2);
        assert_eq!(admitted(&total), 0);
        let mut more = total.clone();
        more.rates.push(limit(RateKey::Identity, 100));
        assert_eq!(admitted(&more), 0, "the first limit is as it was");
        let refusal = shared.port(80, &total).unwrap().admit(None, &headers).err().unwrap();
        assert_eq!((refusal.reason, refusal.unprocessed), (Reason::RateLimited, false));
        assert!(refusal.retry_after.unwrap() > 1000);
        assert!(shared.port(81, &InboundLimits::default()).is_none());
    }

    #[test]
    fn callers_and_keys_are_counted_for_themselves() {
        let shared = Shared::new();
        let name = HeaderName::from_static("x-user");
        let rates = vec![limit(RateKey::Identity, 3), limit(RateKey::Header(name.clone()), 2)];
        let port = shared.port(80, &InboundLimits { rates, concurrency: None }).unwrap();
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/a".parse().unwrap();
        let user =
            |user: &'static str| HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(user))]);
        let admitted = |id: Option<&SpiffeId>, headers: &HeaderMap| port.admit(id, headers).is_ok();
        assert!(admitted(Some(&id), &user("ann")) && admitted(Some(&id), &user("ann")));
        assert!(!admitted(Some(&id), &user("ann")), "too much of this user");
        assert!(!admitted(Some(&id), &user("bob")), "too much of this caller");
        assert!(admitted(None, &user("bob")) && admitted(None, &HeaderMap::new()));
    }

    #[test]
    fn a_permit_counts_until_it_is_dropped() {
        let shared = Shared::new();
        let object = ObjectRef::new("TrafficPolicy", "shop", "catalog");
        let settings = AdaptiveConcurrency { object, min: 1, max: 1 };
        let limits = InboundLimits { rates: Vec::new(), concurrency: Some(settings) };
        let port = shared.port(80, &limits).unwrap();
        let permit = port.admit(None, &HeaderMap::new()).ok().unwrap();
        let refusal = port.admit(None, &HeaderMap::new()).err().unwrap();
        assert_eq!((refusal.reason, refusal.unprocessed), (Reason::Overloaded, true));
        drop(permit);
        assert!(port.admit(None, &HeaderMap::new()).is_ok());
    }

    #[test]
    fn workers_have_one_circuit_for_a_service() {
        let shared = Shared::new();
        let service = ServicePort::new("shop", "catalog", 80);
        let limits = settings::Breaker { requests: Some(1), ..settings::Breaker::default() };
        let one = shared.circuit(&service, limits).unwrap();
        let two = shared.circuit(&service, limits).unwrap();
        let held = one.take(Kind::Requests).unwrap();
        assert_eq!(two.take(Kind::Requests).err(), Some(Reason::CircuitOpen));
        assert!(two.take(Kind::Pending).unwrap().is_none(), "not limited");
        drop(held);
        assert!(two.take(Kind::Requests).is_ok());
        assert!(shared.circuit(&service, settings::Breaker::default()).is_none());
    }
}
