//! What one proxy is to hold, compared with what it holds. Pure: a snapshot goes in, changes come out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use mesh_core::{
    name::{ServicePort, WorkloadRef},
    resource::{DestinationKey, ResourceName},
};
use mesh_proto::discovery::v1 as pb;

use crate::publish::Snapshot;

/// Size of a response at which the next resource goes to another, in bytes.
const RESPONSE_BYTES: usize = 512 * 1024;

/// The version of something that the proxy may have dropped: equal to none, so that it is sent again.
const FORGOTTEN: &str = "";

/// Subscriptions of a proxy and what it holds.
pub(super) struct Closure {
    workload: WorkloadRef,
    subscriptions: BTreeSet<DestinationKey>,
    /// Versions by resource name, as last sent.
    held: HashMap<String, String>,
}

/// What is to be sent.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Delta {
    /// Changed resources: endpoints before the destinations that name them.
    pub(super) upserts: Vec<Arc<pb::Resource>>,
    /// Resources that are no longer wanted; only there when nothing is left to upsert.
    pub(super) removed: Vec<String>,
}

impl Closure {
    /// A proxy that holds `known` (name and version) from an earlier stream.
    pub(super) fn new(workload: WorkloadRef, known: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { workload, subscriptions: BTreeSet::new(), held: known.into_iter().collect() }
    }

    pub(super) fn subscriptions(&self) -> impl Iterator<Item = String> {
        self.subscriptions.iter().map(ToString::to_string)
    }

    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    pub(super) fn subscribe(&mut self, key: DestinationKey) {
        self.subscriptions.insert(key);
    }

    /// Ends subscriptions. The proxy may have dropped them and their endpoints already, so these count as forgotten.
    pub(super) fn unsubscribe(
        &mut self,
        keys: impl IntoIterator<Item = DestinationKey>,
        snapshot: &Snapshot,
    ) {
        for key in keys {
            if self.subscriptions.remove(&key)
                && let Some(version) = self.held.get_mut(&ResourceName::Destination(key).to_string())
            {
                FORGOTTEN.clone_into(version);
            }
        }
        let wanted = self.names(snapshot);
        for (name, version) in &mut self.held {
            if name.starts_with("endpoints/") && !wanted.contains(name) {
                FORGOTTEN.clone_into(version);
            }
        }
    }

    /// Names of all that the proxy is to hold.
    pub(super) fn names(&self, snapshot: &Snapshot) -> HashSet<String> {
        self.resources(snapshot).iter().map(|resource| resource.name.clone()).collect()
    }

    /// What is to be sent next; remembers it as held. Removals come alone, and only when `may_remove`.
    pub(super) fn next(&mut self, snapshot: &Snapshot, may_remove: bool) -> Delta {
        let wanted = self.resources(snapshot);
        let mut delta = Delta::default();
        let mut bytes = 0;
        for resource in &wanted {
            if self.held.get(&resource.name).is_some_and(|held| *held == resource.version) {
                continue;
            }
            let size = prost::Message::encoded_len(&**resource);
            if bytes > 0 && bytes + size > RESPONSE_BYTES {
                break;
            }
            bytes += size;
            self.held.insert(resource.name.clone(), resource.version.clone());
            delta.upserts.push(Arc::clone(resource));
        }
        if delta.upserts.is_empty() && may_remove {
            let names: HashSet<&str> = wanted.iter().map(|resource| resource.name.as_str()).collect();
            delta.removed = self.held.keys().filter(|name| !names.contains(name.as_str())).cloned().collect();
            delta.removed.sort();
            for name in &delta.removed {
                self.held.remove(name);
            }
        }
        delta
    }

    /// All that the proxy is to hold, in the order in which it is sent.
    fn resources(&self, snapshot: &Snapshot) -> Vec<Arc<pb::Resource>> {
        let mut endpoints: BTreeMap<ServicePort, Arc<pb::Resource>> = BTreeMap::new();
        let mut destinations = Vec::with_capacity(self.subscriptions.len());
        for key in &self.subscriptions {
            let destination = snapshot.destination(&self.workload.namespace, key);
            for port in &destination.ports {
                if !endpoints.contains_key(port) {
                    endpoints.insert(port.clone(), snapshot.endpoints(port));
                }
            }
            destinations.push(Arc::clone(&destination.resource));
        }
        let mut all = vec![snapshot.bundle()];
        all.extend(snapshot.workload(&self.workload));
        all.extend(endpoints.into_values());
        all.extend(destinations);
        all
    }
}

impl Delta {
    pub(super) fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removed.is_empty()
    }
}
