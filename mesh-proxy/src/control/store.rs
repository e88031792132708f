//! Resources as received: each response is applied whole, a bad resource keeps its last good version.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use mesh_core::{
    config::{Destination, Endpoint, TrustBundle, WorkloadConfig},
    name::ServicePort,
    resource::{DestinationKey, ResourceName},
};
use mesh_proto::{
    convert::{Resource, ResourceBody, Wire as _},
    discovery::v1::{KnownResource, Rejected, WatchResponse},
};

use super::Resolved;

/// Longest name that is repeated to the controller in a refusal.
const MAX_NAME: usize = 512;

/// What is held.
#[derive(Default)]
pub(super) struct Store {
    versions: HashMap<ResourceName, String>,
    destinations: HashMap<DestinationKey, Destination>,
    endpoints: HashMap<ServicePort, Arc<[Endpoint]>>,
}

/// Takes what lives outside the store; says why not.
pub(super) trait Sink {
    /// Takes the trust anchors.
    fn trust_bundle(&mut self, bundle: TrustBundle) -> Result<(), String>;
    /// Takes the workload's configuration.
    fn workload(&mut self, workload: WorkloadConfig) -> Result<(), String>;
}

/// What a response did.
#[derive(Default)]
pub(super) struct Applied {
    /// Resources that were refused, with reasons.
    pub rejected: Vec<Rejected>,
    /// Destinations of which something changed, the endpoints included.
    pub touched: HashSet<DestinationKey>,
}

impl Store {
    /// Applies one response.
    pub(super) fn apply(&mut self, response: &WatchResponse, sink: &mut impl Sink) -> Applied {
        let mut applied = Applied::default();
        let mut endpoints = HashSet::new();
        for message in &response.upserts {
            let result = Resource::from_wire(message)
                .map_err(|error| error.to_string())
                .and_then(|resource| self.upsert(resource, sink, &mut applied, &mut endpoints));
            if let Err(error) = result {
                applied
                    .rejected
                    .push(Rejected { name: message.name.chars().take(MAX_NAME).collect(), error });
            }
        }
        for name in &response.removed {
            if let Ok(name) = name.parse() {
                self.remove(&name);
            }
        }
        if !endpoints.is_empty() {
            let uses = |destination: &Destination| backends(destination).any(|b| endpoints.contains(b));
            let users = self.destinations.iter().filter(|(_, destination)| uses(destination));
            applied.touched.extend(users.map(|(key, _)| key.clone()));
        }
        self.reject_incomplete(response, &mut applied);
        applied
    }

    fn upsert(
        &mut self,
        resource: Resource,
        sink: &mut impl Sink,
        applied: &mut Applied,
        endpoints: &mut HashSet<ServicePort>,
    ) -> Result<(), String> {
        match (&resource.name, resource.body) {
            (_, ResourceBody::TrustBundle(bundle)) => sink.trust_bundle(bundle)?,
            (_, ResourceBody::Workload(workload)) => sink.workload(workload)?,
            (ResourceName::Destination(key), ResourceBody::Destination(destination)) => {
                self.destinations.insert(key.clone(), destination);
                applied.touched.insert(key.clone());
            }
            (ResourceName::Endpoints(port), ResourceBody::Endpoints(set)) => {
                self.endpoints.insert(port.clone(), set.into());
                endpoints.insert(port.clone());
            }
            _ => return Err("the content is not of the kind that the name says".to_owned()),
        }
        self.versions.insert(resource.name, resource.version);
        Ok(())
    }

    /// The last good configuration of the proxy itself is never taken away.
    fn remove(&mut self, name: &ResourceName) {
        match name {
            ResourceName::TrustBundle | ResourceName::Workload => return,
            ResourceName::Destination(key) => {
                self.destinations.remove(key);
            }
            ResourceName::Endpoints(port) => {
                self.endpoints.remove(port);
            }
        }
        self.versions.remove(name);
    }

    /// Tells the controller about destinations whose endpoints it did not send.
    fn reject_incomplete(&self, response: &WatchResponse, applied: &mut Applied) {
        for message in &response.upserts {
            let Ok(ResourceName::Destination(key)) = message.name.parse() else { continue };
            let Some(destination) = self.destinations.get(&key) else { continue };
            if let Some(missing) = backends(destination).find(|b| !self.endpoints.contains_key(*b)) {
                let error = format!("endpoints/{missing} came neither before nor with it");
                applied.rejected.push(Rejected { name: message.name.clone(), error });
            }
        }
    }

    /// A destination with all its endpoints; None when something is missing.
    pub(super) fn resolve(&self, key: &DestinationKey) -> Option<Resolved> {
        let destination = self.destinations.get(key)?;
        let mut endpoints = HashMap::new();
        for backend in backends(destination) {
            endpoints.insert(backend.clone(), Arc::clone(self.endpoints.get(backend)?));
        }
        Some(Resolved { destination: destination.clone(), endpoints })
    }

    /// Drops what no subscription needs. Only while no stream is open: the controller counts on what it sent.
    pub(super) fn retain(&mut self, subscribed: impl Fn(&DestinationKey) -> bool) {
        self.destinations.retain(|key, _| subscribed(key));
        let needed: HashSet<&ServicePort> = self.destinations.values().flat_map(backends).collect();
        self.endpoints.retain(|port, _| needed.contains(port));
        let Self { versions, destinations, endpoints } = self;
        versions.retain(|name, _| match name {
            ResourceName::TrustBundle | ResourceName::Workload => true,
            ResourceName::Destination(key) => destinations.contains_key(key),
            ResourceName::Endpoints(port) => endpoints.contains_key(port),
        });
    }

    /// What the controller need not send again.
    pub(super) fn known(&self) -> Vec<KnownResource> {
        let known = |(name, version): (&ResourceName, &String)| KnownResource {
            name: name.to_string(),
            version: version.clone(),
        };
        self.versions.iter().map(known).collect()
    }

    /// Number of resources.
    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    /// All names with their versions.
    pub(super) fn versions(&self) -> impl Iterator<Item = (&ResourceName, &str)> {
        self.versions.iter().map(|(name, version)| (name, version.as_str()))
    }

    /// All destinations.
    pub(super) fn destinations(&self) -> impl Iterator<Item = (&DestinationKey, &Destination)> {
        self.destinations.iter()
    }

    /// All endpoint sets.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&ServicePort, &Arc<[Endpoint]>)> {
        self.endpoints.iter()
    }
}

/// The Service ports that calls to `destination`, or copies of them, can reach.
fn backends(destination: &Destination) -> impl Iterator<Item = &ServicePort> {
    let routes = match destination {
        Destination::Service(routes) => Some(routes),
        Destination::Passthrough | Destination::Unknown(_) => None,
    };
    routes.into_iter().flat_map(|routes| routes.needed())
}
