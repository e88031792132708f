//! What a proxy is told: the model behind the resources of [`crate::resource`].

use std::{net::IpAddr, sync::Arc};

use crate::{
    addr::{AppAddr, EndpointAddr},
    identity::{SpiffeId, TrustDomain},
    name::{Host, ServicePort, WorkloadRef},
    policy::PolicySet,
    protocol::{Protocol, ProxyProtocol},
    route::ServiceRoutes,
    settings::InboundLimits,
};

/// What peers' certificates are verified against (`trust-bundle`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// Trust anchors, DER; never empty.
    pub roots: Vec<Vec<u8>>,
}

/// All that a proxy must know about the workload that it runs beside (`workload`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadConfig {
    /// The workload.
    pub workload: WorkloadRef,
    /// Its SPIFFE ID.
    pub identity: SpiffeId,
    /// Its IP address: where inbound listeners stand in explicit mode. None: it has none yet, as a pod whose proxy starts
    /// before its address is known.
    pub address: Option<IpAddr>,
    /// Its zone, for locality; may be empty.
    pub zone: Arc<str>,
    /// Ports on which it serves; each port number once.
    pub inbound: Vec<InboundPort>,
    /// TCP upstreams for which explicit mode opens local listeners; each listen port once.
    pub upstreams: Vec<Upstream>,
    /// Who may call it.
    pub policy: PolicySet,
}

/// One port that a workload serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundPort {
    /// The port that peers dial.
    pub port: u16,
    /// Its name; may be empty.
    pub name: String,
    /// What the application speaks there.
    pub protocol: Protocol,
    /// Where the application listens; None: at the original destination address.
    pub app_address: Option<AppAddr>,
    /// Service ports that lead here.
    pub services: Vec<ServicePort>,
    /// What is let in at a time, besides policy.
    pub limits: InboundLimits,
    /// Headers of the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
}

impl InboundPort {
    /// A port without a name, with the defaults.
    #[must_use]
    pub fn new(port: u16, protocol: Protocol) -> Self {
        let limits = InboundLimits::default();
        let proxy_protocol = ProxyProtocol::default();
        let (name, services) = (String::new(), Vec::new());
        Self { port, name, protocol, app_address: None, services, limits, proxy_protocol }
    }
}

/// One TCP upstream that explicit mode listens for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Port on the workload's address where the application connects.
    pub listen_port: u16,
    /// Host and port as the application would write them; the port is always there.
    pub host: Host,
}

/// Where a call goes (`destination/…`): three different answers. "Could not ask" is none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A Service of the mesh.
    Service(ServiceRoutes),
    /// Known not to be in the mesh: passes through untouched.
    Passthrough,
    /// A host that names nothing; says what was looked for and what exists.
    Unknown(String),
}

/// One endpoint of a Service port (`endpoints/…`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where to connect.
    pub address: EndpointAddr,
    /// The identity that must be met there over mesh TLS; None: not in the mesh, plaintext.
    pub identity: Option<SpiffeId>,
    /// The workload behind it.
    pub workload: WorkloadRef,
    /// What the application speaks there.
    pub protocol: Protocol,
    /// Zone, for locality; may be empty.
    pub zone: Arc<str>,
}
