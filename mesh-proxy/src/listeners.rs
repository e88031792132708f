//! Listening sockets: bound on the control thread, polled by every worker.

use std::sync::Arc;

use mesh_core::{addr::ListenAddr, config::InboundPort, name::Host};

/// What a listener takes.
pub(crate) enum Role {
    /// HTTP from the application, by Host (explicit mode).
    OutboundHttp,
    /// TCP from the application to one declared upstream (explicit mode).
    OutboundTcp(Host),
    /// Anything from the application, by original destination (transparent mode).
    OutboundTransparent,
    /// Calls to one port of the workload (explicit mode).
    InboundPort(Arc<InboundPort>),
    /// Calls to the workload, by original destination (transparent mode).
    InboundTransparent,
}

/// One listening socket.
pub(crate) struct BoundListener {
    /// What it takes.
    pub role: Role,
    /// Where it stands; the real port.
    pub address: ListenAddr,
    /// The socket, non-blocking. Workers poll clones of it.
    pub socket: std::net::TcpListener,
}

/// All listening sockets. An unchanged one keeps its `Arc`, so that workers keep their accept tasks.
pub(crate) type Listeners = Arc<[Arc<BoundListener>]>;
