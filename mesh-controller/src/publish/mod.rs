//! What is published: one snapshot of the whole configuration at a time, which streams compare with what they sent.

mod proxies;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use mesh_core::{
    config::TrustBundle,
    name::{ServicePort, WorkloadRef},
    resource::{DestinationKey, ResourceName},
};
use mesh_k8s::{Compiled, Problem};
use mesh_proto::{
    convert::{Resource, ResourceBody, Wire},
    discovery::v1 as pb,
};
use tokio::sync::watch;

pub(crate) use self::proxies::{Proxies, ProxyHandle, ProxyState};
use crate::source::{Outcome, State};

/// Most encoded resources that one snapshot remembers; beyond, they are made for each proxy.
const MAX_CACHED: usize = 100_000;

/// A destination, encoded, with the Service ports whose endpoints it refers to.
pub(crate) struct EncodedDestination {
    /// The resource.
    pub(crate) resource: Arc<pb::Resource>,
    /// Whose endpoints belong to it.
    pub(crate) ports: Vec<ServicePort>,
}

/// How an object of a cluster stands, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// What is in force of it.
    pub(crate) state: State,
    /// The configuration with which that came into force.
    pub(crate) since: u64,
}

/// The configuration at one time.
pub(crate) struct Snapshot {
    /// Number of the configuration: grows by one with each change that applied.
    pub(crate) generation: u64,
    /// What proxies are told.
    pub(crate) compiled: Arc<Compiled>,
    /// What is wrong.
    pub(crate) problems: Vec<Problem>,
    /// Objects that apply.
    pub(crate) objects: usize,
    /// Objects that are told how they stand, by place.
    pub(crate) standings: BTreeMap<Arc<str>, Standing>,
    /// When it was published.
    pub(crate) at: Instant,
    bundle: Arc<pb::Resource>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    destinations: HashMap<(Arc<str>, DestinationKey), Arc<EncodedDestination>>,
    endpoints: HashMap<ServicePort, Arc<pb::Resource>>,
}

impl Snapshot {
    /// `trust-bundle`.
    pub(crate) fn bundle(&self) -> Arc<pb::Resource> {
        Arc::clone(&self.bundle)
    }

    /// `workload` of one proxy; None when there is no such workload.
    pub(crate) fn workload(&self, workload: &WorkloadRef) -> Option<Arc<pb::Resource>> {
        let config = self.compiled.workloads.get(workload)?;
        Some(encode(ResourceName::Workload, ResourceBody::Workload(config.clone())))
    }

    /// `destination/…` as seen from `namespace`. Encoded once for all proxies that ask.
    pub(crate) fn destination(&self, namespace: &Arc<str>, key: &DestinationKey) -> Arc<EncodedDestination> {
        let cache_key = (Arc::clone(namespace), key.clone());
        if let Some(known) = self.cache().destinations.get(&cache_key) {
            return Arc::clone(known);
        }
        let (destination, ports) = self.compiled.destination(key, namespace);
        let name = ResourceName::Destination(key.clone());
        let resource = encode(name, ResourceBody::Destination(destination));
        let made = Arc::new(EncodedDestination { resource, ports });
        let mut cache = self.cache();
        if cache.destinations.len() < MAX_CACHED {
            cache.destinations.insert(cache_key, Arc::clone(&made));
        }
        made
    }

    /// `endpoints/…` of a Service port.
    pub(crate) fn endpoints(&self, port: &ServicePort) -> Arc<pb::Resource> {
        if let Some(known) = self.cache().endpoints.get(port) {
            return Arc::clone(known);
        }
        let endpoints = self.compiled.endpoints.get(port).cloned().unwrap_or_default();
        let made = encode(ResourceName::Endpoints(port.clone()), ResourceBody::Endpoints(endpoints));
        let mut cache = self.cache();
        if cache.endpoints.len() < MAX_CACHED {
            cache.endpoints.insert(port.clone(), Arc::clone(&made));
        }
        made
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Problems are told by the snapshot; in here they would only make equal configurations look different.
fn without_problems(mut compiled: Compiled) -> Compiled {
    compiled.problems.clear();
    compiled.refused.clear();
    compiled
}

/// Since when each object stands so: since `generation`, unless it stood so before.
fn standings(
    states: BTreeMap<Arc<str>, State>,
    before: &BTreeMap<Arc<str>, Standing>,
    generation: u64,
) -> BTreeMap<Arc<str>, Standing> {
    let standing = |(place, state): (Arc<str>, State)| {
        let old = before.get(&place).filter(|old| state.is_in_force_since(&old.state));
        let since = old.map_or(generation, |old| old.since);
        (place, Standing { state, since })
    };
    states.into_iter().map(standing).collect()
}

fn encode(name: ResourceName, body: ResourceBody) -> Arc<pb::Resource> {
    Arc::new(Resource::new(name, body).to_wire())
}

/// Holds the newest snapshot and wakes those who wait for the next.
pub(crate) struct Publisher {
    sender: watch::Sender<Arc<Snapshot>>,
}

impl Publisher {
    /// Begins with what was read at start.
    pub(crate) fn new(bundle: TrustBundle, outcome: Outcome) -> Self {
        let bundle = encode(ResourceName::TrustBundle, ResourceBody::TrustBundle(bundle));
        let snapshot = Snapshot {
            generation: 1,
            compiled: Arc::new(without_problems(outcome.compiled)),
            problems: outcome.problems,
            objects: outcome.objects,
            standings: standings(outcome.states, &BTreeMap::new(), 1),
            at: Instant::now(),
            bundle,
            cache: Mutex::default(),
        };
        Self { sender: watch::Sender::new(Arc::new(snapshot)) }
    }

    /// Publishes. Only a change of what proxies are told makes a new generation; a change of problems alone does not.
    pub(crate) fn publish(&self, outcome: Outcome) -> Arc<Snapshot> {
        let old = self.current();
        let compiled = without_problems(outcome.compiled);
        let same = *old.compiled == compiled;
        let generation = old.generation + u64::from(!same);
        let next = Arc::new(Snapshot {
            generation,
            compiled: if same { Arc::clone(&old.compiled) } else { Arc::new(compiled) },
            problems: outcome.problems,
            objects: outcome.objects,
            standings: standings(outcome.states, &old.standings, generation),
            at: Instant::now(),
            bundle: old.bundle(),
            cache: if same { Mutex::new(std::mem::take(&mut *old.cache())) } else { Mutex::default() },
        });
        self.sender.send_replace(Arc::clone(&next));
        next
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.sender.borrow())
    }

    /// The newest snapshot and all that follow.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.sender.subscribe()
    }
}
