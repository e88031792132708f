//! What the fake controller was told and what it heard; certificates and reports.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mesh_core::{identity::SpiffeId, name::WorkloadRef};
use mesh_proto::{
    convert::Wire as _,
    discovery::v1::{Ack, Hello, Resource as Message},
    identity::v1::{
        CertifyRequest, CertifyResponse, certify_request::Proof, identity_server::Identity as IdentityService,
    },
    telemetry::v1::{ReportRequest, ReportResponse, telemetry_server::Telemetry as TelemetryService},
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, async_trait};

use super::{Peer, remember};
use crate::ca::TestCa;

/// Name of a resource, and the workload for whose proxy it is (None: for all).
pub(super) type Scope = (Option<WorkloadRef>, String);

/// A request for a certificate.
#[derive(Clone, Debug)]
pub struct Certified {
    /// The workload that it was for.
    pub workload: WorkloadRef,
    /// The identity that was proven; None: refused.
    pub identity: Option<SpiffeId>,
    /// True: the proof was a token. False: the certificate of the connection.
    pub by_token: bool,
}

/// An answer to one response of discovery.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The workload whose proxy answers.
    pub workload: WorkloadRef,
    /// Name of the proxy's process.
    pub instance: String,
    /// What it answers.
    pub ack: Ack,
}

pub(super) struct State {
    pub(super) ca: Arc<TestCa>,
    pub(super) tokens: Mutex<HashMap<String, SpiffeId>>,
    pub(super) lifetime: Mutex<(Duration, Duration)>,
    pub(super) resources: watch::Sender<BTreeMap<Scope, Message>>,
    pub(super) certified: Mutex<Vec<Certified>>,
    pub(super) answers: Mutex<Vec<Answered>>,
    pub(super) hellos: Mutex<Vec<Hello>>,
    pub(super) reports: Mutex<Vec<ReportRequest>>,
    pub(super) subscriptions: Mutex<HashMap<WorkloadRef, BTreeSet<String>>>,
}

impl State {
    pub(super) fn new(ca: Arc<TestCa>) -> Self {
        Self {
            ca,
            tokens: Mutex::default(),
            lifetime: Mutex::new((Duration::from_secs(3600), Duration::from_secs(1800))),
            resources: watch::Sender::default(),
            certified: Mutex::default(),
            answers: Mutex::default(),
            hellos: Mutex::default(),
            reports: Mutex::default(),
            subscriptions: Mutex::default(),
        }
    }
}

/// The gRPC services over the shared state.
#[derive(Clone)]
pub(super) struct Services(pub(super) Arc<State>);

/// The caller's identity.
pub(super) fn caller<T>(request: &Request<T>) -> Result<SpiffeId, Status> {
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.0.clone());
    peer.ok_or_else(|| Status::unauthenticated("a client certificate is needed"))
}

#[async_trait]
impl IdentityService for Services {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
        let holder = caller(&request);
        let CertifyRequest { workload, csr_der, proof } = request.into_inner();
        let workload = workload.ok_or_else(|| Status::invalid_argument("no workload"))?;
        let workload =
            WorkloadRef::from_wire(&workload).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let by_token = matches!(proof, Some(Proof::Token(_)));
        let proven = match proof {
            Some(Proof::Token(token)) => {
                let tokens = self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                tokens.get(&token).cloned().ok_or_else(|| Status::unauthenticated("no such token"))
            }
            Some(Proof::CurrentCertificate(_)) => holder,
            None => Err(Status::invalid_argument("no proof")),
        };
        remember(
            &self.0.certified,
            Certified { workload, identity: proven.as_ref().ok().cloned(), by_token },
        );
        let identity = proven?;
        let (lifetime, renew_after) = *self.0.lifetime.lock().unwrap_or_else(PoisonError::into_inner);
        let chain_der = self
            .0
            .ca
            .certify(&identity, &csr_der, lifetime)
            .ok_or_else(|| Status::invalid_argument("no certificate request"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Response::new(CertifyResponse {
            chain_der,
            roots_der: vec![self.0.ca.root().to_vec()],
            identity: identity.to_string(),
            not_after: (now + lifetime).as_secs().try_into().unwrap_or(i64::MAX),
            renew_after_seconds: renew_after.as_secs(),
        }))
    }
}

#[async_trait]
impl TelemetryService for Services {
    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        caller(&request)?;
        remember(&self.0.reports, request.into_inner());
        Ok(Response::new(ReportResponse { next_after_millis: 100 }))
    }
}
