//! Client of the controller's view API: gRPC over plaintext HTTP/2 on loopback, with a bearer token.

mod left_out;
mod replicas;
mod transport;

use std::{error::Error as _, future::Future, io, path::PathBuf, time::Duration};

use mesh_core::{
    config::{Endpoint as MeshEndpoint, WorkloadConfig},
    edge::{EdgeKey, EdgeTotals},
    name::WorkloadRef,
    route::ServiceRoutes,
};
use mesh_proto::{
    convert::Wire,
    discovery::v1::EndpointSet,
    view::v1::{self as pb, view_client::ViewClient},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
};

use self::{
    left_out::LeftOut,
    transport::{Lifeline, Transport},
};
use crate::{ctx::Target, traffic::Report};

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Why the controller did not answer as hoped. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewError {
    /// Nothing takes connections there.
    #[error(
        "no controller answers at {address} ({reason}); is it running? See its log, or start it with `mesh-controller run`"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// It took too long.
    #[error(
        "the controller at {address} did not answer within {timeout:?}; see its log, or wait longer with --timeout"
    )]
    Timeout {
        /// Where.
        address: String,
        /// How long we waited.
        timeout: Duration,
    },
    /// The token is not the controller's.
    #[error(
        "the controller at {address} refuses the token in {}; \
         use the view-token file of that controller's data directory", token_file.display()
    )]
    WrongToken {
        /// Where.
        address: String,
        /// Where the token was read.
        token_file: PathBuf,
    },
    /// Something else listens there.
    #[error(
        "what answers at {address} is not the view API of a controller ({reason}); check --view and MESH_VIEW"
    )]
    NotAController {
        /// Where.
        address: String,
        /// What it did.
        reason: String,
    },
    /// It answered with an error.
    #[error("the controller at {address} answered {code:?}: {message}")]
    Refused {
        /// Where.
        address: String,
        /// gRPC status.
        code: Code,
        /// What it said.
        message: String,
    },
}

/// A workload as the controller sees it.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadView {
    /// What its proxy is to have.
    pub(crate) config: WorkloadConfig,
    /// Labels, by name.
    pub(crate) labels: Vec<(String, String)>,
    /// Its proxy; None: it never connected.
    pub(crate) proxy: Option<pb::Proxy>,
}

/// A Service port as the controller sees it.
#[derive(Clone, Debug)]
pub(crate) struct ServiceView {
    /// How calls to it are routed.
    pub(crate) routes: ServiceRoutes,
    /// Its own endpoints.
    pub(crate) endpoints: Vec<MeshEndpoint>,
}

/// A connection to the view API.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    inner: ViewClient<Transport>,
    lifeline: Lifeline,
    bearer: MetadataValue<Ascii>,
    target: Target,
    left_out: LeftOut,
    /// Other controllers of the same mesh.
    others: Vec<Self>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When nothing answers.
    pub(crate) async fn connect(target: Target) -> Result<Self, ViewError> {
        let address = target.authority.clone();
        Self::begin(target, Transport::connect(&address)).await
    }

    /// Speaks on a connection that is there.
    ///
    /// # Errors
    /// When nothing answers.
    pub(crate) async fn over(
        target: Target,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, ViewError> {
        Self::begin(target, Transport::over(stream)).await
    }

    async fn begin(
        target: Target,
        connect: impl Future<Output = io::Result<(Transport, Lifeline)>>,
    ) -> Result<Self, ViewError> {
        let address = target.address.clone();
        let bad = |reason: String| ViewError::NotAController { address: address.clone(), reason };
        let bearer =
            format!("Bearer {}", target.token).parse().map_err(|_| bad("token not usable".into()))?;
        let origin =
            format!("http://{}", target.authority).parse().map_err(|_| bad("not an address".into()))?;
        let (transport, lifeline) = match tokio::time::timeout(target.timeout, connect).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(ViewError::Unreachable { address, reason: error.to_string() }),
            Err(_) => return Err(ViewError::Timeout { address, timeout: target.timeout }),
        };
        let inner = ViewClient::with_origin(transport, origin).max_decoding_message_size(MAX_ANSWER);
        Ok(Self { inner, lifeline, bearer, target, left_out: LeftOut::default(), others: Vec::new() })
    }

    /// Asks another controller of the same mesh too: each knows the proxies that are connected to itself.
    pub(crate) fn beside(&mut self, other: Self) {
        self.others.push(other);
    }

    /// Where it is connected to.
    pub(crate) fn address(&self) -> &str {
        &self.target.address
    }

    /// What was left out of answers because this meshctl does not understand it; each is told once.
    pub(crate) fn left_out(&mut self) -> Vec<String> {
        self.left_out.take()
    }

    /// The controller, its trust anchors and its source.
    pub(crate) async fn status(&mut self) -> Result<pb::GetStatusResponse, ViewError> {
        let request = self.request(pb::GetStatusRequest {});
        let answer = self.lifeline.limit(self.target.timeout, self.inner.get_status(request)).await;
        self.take(answer)
    }

    /// Everything that is wrong with what was configured.
    pub(crate) async fn problems(&mut self) -> Result<Vec<pb::Problem>, ViewError> {
        let request = self.request(pb::ListProblemsRequest {});
        let answer = self.lifeline.limit(self.target.timeout, self.inner.list_problems(request)).await;
        Ok(self.take(answer)?.problems)
    }

    /// Workloads of one namespace; empty: of all. Those that are not understood are left out.
    pub(crate) async fn workloads(&mut self, namespace: &str) -> Result<Vec<WorkloadView>, ViewError> {
        let mut all = self.own_workloads(namespace).await?;
        if self.others.is_empty() {
            return Ok(all);
        }
        let first = self.status().await?.generation;
        for mut other in std::mem::take(&mut self.others) {
            let asked = async {
                let theirs = other.status().await?.generation;
                Ok::<_, ViewError>((theirs, other.own_workloads(namespace).await?))
            };
            match asked.await {
                Ok((theirs, workloads)) => {
                    replicas::merge(&mut all, workloads, (first, theirs));
                    self.others.push(other);
                }
                Err(error) => self.lost(&other, &error),
            }
        }
        Ok(all)
    }

    async fn own_workloads(&mut self, namespace: &str) -> Result<Vec<WorkloadView>, ViewError> {
        let request = self.request(pb::ListWorkloadsRequest { namespace: namespace.into() });
        let answer = self.lifeline.limit(self.target.timeout, self.inner.list_workloads(request)).await;
        let read = |workload: pb::Workload| {
            let mut labels: Vec<_> = workload.labels.into_iter().collect();
            labels.sort();
            let config = WorkloadConfig::from_wire(&workload.config.unwrap_or_default())?;
            Ok(WorkloadView { config, labels, proxy: workload.proxy })
        };
        let answer = self.take(answer)?;
        Ok(self.left_out.read("workload", "workloads", answer.workloads, read))
    }

    /// A controller that ends while it is asked takes only what its own proxies said with it.
    fn lost(&mut self, other: &Self, error: &ViewError) {
        let address = &other.target.address;
        self.left_out
            .note(format!("what proxies of {address} say is missing, for it does not answer ({error})"));
    }

    /// Services of one namespace; empty: of all. Those that are not understood are left out.
    pub(crate) async fn services(&mut self, namespace: &str) -> Result<Vec<ServiceView>, ViewError> {
        let request = self.request(pb::ListServicesRequest { namespace: namespace.into() });
        let answer = self.lifeline.limit(self.target.timeout, self.inner.list_services(request)).await;
        let read = |service: pb::Service| {
            let routes = ServiceRoutes::from_wire(&service.destination.unwrap_or_default())?;
            let endpoints = Vec::<MeshEndpoint>::from_wire(&EndpointSet { endpoints: service.endpoints })?;
            Ok(ServiceView { routes, endpoints })
        };
        let answer = self.take(answer)?;
        Ok(self.left_out.read("Service port", "Service ports", answer.services, read))
    }

    /// What proxies counted within `window` (0: since their start), for edges with `namespace` at either end.
    /// Those that are not understood are left out.
    pub(crate) async fn edges(
        &mut self,
        namespace: &str,
        window: Duration,
    ) -> Result<Vec<Report>, ViewError> {
        let mut all = self.own_edges(namespace, window).await?;
        for mut other in std::mem::take(&mut self.others) {
            match other.own_edges(namespace, window).await {
                Ok(theirs) => {
                    all.extend(theirs);
                    self.others.push(other);
                }
                Err(error) => self.lost(&other, &error),
            }
        }
        Ok(all)
    }

    async fn own_edges(&mut self, namespace: &str, window: Duration) -> Result<Vec<Report>, ViewError> {
        let window_millis = window.as_millis() as u64;
        let request = self.request(pb::ListEdgesRequest { namespace: namespace.into(), window_millis });
        let answer = self.lifeline.limit(self.target.timeout, self.inner.list_edges(request)).await;
        let read = |edge: pb::Edge| {
            let (key, totals) = <(EdgeKey, EdgeTotals)>::from_wire(&edge.summary.unwrap_or_default())?;
            let reporter = WorkloadRef::from_wire(&edge.reporter.unwrap_or_default())?;
            Ok(Report { reporter, key, totals, covered_millis: edge.covered_millis })
        };
        let answer = self.take(answer)?;
        Ok(self.left_out.read("edge", "edges", answer.edges, read))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        request
    }

    fn take<T>(&self, answer: Result<Response<T>, Status>) -> Result<T, ViewError> {
        answer.map(Response::into_inner).map_err(|status| self.explain(&status))
    }

    fn explain(&self, status: &Status) -> ViewError {
        let Target { address, token_file, timeout, .. } = self.target.clone();
        let ours = status.source().map(innermost_of);
        if let (Some(reason), Some(true)) = (&ours, status.source().map(is_loss)) {
            return ViewError::Unreachable { address, reason: reason.clone() };
        }
        match (status.code(), ours) {
            (Code::Unauthenticated, _) => ViewError::WrongToken { address, token_file },
            (Code::DeadlineExceeded | Code::Cancelled, _) => ViewError::Timeout { address, timeout },
            // A status with a cause was made on this side: what came was no gRPC.
            (_, Some(reason)) => ViewError::NotAController { address, reason },
            (Code::Unknown | Code::Internal, None) if status.message().contains("content-type") => {
                ViewError::NotAController { address, reason: status.message().into() }
            }
            (code, None) => ViewError::Refused { address, code, message: status.message().into() },
        }
    }
}

/// True when the connection was lost: nothing tells that the other end is no controller.
fn is_loss(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        let hyper = cause.downcast_ref::<hyper::Error>();
        let lost = hyper.is_some_and(|e| e.is_closed() || e.is_canceled() || e.is_incomplete_message());
        if lost || cause.is::<io::Error>() {
            return true;
        }
        next = cause.source();
    }
    false
}

/// The text of the last cause: the ones before it only say that there is one.
fn innermost_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
