//! Edges: who calls whom, and what was counted there.

use std::collections::BTreeMap;

use crate::{
    histogram::Histogram,
    identity::SpiffeId,
    name::{ObjectRef, ServicePort, WorkloadRef},
    protocol::Protocol,
    reason::Reason,
};

/// On which side of a call the counting proxy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Beside the caller.
    Outbound,
    /// Beside the callee.
    Inbound,
}

impl Direction {
    /// Name in metrics, logs and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Which edge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeKey {
    /// The counting proxy's side.
    pub direction: Direction,
    /// The caller's identity; None: it has none.
    pub source: Option<SpiffeId>,
    /// The callee's identity; None: it has none, or none was reached.
    pub destination: Option<SpiffeId>,
    /// The Service port that was addressed.
    pub service: Option<ServicePort>,
    /// The Service port that the route chose (outbound).
    pub backend: Option<ServicePort>,
    /// The workload that was reached (outbound) or that serves (inbound).
    pub destination_workload: Option<WorkloadRef>,
    /// The object whose rule routed (outbound) or decided (inbound) the call.
    pub rule: Option<ObjectRef>,
    /// What the call speaks.
    pub protocol: Protocol,
    /// Mesh TLS with both identities verified.
    pub secured: bool,
}

impl EdgeKey {
    /// The edge of which nothing is known but the side. Proxies and controller count on it what exceeds their limits.
    #[must_use]
    pub fn unknown(direction: Direction) -> Self {
        Self {
            direction,
            source: None,
            destination: None,
            service: None,
            backend: None,
            destination_workload: None,
            rule: None,
            protocol: Protocol::Undeclared,
            secured: false,
        }
    }
}

/// Totals of one edge. For opaque TCP a connection counts as one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeTotals {
    /// Requests that ended, whatever the outcome.
    pub requests: u64,
    /// Of these: those that failed (HTTP 5xx, a gRPC status that is the server's fault, reset, or made by a proxy).
    pub failures: u64,
    /// Of these: those that a proxy answered or ended itself.
    pub reasons: BTreeMap<Reason, u64>,
    /// Time from the request's head to the response's last byte (TCP: connection time).
    pub latency: Histogram,
    /// Bytes from caller to callee.
    pub request_bytes: u64,
    /// Bytes from callee to caller.
    pub response_bytes: u64,
    /// Connections opened.
    pub connections: u64,
    /// Responses by class: 1xx first, 5xx last.
    pub status_classes: [u64; 5],
}

/// True when a gRPC status counts as the server's failure (UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE,
/// DATA_LOSS, and UNIMPLEMENTED is the caller's).
#[must_use]
pub fn grpc_status_is_failure(status: u16) -> bool {
    matches!(status, 2 | 4 | 13 | 14 | 15)
}
