//! What Kubernetes itself knows of running instances: pods, and the slices of endpoints that it makes of them.

use std::{net::IpAddr, sync::Arc};

use mesh_core::protocol::Protocol;

use super::{Name, Workload};

/// `v1 Pod`, as far as the mesh needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: Name,
    /// Its uid: a pod of the same name that comes later has another. Empty: it is not known.
    pub uid: Arc<str>,
    /// When it was made, in UTC as in `2026-01-31T12:00:00Z`: the later is the greater. Empty: it is not known.
    pub created: Box<str>,
    /// Its addresses, of which the first is the one that peers dial; none: it has none yet, or no more.
    pub addresses: Vec<IpAddr>,
    /// Whether it is in the mesh.
    pub mesh: Membership,
    /// It runs on its host's network, where it gets no proxy, and has none.
    pub on_host: bool,
    /// Whether it wants a proxy, if it says so itself (`meshctl.dev/inject`).
    pub inject: Option<bool>,
}

/// Whether a pod has a proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It has none: it is called in plaintext.
    Outside,
    /// It has one, but has ended.
    Ended,
    /// It has one; it is called when it has an address.
    Inside(Box<Workload>),
}

/// `discovery.k8s.io/v1 EndpointSlice` of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its name.
    pub name: Name,
    /// The Service, of the same namespace.
    pub service: Arc<str>,
    /// Its TCP ports, which all of its endpoints have.
    pub ports: Vec<PortOfSlice>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointOfSlice>,
}

/// One port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOfSlice {
    /// Name of the Service's port; may be empty.
    pub name: Box<str>,
    /// The number at the endpoints; never 0.
    pub port: u16,
    /// What is spoken there, if declared.
    pub protocol: Protocol,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointOfSlice {
    /// Where it is.
    pub address: IpAddr,
    /// It takes calls.
    pub ready: bool,
    /// It still answers, though it may be ending.
    pub serving: bool,
    /// The pod behind it, of the same namespace.
    pub pod: Option<Arc<str>>,
    /// Its zone; may be empty.
    pub zone: Arc<str>,
}
