//! `identity.v1`: a proof and a certificate request for a short-lived certificate.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Instant, SystemTime},
};

use mesh_core::name::WorkloadRef;
use mesh_proto::identity::v1::{CertifyRequest, CertifyResponse, identity_server::Identity};
use tonic::{Request, Response, Status};

use super::{Shared, peer::Peer, proofs::Proven, workload_of};
use crate::{
    ca::{CsrError, renew_after},
    limit::{Buckets, Rarely},
};

/// Certificates that one identity gets at once, and in the long run per second: that many workloads of one service
/// account may start together.
const OF_IDENTITY: (u32, f64) = (100, 2.0);
/// The same for one pod, where it is known: it needs one now and then, and another when its proxy starts again.
const OF_POD: (u32, f64) = (10, 0.5);
/// Requests of one address whose proof is looked at, where that asks others: at once, and in the long run per second. A
/// node's pods may have one address.
const OF_ADDRESS: (u32, f64) = (120, 4.0);

/// The service.
pub(super) struct IdentityService {
    shared: Arc<Shared>,
    /// By address; None: to look at a proof costs nothing.
    asked: Option<Mutex<Buckets<IpAddr>>>,
    /// By identity, or pod.
    issued: Mutex<Buckets<String>>,
    told: Rarely,
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the connection's peer is not known"))?;
        peer.asked.store(true, Relaxed);
        self.check_address(&peer)?;
        let request = request.into_inner();
        let named = request.workload.as_ref().map(|w| format!("{:.253}/{:.253}", w.namespace, w.name));
        let named = named.unwrap_or_default();
        match self.issue(&peer, request).await {
            Ok((response, serial)) => {
                self.shared.metrics.certificate("issued");
                tracing::info!(target: "audit", peer = %peer.address, workload = named, identity = response.identity,
                    serial, not_after = response.not_after, "certificate issued");
                Ok(Response::new(response))
            }
            Err(status) => {
                self.shared.metrics.certificate("refused");
                tracing::warn!(target: "audit", peer = %peer.address, workload = named.escape_debug().to_string(),
                    code = ?status.code(), reason = status.message(), "certificate refused");
                Err(status)
            }
        }
    }
}

impl IdentityService {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let is_per_pod = shared.proofs.are_of_pods();
        let asked = is_per_pod.then(|| Mutex::new(Buckets::new(OF_ADDRESS.0, OF_ADDRESS.1)));
        let (burst, per_second) = if is_per_pod { OF_POD } else { OF_IDENTITY };
        let issued = Mutex::new(Buckets::new(burst, per_second));
        Self { shared, asked, issued, told: Rarely::default() }
    }

    /// Before anybody is asked about a proof: strangers must not keep the API server busy, nor fill the audit log.
    fn check_address(&self, peer: &Peer) -> Result<(), Status> {
        let Some(asked) = &self.asked else { return Ok(()) };
        let address = peer.address.ip().to_canonical();
        if asked.lock().unwrap_or_else(PoisonError::into_inner).take(address, Instant::now()) {
            return Ok(());
        }
        self.shared.metrics.certificate("refused");
        if self.told.is_due() {
            tracing::warn!(target: "audit", %address, "certificates refused: it asks too often");
        }
        Err(Status::resource_exhausted(format!(
            "{address} has asked for too many certificates: wait, and see why it asks so often"
        )))
    }

    /// Proof first: whoever has none learns nothing about workloads.
    async fn issue(&self, peer: &Peer, request: CertifyRequest) -> Result<(CertifyResponse, String), Status> {
        let workload = workload_of(request.workload.as_ref())?;
        let proven = self.shared.proofs.prove(request.proof, peer, &self.shared.trust_domain).await?;
        self.check_workload(&workload, &proven)?;
        self.check_rate(&proven)?;
        let proven = proven.identity;
        let leaf = self.shared.ca.certify(&proven, &request.csr_der).map_err(|error| match error {
            CsrError::CaRights | CsrError::OtherName { .. } => Status::permission_denied(error.to_string()),
            CsrError::Issue(_) => Status::internal(error.to_string()),
            CsrError::TooLarge(_) | CsrError::Malformed(_) | CsrError::Signature | CsrError::Algorithm => {
                Status::invalid_argument(error.to_string())
            }
        })?;
        let response = CertifyResponse {
            chain_der: leaf.chain.iter().map(|der| der.to_vec()).collect(),
            roots_der: vec![self.shared.ca.root().to_vec()],
            identity: proven.as_str().to_owned(),
            not_after: leaf.not_after,
            renew_after_seconds: renew_after(leaf.not_after, SystemTime::now()).as_secs().max(1),
        };
        Ok((response, leaf.serial))
    }

    fn check_workload(&self, workload: &WorkloadRef, proven: &Proven) -> Result<(), Status> {
        let snapshot = self.shared.publisher.current();
        proven.check_pod(workload, snapshot.compiled.pods.get(workload))?;
        let proofs = &self.shared.proofs;
        let Some(config) = snapshot.compiled.workloads.get(workload) else {
            return Err(Status::permission_denied(proofs.unknown(workload)));
        };
        if config.identity.is_controller() {
            return Err(Status::permission_denied(format!(
                "Workload {workload} runs under the controller's reserved service account: give it another"
            )));
        }
        if config.identity != proven.identity {
            let (_, wanted) = config.identity.namespace_and_account().unwrap_or_default();
            let (namespace, account) = proven.identity.namespace_and_account().unwrap_or_default();
            return Err(Status::permission_denied(format!(
                "Workload {workload} runs under service account {}/{wanted}, the proof is for {namespace}/{account}: {}",
                workload.namespace,
                proofs.mend(workload, wanted)
            )));
        }
        Ok(())
    }

    fn check_rate(&self, proven: &Proven) -> Result<(), Status> {
        let who = match &proven.pod {
            Some(pod) => format!("pod {}/{} {}", pod.namespace, pod.name, pod.uid),
            None => proven.identity.as_str().to_owned(),
        };
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        if issued.take(who.clone(), Instant::now()) {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "{who} has asked for too many certificates: wait, and see why its proxies ask so often"
        )))
    }
}
