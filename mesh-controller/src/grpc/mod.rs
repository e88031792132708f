//! The control port: TLS 1.3, who calls, and the three services of proxies.
//!
//! *Invariant:* [`serve`] asks [`peer::admit`] before any service sees a call: whatever is not `identity.v1` Certify
//! needs a client certificate, and nobody is served as the controller.

mod discovery;
mod identity;
mod peer;
mod proofs;
mod serve;
mod telemetry;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mesh_core::{identity::TrustDomain, name::WorkloadRef};
use mesh_proto::{common::v1 as common, convert::Wire};
use tonic::Status;

use self::peer::PeerIdentity;
pub(crate) use self::proofs::Proofs;
pub(crate) use self::serve::Server;
pub use self::tls::TlsError;
use crate::{
    ca::Ca,
    edges::Edges,
    kubernetes::Bundles,
    metrics::Metrics,
    publish::{Proxies, Publisher, Snapshot},
};

/// HTTP/2 as the controller speaks it everywhere: bounded, and with pings that find peers that are gone.
pub(crate) fn http2_server(max_streams: u32) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(max_streams)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

/// What all services work on.
pub(crate) struct Shared {
    /// Trust domain of the mesh.
    pub(crate) trust_domain: TrustDomain,
    /// Issues certificates.
    pub(crate) ca: Arc<Ca>,
    /// Prove service accounts.
    pub(crate) proofs: Proofs,
    /// Hand out the trust bundle in a cluster; None: there is none.
    pub(crate) bundles: Option<Arc<Bundles>>,
    /// The configuration.
    pub(crate) publisher: Publisher,
    /// What is known of proxies.
    pub(crate) proxies: Arc<Proxies>,
    /// What proxies reported.
    pub(crate) edges: Edges,
    /// Counters.
    pub(crate) metrics: Metrics,
    /// When the controller started.
    pub(crate) started: Instant,
    /// Where configuration comes from, for people.
    pub(crate) source: String,
}

/// Reads the workload of a message.
fn workload_of(message: Option<&common::WorkloadRef>) -> Result<WorkloadRef, Status> {
    let message = message
        .ok_or_else(|| Status::invalid_argument("workload: nothing is refused, expected a workload"))?;
    WorkloadRef::from_wire(message).map_err(|e| Status::invalid_argument(format!("workload: {e}")))
}

/// Checks that a workload exists and runs under the caller's identity.
fn check_runs_under(snapshot: &Snapshot, workload: &WorkloadRef, peer: &PeerIdentity) -> Result<(), Status> {
    let Some(config) = snapshot.compiled.workloads.get(workload) else {
        return Err(Status::permission_denied(format!(
            "there is no Workload {workload}: add it to the source, or correct the proxy's --workload"
        )));
    };
    if config.identity != peer.id {
        return Err(Status::permission_denied(format!(
            "Workload {workload} runs as {}, the certificate is for {}: \
             restart the proxy with the token of the Workload's service account",
            config.identity, peer.id
        )));
    }
    Ok(())
}
