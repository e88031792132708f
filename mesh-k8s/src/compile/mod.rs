//! Lowers objects to what proxies are told.
//!
//! ```text
//! Index (first of each name) ─▶ endpoints (Services select Workloads) ─▶ traffic (what holds for a Service port)
//!                            ├▶ routes, splits ─▶ services
//!                            └▶ policy (who may call a ServiceAccount) ─▶ workloads
//! ```

mod addresses;
mod endpoints;
mod external;
mod filters;
mod index;
mod lookup;
mod pods;
mod policy;
mod routes;
mod slices;
mod splits;
#[cfg(test)]
mod tests;
mod traffic;
mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use mesh_core::{
    config::{Endpoint, WorkloadConfig},
    identity::TrustDomain,
    name::{ObjectRef, ServicePort, WorkloadRef},
    route::ServiceRoutes,
};

pub use self::external::Resolved;
use crate::{
    compile::{endpoints::Selected, index::Index, lookup::Addressed, traffic::Policies},
    object::Located,
    problem::{Place, Problem},
};

/// Longest list that proxies are told, but for endpoints.
const MAX_ITEMS: usize = 4096;
/// Most endpoints of one Service port.
const MAX_ENDPOINTS: usize = 10_000;

/// What the whole mesh has in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The trust domain of all identities.
    pub trust_domain: TrustDomain,
    /// The cluster's DNS domain, as in `catalog.shop.svc.cluster.local`.
    pub cluster_domain: String,
}

/// All that the mesh knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// What the proxy of each workload is told about it.
    pub workloads: BTreeMap<WorkloadRef, WorkloadConfig>,
    /// Labels of each workload.
    pub labels: BTreeMap<WorkloadRef, BTreeMap<String, String>>,
    /// Routes of each Service port.
    pub services: BTreeMap<ServicePort, ServiceRoutes>,
    /// Endpoints of each Service port, and of the ports that stand for the address of one workload (see
    /// [`Compiled::destination`]).
    pub endpoints: BTreeMap<ServicePort, Vec<Endpoint>>,
    /// Namespace and name of every ServiceAccount, also of those that only Workloads name.
    pub service_accounts: BTreeSet<(String, String)>,
    /// Namespaces whose pods have proxies, or get some.
    pub meshed: BTreeSet<Arc<str>>,
    /// The uid of each workload that is a pod.
    pub pods: BTreeMap<WorkloadRef, Arc<str>>,
    /// What is wrong, by file and line.
    pub problems: Vec<Problem>,
    /// The objects that `problems` refuse, each with the place where it begins: of two objects of one name only the
    /// one that is meant.
    pub refused: BTreeSet<(ObjectRef, Place)>,
    /// Hosts of ExternalServices whose addresses are to be looked up.
    pub to_resolve: BTreeSet<Arc<str>>,
    /// Namespace and name of the ExternalService of each host.
    hosts: BTreeMap<Arc<str>, (Arc<str>, Arc<str>)>,
    cluster_domain: String,
    addresses: BTreeMap<SocketAddr, Addressed>,
}

/// Lowers `objects`. Pure and deterministic: the order of `objects` does not matter, and it never fails.
///
/// Of two objects that claim the same, the one of the better [`Standing`](crate::Standing) applies, then the first by
/// file and line. A reference to what does not exist is reported and refuses only what needs it. A ServiceAccount that a
/// refused TrafficTarget was to protect is closed.
#[must_use]
pub fn compile(objects: &[Located], settings: &Settings) -> Compiled {
    compile_with(objects, settings, &Resolved::new())
}

/// As [`compile`], with the addresses of hosts outside of the mesh (see [`Compiled::to_resolve`]).
#[must_use]
pub fn compile_with(objects: &[Located], settings: &Settings, resolved: &Resolved) -> Compiled {
    let mut index = Index::new(objects);
    let mut selected = Selected::new(&mut index, settings);
    external::endpoints(&index, &mut selected, resolved);
    let policies = Policies::new(&mut index, &selected);
    let services = routes::lower(&mut index, &selected, &policies);
    let workloads = workloads::lower(&mut index, &selected, &policies, settings);
    let mut compiled = Compiled {
        service_accounts: index
            .accounts
            .iter()
            .map(|(ns, name)| ((*ns).to_owned(), (*name).to_owned()))
            .collect(),
        labels: selected
            .workloads
            .iter()
            .map(|w| (w.reference.clone(), w.item.object.labels.clone()))
            .collect(),
        meshed: pods::namespaces(&index),
        pods: pods::uids(&index),
        workloads,
        services,
        endpoints: selected.endpoints,
        problems: Vec::new(),
        refused: BTreeSet::new(),
        to_resolve: external::to_resolve(&index),
        hosts: hosts(&index),
        cluster_domain: settings.cluster_domain.clone(),
        addresses: BTreeMap::new(),
    };
    compiled.index_addresses(&mut index, &selected.workloads, resolved);
    compiled.report_unknown_upstreams(&mut index);
    (compiled.problems, compiled.refused) = index.problems.into_sorted();
    compiled
}

fn hosts(index: &Index<'_>) -> BTreeMap<Arc<str>, (Arc<str>, Arc<str>)> {
    let host = |(host, external): (&&str, &index::Item<'_, crate::object::ExternalService>)| {
        let name = &external.object.service.name;
        (Arc::from(*host), (Arc::clone(&name.namespace), Arc::clone(&name.name)))
    };
    index.hosts.iter().map(host).collect()
}
