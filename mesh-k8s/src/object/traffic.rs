//! The mesh's own kinds for traffic: TrafficPolicy and ExternalService.

use std::{net::IpAddr, sync::Arc};

use mesh_core::{
    filter::Respond,
    settings::{BackendSettings, CallSettings, InboundLimits},
};

use super::{At, Name, Service};

/// `meshctl.dev/v1alpha1 TrafficPolicy`: how calls to one Service are carried, or how a route answers by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficPolicy {
    /// Its name.
    pub name: Name,
    /// The Service that it is attached to; None: it only answers for routes that name it.
    pub target: Option<TargetOfPolicy>,
    /// For every call to the Service.
    pub calls: CallSettings,
    /// For every backend that leads to the Service.
    pub backends: BackendSettings,
    /// For the ports of workloads that the Service leads to.
    pub limits: InboundLimits,
    /// The answer.
    pub respond: Option<Respond>,
}

/// What a TrafficPolicy is attached to: a Service of its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetOfPolicy {
    /// The Service.
    pub service: Name,
    /// The only port that is meant; None: all ports.
    pub port: Option<u16>,
    /// Its line.
    pub line: u32,
}

/// `meshctl.dev/v1alpha1 ExternalService`: hosts outside of the mesh, called as a Service without identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalService {
    /// As a Service: name and ports; it selects nothing and has no addresses of its own.
    pub service: Service,
    /// Its host names, in lower case; each once.
    pub hosts: Vec<At<Arc<str>>>,
    /// Where it is; empty: where its host names lead to.
    pub addresses: Vec<IpAddr>,
}
