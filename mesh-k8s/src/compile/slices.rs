//! What EndpointSlices say stands behind a Service's ports.
//!
//! Whether an endpoint is in the mesh, its pod decides. *Invariant:* as long as that pod is not known, or has a proxy but
//! cannot be called, the endpoint is left out: never is it taken for one outside of the mesh, and called in plaintext.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_core::{
    addr::EndpointAddr,
    config::Endpoint,
    name::{ServicePort, WorkloadRef},
    ports,
    protocol::{Protocol, ProxyProtocol},
};

use crate::{
    compile::{
        MAX_ENDPOINTS,
        endpoints::{SelectedPort, SelectedWorkload},
        index::{Index, Key},
    },
    object::{
        EndpointOfSlice, EndpointSlice, Membership, PortOfService, PortOfSlice, PortOfWorkload, Service,
    },
};

/// The pods in the mesh, by number of their Workload.
pub(crate) struct Slices<'a> {
    by_name: HashMap<Key<'a>, usize>,
    by_address: HashMap<IpAddr, usize>,
}

/// What stands behind an endpoint.
enum Behind {
    /// The Workload of that number.
    Inside(usize),
    /// Something that has no proxy.
    Outside,
    /// That is not known, or it cannot be called.
    Unknown,
}

impl<'a> Slices<'a> {
    /// Looks up the pods among `workloads`, and gives them the zones that only EndpointSlices know.
    pub(crate) fn new(index: &Index<'a>, workloads: &mut [SelectedWorkload<'a>]) -> Self {
        let mut slices = Self { by_name: HashMap::new(), by_address: HashMap::new() };
        for (number, workload) in workloads.iter().enumerate() {
            let key = workload.item.object.name.key();
            let pod = index.pods.get(&key).filter(|_| workload.item.is_pod());
            if let Some(pod) = pod {
                slices.by_name.insert(key, number);
                slices.by_address.extend(pod.addresses.iter().map(|address| (*address, number)));
            }
        }
        for slice in index.slices.values().flatten() {
            for endpoint in slice.endpoints.iter().filter(|endpoint| !endpoint.zone.is_empty()) {
                let Some(pod) = &endpoint.pod else { continue };
                let number = slices.by_name.get(&(&*slice.name.namespace, &**pod));
                if let Some(workload) = number.and_then(|number| workloads.get_mut(*number))
                    && workload.zone.is_empty()
                {
                    workload.zone = Arc::clone(&endpoint.zone);
                }
            }
        }
        slices
    }

    /// The endpoints of a Service's port: those that are ready, or else those that still serve.
    pub(crate) fn endpoints(
        &self,
        index: &Index<'a>,
        service: &Service,
        port: &PortOfService,
        workloads: &mut [SelectedWorkload<'a>],
    ) -> Vec<Endpoint> {
        let Some(slices) = index.slices.get(&service.name.key()) else { return Vec::new() };
        let mut all: Vec<(&EndpointSlice, &PortOfSlice, &EndpointOfSlice)> = Vec::new();
        for slice in slices {
            let found = slice.ports.iter().find(|found| *found.name == *port.name);
            all.extend(
                found.into_iter().flat_map(|found| slice.endpoints.iter().map(move |e| (*slice, found, e))),
            );
        }
        let any_ready = all.iter().any(|(.., endpoint)| endpoint.ready);
        all.retain(|(.., endpoint)| if any_ready { endpoint.ready } else { endpoint.serving });
        // Neither the order of slices nor that in them means anything.
        all.sort_by_key(|(_, at, endpoint)| (endpoint.address, at.port));
        let name = service.port_name(port.port);
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for (slice, at, endpoint) in all {
            // Of a pod with addresses of both families the first one: it is one endpoint.
            let once = match &endpoint.pod {
                Some(pod) => seen.insert((Some(Arc::clone(pod)), None, at.port)),
                None => seen.insert((None, Some(endpoint.address), at.port)),
            };
            if once && found.len() < MAX_ENDPOINTS {
                let protocol = if at.protocol == Protocol::Undeclared { port.protocol } else { at.protocol };
                found.extend(self.endpoint(index, slice, (at, protocol), endpoint, &name, workloads));
            }
        }
        found
    }

    fn endpoint(
        &self,
        index: &Index<'a>,
        slice: &EndpointSlice,
        (at, protocol): (&PortOfSlice, Protocol),
        endpoint: &EndpointOfSlice,
        service: &ServicePort,
        workloads: &mut [SelectedWorkload<'a>],
    ) -> Option<Endpoint> {
        let workload = match self.behind(index, slice, endpoint) {
            // The proxy's own port of health and metrics is open to all, as it is (see `mesh-proxy init`).
            Behind::Inside(_) if at.port == ports::HEALTH => None,
            Behind::Inside(_) if matches!(at.port, ports::INBOUND | ports::OUTBOUND | ports::ADMIN) => {
                return None;
            }
            Behind::Inside(number) => Some(workloads.get_mut(number)?),
            Behind::Outside => None,
            Behind::Unknown => return None,
        };
        let address = EndpointAddr(SocketAddr::new(endpoint.address, at.port));
        let Some(workload) = workload else {
            let name = endpoint.pod.as_ref().unwrap_or(&service.name);
            let reference = WorkloadRef { namespace: Arc::clone(&service.namespace), name: Arc::clone(name) };
            let zone = Arc::clone(&endpoint.zone);
            return Some(Endpoint { address, identity: None, workload: reference, protocol, zone });
        };
        let port = workload.port_at(at)?;
        let declared = if port.port.protocol == Protocol::Undeclared { protocol } else { port.port.protocol };
        if !port.lead(service, declared) {
            return None;
        }
        Some(workload.endpoint_at(address, declared))
    }

    fn behind(&self, index: &Index<'a>, slice: &EndpointSlice, endpoint: &EndpointOfSlice) -> Behind {
        let Some(name) = &endpoint.pod else {
            return self.by_address.get(&endpoint.address).map_or(Behind::Outside, |n| Behind::Inside(*n));
        };
        let key: Key<'_> = (&slice.name.namespace, name);
        // The address of a pod that was replaced by another of its name is not that one's.
        let Some(pod) = index.pods.get(&key).filter(|pod| pod.addresses.contains(&endpoint.address)) else {
            return Behind::Unknown;
        };
        match &pod.mesh {
            Membership::Outside => Behind::Outside,
            Membership::Ended => Behind::Unknown,
            Membership::Inside(_) => self.by_name.get(&key).map_or(Behind::Unknown, |n| Behind::Inside(*n)),
        }
    }
}

impl<'a> SelectedWorkload<'a> {
    /// The port of that number; a pod need not declare the ports that it serves.
    fn port_at(&mut self, at: &PortOfSlice) -> Option<&mut SelectedPort<'a>> {
        let known = self.ports.iter().position(|port| port.port.port == at.port);
        let slot = known.unwrap_or(self.ports.len());
        if known.is_none() {
            let port = PortOfWorkload {
                name: String::new(),
                port: at.port,
                protocol: Protocol::Undeclared,
                app_address: None,
                proxy_protocol: ProxyProtocol::default(),
                line: 0,
            };
            let protocol = Protocol::Undeclared;
            self.ports.push(SelectedPort { port: Cow::Owned(port), services: Vec::new(), protocol });
        }
        self.ports.get_mut(slot)
    }
}
