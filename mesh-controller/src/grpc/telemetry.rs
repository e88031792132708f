//! `telemetry.v1`: takes what proxies counted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::edge::{Direction, EdgeKey, EdgeTotals};
use mesh_proto::{
    convert::Wire,
    telemetry::v1::{ReportRequest, ReportResponse, telemetry_server::Telemetry},
};
use tonic::{Request, Response, Status};

use super::{
    Shared, check_runs_under,
    peer::{Peer, PeerIdentity},
    workload_of,
};
use crate::edges::Report;

/// How often proxies report.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest name of a process.
const MAX_INSTANCE_BYTES: usize = 128;

/// The service.
pub(super) struct TelemetryService {
    shared: Arc<Shared>,
}

impl TelemetryService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl Telemetry for TelemetryService {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.identity.clone());
        let peer = peer.ok_or_else(|| Status::unauthenticated("this call needs a client certificate"))?;
        let request = request.into_inner();
        let workload = workload_of(request.workload.as_ref())?;
        check_runs_under(&self.shared.publisher.current(), &workload, &peer)?;
        if request.instance.is_empty() || request.instance.len() > MAX_INSTANCE_BYTES {
            return Err(Status::invalid_argument(format!(
                "instance: expected a name of 1 to {MAX_INSTANCE_BYTES} bytes"
            )));
        }
        let edges = request
            .edges
            .iter()
            .enumerate()
            .map(|(i, edge)| {
                checked(edge, &peer).map_err(|e| Status::invalid_argument(format!("edges[{i}].{e}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let report = Report {
            instance: request.instance,
            uptime: Duration::from_millis(request.uptime_millis),
            edges,
        };
        let dropped = self.shared.edges.take(&workload, report, Instant::now());
        self.shared.metrics.edges_dropped.inc_by(dropped as u64);
        self.shared.proxies.reported(&workload);
        Ok(Response::new(ReportResponse { next_after_millis: INTERVAL.as_millis() as u64 }))
    }
}

/// Reads an edge. A proxy speaks for its own end only.
fn checked(
    edge: &mesh_proto::telemetry::v1::EdgeSummary,
    peer: &PeerIdentity,
) -> Result<(EdgeKey, EdgeTotals), String> {
    let (key, totals) = <(EdgeKey, EdgeTotals)>::from_wire(edge).map_err(|e| e.to_string())?;
    let (own, field) = match key.direction {
        Direction::Outbound => (&key.source, "key.source"),
        Direction::Inbound => (&key.destination, "key.destination"),
    };
    match own {
        Some(own) if *own != peer.id => {
            Err(format!("{field}: {own} is refused, expected the reporter's own identity {}", peer.id))
        }
        _ => Ok((key, totals)),
    }
}
