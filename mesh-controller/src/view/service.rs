//! `view.v1`: the controller's state in the form of its messages.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use mesh_core::{
    edge::EdgeKey,
    name::{ServicePort, WorkloadRef},
};
use mesh_k8s::Problem;
use mesh_proto::{
    convert::Wire,
    discovery::v1::Rejected,
    view::v1::{self as pb, view_server::View},
};
use tonic::{Request, Response, Status};

use crate::{
    ca::unix,
    edges::{MAX_WINDOW, Row},
    grpc::Shared,
    publish::ProxyState,
};

/// The service.
#[derive(Clone)]
pub(super) struct ViewService {
    shared: Arc<Shared>,
}

impl ViewService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl View for ViewService {
    async fn get_status(
        &self,
        _: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let shared = &self.shared;
        let snapshot = shared.publisher.current();
        Ok(Response::new(pb::GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            trust_domain: shared.trust_domain.to_string(),
            source: shared.source.clone(),
            uptime_millis: millis(shared.started.elapsed()),
            anchors: vec![pb::Anchor {
                sha256: shared.ca.root_sha256(),
                not_after: shared.ca.root_not_after(),
            }],
            issuer_not_after: shared.ca.issuer_not_after(),
            objects: snapshot.objects as u64,
            generation: snapshot.generation,
            now_millis: unix_millis(SystemTime::now()),
        }))
    }

    async fn list_problems(
        &self,
        _: Request<pb::ListProblemsRequest>,
    ) -> Result<Response<pb::ListProblemsResponse>, Status> {
        let snapshot = self.shared.publisher.current();
        let problems = snapshot.problems.iter().map(problem).collect();
        Ok(Response::new(pb::ListProblemsResponse { problems }))
    }

    async fn list_workloads(
        &self,
        request: Request<pb::ListWorkloadsRequest>,
    ) -> Result<Response<pb::ListWorkloadsResponse>, Status> {
        let namespace = request.into_inner().namespace;
        let snapshot = self.shared.publisher.current();
        let workloads = snapshot
            .compiled
            .workloads
            .iter()
            .filter(|(workload, _)| is_in(&namespace, &workload.namespace))
            .map(|(workload, config)| pb::Workload {
                config: Some(config.to_wire()),
                labels: snapshot
                    .compiled
                    .labels
                    .get(workload)
                    .map(|labels| labels.clone().into_iter().collect())
                    .unwrap_or_default(),
                proxy: self.shared.proxies.get(workload).map(proxy),
            })
            .collect();
        Ok(Response::new(pb::ListWorkloadsResponse { workloads }))
    }

    async fn list_services(
        &self,
        request: Request<pb::ListServicesRequest>,
    ) -> Result<Response<pb::ListServicesResponse>, Status> {
        let namespace = request.into_inner().namespace;
        let snapshot = self.shared.publisher.current();
        let endpoints = |port: &ServicePort| {
            let found = snapshot.compiled.endpoints.get(port).cloned().unwrap_or_default();
            found.to_wire().endpoints
        };
        let services = snapshot
            .compiled
            .services
            .iter()
            .filter(|(port, _)| is_in(&namespace, &port.namespace))
            .map(|(port, routes)| pb::Service {
                destination: Some(routes.to_wire()),
                endpoints: endpoints(port),
            })
            .collect();
        Ok(Response::new(pb::ListServicesResponse { services }))
    }

    async fn list_edges(
        &self,
        request: Request<pb::ListEdgesRequest>,
    ) -> Result<Response<pb::ListEdgesResponse>, Status> {
        let request = request.into_inner();
        let window = match request.window_millis {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        };
        if window.is_some_and(|window| window > MAX_WINDOW) {
            return Err(Status::invalid_argument(format!(
                "window_millis: {} is refused, expected at most {}",
                request.window_millis,
                MAX_WINDOW.as_millis()
            )));
        }
        let rows = self.shared.edges.list(window, Instant::now(), |reporter, key| {
            is_in(&request.namespace, &reporter.namespace) || touches(key, &request.namespace)
        });
        Ok(Response::new(pb::ListEdgesResponse { edges: rows.into_iter().map(edge).collect() }))
    }
}

fn is_in(wanted: &str, namespace: &str) -> bool {
    wanted.is_empty() || wanted == namespace
}

/// True when either end of the edge is in `namespace`.
fn touches(key: &EdgeKey, namespace: &str) -> bool {
    let ends = [&key.source, &key.destination];
    let mut identities = ends.into_iter().flatten().filter_map(|id| id.namespace_and_account());
    identities.any(|(ns, _)| ns == namespace)
        || key.destination_workload.as_ref().is_some_and(|w: &WorkloadRef| &*w.namespace == namespace)
        || key.service.as_ref().is_some_and(|service| &*service.namespace == namespace)
}

fn edge(row: Row) -> pb::Edge {
    pb::Edge {
        reporter: Some(row.reporter.to_wire()),
        summary: Some((row.key, row.totals).to_wire()),
        covered_millis: millis(row.covered),
    }
}

fn problem(problem: &Problem) -> pb::Problem {
    pb::Problem {
        object: problem.object.as_ref().map(Wire::to_wire),
        file: problem.place.file.to_string(),
        line: problem.place.line,
        field: problem.field.clone(),
        message: problem.message.clone(),
        remedy: problem.remedy.clone(),
        refused: problem.refused,
    }
}

fn proxy(state: ProxyState) -> pb::Proxy {
    pb::Proxy {
        connected: state.connected,
        version: state.version,
        instance: state.instance,
        since_millis: state.since.map_or(0, unix_millis),
        certificate_not_after: state.certificate_not_after,
        subscriptions: state.subscriptions,
        pending: state.pending as u64,
        rejected: state.rejected.into_iter().map(|(name, error)| Rejected { name, error }).collect(),
        generation: state.generation,
        reported_millis: state.reported.map_or(0, unix_millis),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn unix_millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or_else(|_| unix(time))
}
