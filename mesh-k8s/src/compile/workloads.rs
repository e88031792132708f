//! What the proxy of each workload is told about it.

use std::collections::BTreeMap;

use mesh_core::{
    config::{InboundPort, Upstream, WorkloadConfig},
    name::WorkloadRef,
    settings::InboundLimits,
};

use crate::compile::{
    Settings,
    endpoints::{Selected, SelectedWorkload},
    index::Index,
    policy,
};

pub(crate) fn lower(
    index: &mut Index<'_>,
    selected: &Selected<'_>,
    settings: &Settings,
) -> BTreeMap<WorkloadRef, WorkloadConfig> {
    let grants = policy::grants(index, settings);
    let mut found = BTreeMap::new();
    for workload in &selected.workloads {
        let object = workload.item.object;
        let upstream = |upstream: &crate::object::UpstreamOfWorkload| Upstream {
            listen_port: upstream.listen_port,
            host: upstream.host.clone(),
        };
        let config = WorkloadConfig {
            workload: workload.reference.clone(),
            identity: workload.identity.clone(),
            address: object.address.value,
            zone: workload.zone(),
            inbound: inbound(workload),
            upstreams: object.upstreams.iter().map(upstream).collect(),
            policy: policy::of(index, &grants, object),
        };
        found.insert(workload.reference.clone(), config);
    }
    found
}

fn inbound(workload: &SelectedWorkload<'_>) -> Vec<InboundPort> {
    let ports = workload.item.object.ports.iter().zip(&workload.ports);
    ports
        .map(|(port, (services, protocol))| InboundPort {
            port: port.port,
            name: port.name.clone(),
            protocol: *protocol,
            app_address: port.app_address,
            services: services.clone(),
            limits: InboundLimits::default(),
        })
        .collect()
}
