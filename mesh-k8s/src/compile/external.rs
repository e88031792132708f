//! ExternalServices: their endpoints, and the hosts and addresses that lead to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use mesh_core::{
    addr::EndpointAddr,
    config::Endpoint,
    name::{ServicePort, WorkloadRef},
};

use crate::{
    compile::{endpoints::Selected, index::Index},
    object::{ExternalService, PortName},
};

/// Addresses of hosts outside of the mesh, as they were resolved last.
pub type Resolved = BTreeMap<Arc<str>, Vec<IpAddr>>;

/// Gives the ports of ExternalServices their endpoints: plaintext, without identity.
pub(crate) fn endpoints(index: &Index<'_>, selected: &mut Selected<'_>, resolved: &Resolved) {
    for external in index.externals.values() {
        let name = &external.object.service.name;
        let workload = WorkloadRef { namespace: Arc::clone(&name.namespace), name: Arc::clone(&name.name) };
        let addresses = addresses(external.object, resolved);
        for port in &external.object.service.ports {
            let PortName::Number(number) = port.target else { continue };
            let endpoint = |ip: &IpAddr| Endpoint {
                address: EndpointAddr(SocketAddr::new(*ip, number)),
                identity: None,
                workload: workload.clone(),
                protocol: port.protocol,
                zone: "".into(),
            };
            let found = addresses.iter().map(endpoint).collect();
            selected.endpoints.insert(external.object.service.port_name(port.port), found);
        }
    }
}

fn addresses(external: &ExternalService, resolved: &Resolved) -> BTreeSet<IpAddr> {
    if !external.addresses.is_empty() {
        return external.addresses.iter().copied().collect();
    }
    external.hosts.iter().filter_map(|host| resolved.get(&host.value)).flatten().copied().collect()
}

/// The Service port at each address outside of the mesh; where several share one, the first by name.
pub(crate) fn by_address(index: &Index<'_>, resolved: &Resolved) -> BTreeMap<SocketAddr, ServicePort> {
    let mut found = BTreeMap::new();
    for external in index.externals.values() {
        for ip in addresses(external.object, resolved) {
            for port in &external.object.service.ports {
                let address = SocketAddr::new(ip.to_canonical(), port.port);
                found.entry(address).or_insert_with(|| external.object.service.port_name(port.port));
            }
        }
    }
    found
}

/// Hosts that must be resolved, for no addresses are given.
pub(crate) fn to_resolve(index: &Index<'_>) -> BTreeSet<Arc<str>> {
    let open = index.externals.values().filter(|external| external.object.addresses.is_empty());
    open.flat_map(|external| external.object.hosts.iter().map(|host| Arc::clone(&host.value))).collect()
}
