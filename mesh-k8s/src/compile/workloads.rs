//! What the proxy of each workload is told about it.

use std::collections::BTreeMap;

use mesh_core::{
    config::{InboundPort, Upstream, WorkloadConfig},
    name::WorkloadRef,
    settings::InboundLimits,
};

use crate::compile::{
    Settings,
    endpoints::{Selected, SelectedPort, SelectedWorkload},
    index::Index,
    policy,
    traffic::Policies,
};

pub(crate) fn lower(
    index: &mut Index<'_>,
    selected: &Selected<'_>,
    policies: &Policies,
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
            inbound: inbound(index, workload, policies),
            upstreams: object.upstreams.iter().map(upstream).collect(),
            policy: policy::of(index, &grants, object),
        };
        found.insert(workload.reference.clone(), config);
    }
    found
}

fn inbound(index: &mut Index<'_>, workload: &SelectedWorkload<'_>, policies: &Policies) -> Vec<InboundPort> {
    let mut found = Vec::with_capacity(workload.ports.len());
    for (at, SelectedPort { port, services, protocol }) in workload.ports.iter().enumerate() {
        let (limits, left_out) = policies.limits(services);
        if left_out > 0 {
            let message = format!(
                "the TrafficPolicies of its Services have more than {} rateLimits: {left_out} have no effect",
                InboundLimits::MAX_RATES
            );
            let field = format!("spec.ports[{at}]");
            let remedy = "name fewer rateLimits, or fewer Services";
            index.problems.warn(workload.item.located, port.line, &field, message, remedy);
        }
        found.push(InboundPort {
            port: port.port,
            name: port.name.clone(),
            protocol: *protocol,
            app_address: port.app_address,
            services: services.clone(),
            limits,
            proxy_protocol: port.proxy_protocol,
        });
    }
    found
}
