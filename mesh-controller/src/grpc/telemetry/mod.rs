//! `telemetry.v1`: takes what proxies counted.

mod codec;

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request as HttpRequest, Response as HttpResponse};
use hyper::body::Incoming;
use mesh_core::{
    edge::{Direction, EdgeKey, EdgeTotals},
    identity::SpiffeId,
    name::WorkloadRef,
};
use mesh_proto::{
    convert::Wire,
    telemetry::v1::{EdgeSummary, ReportResponse},
};
use tonic::{Request, Response, Status, body::Body, server::Grpc};

use self::codec::{Received, ReportCodec};
use super::{Shared, check_runs_under, peer::Peer, workload_of};
use crate::edges::{Report, Taken};

/// How often proxies report.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest name of a process.
const MAX_INSTANCE_BYTES: usize = 128;
/// Largest report, in bytes: about 1 kB for each of the edges that a proxy keeps apart.
const MAX_REPORT_BYTES: usize = 2 * 1024 * 1024;

/// The service.
#[derive(Clone)]
pub(super) struct TelemetryService {
    shared: Arc<Shared>,
}

impl TelemetryService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Serves one call of Report. The generated server would build every edge of the message before anything counts
    /// them.
    pub(super) async fn serve(
        self,
        request: HttpRequest<Incoming>,
    ) -> Result<HttpResponse<Body>, Infallible> {
        let report = tower::service_fn(move |request| {
            let service = self.clone();
            async move { service.report(request) }
        });
        let mut grpc = Grpc::new(ReportCodec).max_decoding_message_size(MAX_REPORT_BYTES);
        Ok(grpc.unary(report, request).await)
    }

    fn report(&self, request: Request<Received>) -> Result<Response<ReportResponse>, Status> {
        let peer = request.extensions().get::<Peer>().and_then(|peer| peer.identity.clone());
        let peer = peer.ok_or_else(|| Status::unauthenticated("this call needs a client certificate"))?;
        let Received { report: request, left_out } = request.into_inner();
        let workload = workload_of(request.workload.as_ref())?;
        check_runs_under(&self.shared.publisher.current(), &workload, &peer)?;
        let now = Instant::now();
        if !self.shared.edges.admit(&workload, now) {
            return Err(Status::resource_exhausted(format!(
                "Workload {workload} reports too often: report once per {} ms",
                INTERVAL.as_millis()
            )));
        }
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
                checked(edge, &peer.id, &workload)
                    .map_err(|e| Status::invalid_argument(format!("edges[{i}].{e}")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let sent = edges.len();
        let edges: Vec<_> = edges.into_iter().flatten().collect();
        let left_out = left_out + sent - edges.len();
        let report = Report {
            instance: request.instance,
            uptime: Duration::from_millis(request.uptime_millis),
            edges,
        };
        match self.shared.edges.take(&workload, report, now) {
            Taken::All { overflowed } => {
                self.shared.metrics.edges_dropped.inc_by((left_out + overflowed) as u64);
            }
            Taken::Stale => {}
            Taken::TooManyProcesses => {
                return Err(Status::resource_exhausted(format!(
                    "Workload {workload} has too many reporting processes: does more than one proxy run as it?"
                )));
            }
        }
        self.shared.proxies.reported(&workload);
        Ok(Response::new(ReportResponse { next_after_millis: INTERVAL.as_millis() as u64 }))
    }
}

/// Reads an edge. A proxy speaks for its own end only; None: what it counted before it knew its own identity, which
/// cannot be told from what others counted.
fn checked(
    edge: &EdgeSummary,
    reporter: &SpiffeId,
    workload: &WorkloadRef,
) -> Result<Option<(EdgeKey, EdgeTotals)>, String> {
    let (key, totals) = <(EdgeKey, EdgeTotals)>::from_wire(edge).map_err(|e| e.to_string())?;
    if names_nobody(&key) {
        return Ok(Some((key, totals)));
    }
    let (own, field) = match key.direction {
        Direction::Outbound => (&key.source, "key.source"),
        Direction::Inbound => (&key.destination, "key.destination"),
    };
    let Some(own) = own else { return Ok(None) };
    if own != reporter {
        return Err(format!("{field}: {own} is refused, expected the reporter's own identity {reporter}"));
    }
    match &key.destination_workload {
        Some(served) if key.direction == Direction::Inbound && served != workload => {
            Err(format!("key.destination_workload: {served} is refused, expected the reporter {workload}"))
        }
        _ => Ok(Some((key, totals))),
    }
}

/// True for what a proxy counts when it has too many edges to keep apart, or before it knows its own identity.
fn names_nobody(key: &EdgeKey) -> bool {
    *key == EdgeKey { protocol: key.protocol, ..EdgeKey::unknown(key.direction) }
}

#[cfg(test)]
mod tests {
    use mesh_core::{name::ServicePort, protocol::Protocol};

    use super::*;

    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn key(direction: Direction, source: Option<&str>, destination: Option<&str>) -> EdgeKey {
        EdgeKey {
            direction,
            source: source.map(|id| id.parse().unwrap()),
            destination: destination.map(|id| id.parse().unwrap()),
            service: None,
            backend: None,
            destination_workload: None,
            rule: None,
            protocol: Protocol::Http1,
            secured: false,
        }
    }

    /// Whether a report of shop/web-1, which runs as WEB, may hold this; an empty field: it is left out.
    fn check(key: &EdgeKey, refused_field: Option<&str>) {
        let edge = (key.clone(), EdgeTotals::default()).to_wire();
        let result = checked(&edge, &WEB.parse().unwrap(), &WorkloadRef::new("shop", "web-1"));
        match refused_field {
            None => assert!(matches!(result, Ok(Some(_))), "{key:?}: {result:?}"),
            Some("") => assert!(matches!(result, Ok(None)), "{key:?}: {result:?}"),
            Some(field) => assert!(result.unwrap_err().starts_with(field), "{key:?}"),
        }
    }

    #[test]
    fn a_proxy_speaks_for_its_own_end_only() {
        use Direction::{Inbound, Outbound};
        check(&key(Outbound, Some(WEB), Some(CART)), None);
        check(&key(Outbound, Some(CART), Some(WEB)), Some("key.source"));
        check(&key(Outbound, None, Some(CART)), Some(""));
        check(&key(Inbound, Some(CART), Some(WEB)), None);
        check(&key(Inbound, None, Some(WEB)), None);
        check(&key(Inbound, Some(WEB), Some(CART)), Some("key.destination"));
        check(&key(Inbound, Some(CART), None), Some(""));
        let serves = |name| EdgeKey {
            destination_workload: Some(WorkloadRef::new("shop", name)),
            ..key(Inbound, Some(CART), Some(WEB))
        };
        check(&serves("web-1"), None);
        check(&serves("web-2"), Some("key.destination_workload"));
        // The overflow edges, and nothing that looks like them.
        check(&key(Outbound, None, None), None);
        check(&key(Inbound, None, None), None);
        let service = Some(ServicePort::new("shop", "cart", 80));
        check(&EdgeKey { service, ..key(Outbound, None, None) }, Some(""));
        let served = Some(WorkloadRef::new("shop", "cart-1"));
        check(&EdgeKey { destination_workload: served, ..key(Inbound, None, None) }, Some(""));
        check(&EdgeKey { secured: true, ..key(Inbound, None, None) }, Some(""));
    }
}
