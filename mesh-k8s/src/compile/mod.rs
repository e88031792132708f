//! Lowers objects to what proxies are told.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::{
    config::{Destination, Endpoint, WorkloadConfig},
    identity::TrustDomain,
    name::{ServicePort, WorkloadRef},
    resource::DestinationKey,
    route::ServiceRoutes,
};

use crate::{object::Located, problem::Problem};

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
    /// Endpoints of each Service port.
    pub endpoints: BTreeMap<ServicePort, Vec<Endpoint>>,
    /// Namespace and name of every ServiceAccount, also of those that only Workloads name.
    pub service_accounts: BTreeSet<(String, String)>,
    /// What is wrong, by file and line.
    pub problems: Vec<Problem>,
}

/// Lowers `objects`. Pure and deterministic: the order of `objects` does not matter.
#[must_use]
pub fn compile(_objects: &[Located], _settings: &Settings) -> Compiled {
    Compiled::default()
}

impl Compiled {
    /// Where a call goes that names its destination by `key` from `client_namespace`, and the Service ports whose
    /// endpoints that answer refers to.
    #[must_use]
    pub fn destination(
        &self,
        _key: &DestinationKey,
        _client_namespace: &str,
    ) -> (Destination, Vec<ServicePort>) {
        (Destination::Passthrough, Vec::new())
    }

    /// Endpoints of a Service port, or of the port that stands for one Workload's address in
    /// [`Compiled::destination`]; empty when there are none.
    #[must_use]
    pub fn endpoints_of(&self, port: &ServicePort) -> &[Endpoint] {
        self.endpoints.get(port).map_or(&[], Vec::as_slice)
    }
}
