//! Exchanges proof and certificate request for a certificate (`identity.v1`).

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use mesh_core::identity::SpiffeId;
use mesh_proto::{
    convert::Wire as _,
    identity::v1::{
        CertifyRequest, CertifyResponse, CurrentCertificate, certify_request::Proof,
        identity_client::IdentityClient,
    },
};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::{Keeper, TrustError, trust::read_bounded};
use crate::{
    config::Config,
    control::channel::{ConnectError, connect},
    tls::{KeyAndRequest, Svid, SvidError, TlsError},
};

/// Time for the controller to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Renewals are never closer together than this.
const MIN_RENEWAL: Duration = Duration::from_millis(500);

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertifyError {
    /// Nothing proves the identity.
    #[error("nothing proves this workload's identity: give --token-file FILE")]
    NoProof,
    /// The token cannot be read.
    #[error("cannot read the token {}: {error}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: std::io::Error,
    },
    /// The token is no text.
    #[error("the token {} is empty or not ASCII", path.display())]
    TokenText {
        /// The file.
        path: PathBuf,
    },
    /// The controller cannot be verified.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It cannot be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It refused.
    #[error("the controller refused to certify: {} ({:?})", .0.message(), .0.code())]
    Refused(Box<tonic::Status>),
    /// It did not answer.
    #[error("the controller did not answer within {TIMEOUT:?}")]
    Timeout,
    /// What it issued is of no use.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// What it issued is for somebody else.
    #[error("the controller issued a certificate for {found}, which is no service account of {expected}")]
    Identity {
        /// Whose certificate it is.
        found: SpiffeId,
        /// Trust domain and namespace of this workload.
        expected: String,
    },
    /// No TLS configuration can be made of it.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Gets a certificate and installs it. Returns how long until it should be renewed.
///
/// # Errors
/// [`CertifyError`]; what was held stays.
pub(super) async fn certify(
    keeper: &Keeper,
    config: &Config,
    bootstrap: bool,
) -> Result<Duration, CertifyError> {
    let current = keeper.svid().filter(|svid| svid.not_after > SystemTime::now());
    // A token may serve only once (join) and be gone then: the certificate goes on proving the identity.
    let (proof, svid) = match (token(config), current) {
        (Ok(Some(token)), _) => (Proof::Token(token), None),
        (Ok(None) | Err(CertifyError::Token { .. }), Some(svid)) => {
            (Proof::CurrentCertificate(CurrentCertificate {}), Some(svid))
        }
        (Ok(None), None) => return Err(CertifyError::NoProof),
        (Err(error), _) => return Err(error),
    };
    let tls = keeper.control_tls(config, svid.as_deref(), bootstrap)?;
    let channel = connect(&config.controller, tls).await?;
    let key = KeyAndRequest::generate()?;
    let request = CertifyRequest {
        workload: Some(config.workload.to_wire()),
        csr_der: key.request.clone(),
        proof: Some(proof),
    };
    let mut client = IdentityClient::new(channel);
    let response = timeout(TIMEOUT, client.certify(request)).await.map_err(|_| CertifyError::Timeout)?;
    let response = response.map_err(|status| CertifyError::Refused(Box::new(status)))?.into_inner();
    install(keeper, config, key, response)
}

fn install(
    keeper: &Keeper,
    config: &Config,
    key: KeyAndRequest,
    response: CertifyResponse,
) -> Result<Duration, CertifyError> {
    let now = SystemTime::now();
    let renew_after = Duration::from_secs(response.renew_after_seconds);
    let chain: Vec<_> = response.chain_der.into_iter().map(CertificateDer::from).collect();
    let roots: Vec<_> = response.roots_der.into_iter().map(CertificateDer::from).collect();
    let svid = key.certify(chain, &roots, now)?;
    check_identity(&svid, config)?;
    let left = svid.not_after.duration_since(now).unwrap_or_default();
    tracing::info!(identity = %svid.identity, serial = svid.serial, valid_for = ?left, "certificate received");
    keeper.install(svid, roots)?;
    Ok(next_renewal(renew_after, left))
}

/// The controller's wish, but never so late that the certificate could expire first.
fn next_renewal(wish: Duration, left: Duration) -> Duration {
    let half = left / 2;
    let wish = if wish.is_zero() { half } else { wish };
    wish.min(left.mul_f64(0.8)).max(MIN_RENEWAL)
}

pub(super) fn check_identity(svid: &Svid, config: &Config) -> Result<(), CertifyError> {
    let (domain, namespace) = (config.trust_domain.as_str(), &*config.workload.namespace);
    let found = &svid.identity;
    let own = found.trust_domain() == domain
        && found.namespace_and_account().is_some_and(|(ns, _)| ns == namespace);
    if !own || found.is_controller() {
        let expected = format!("namespace {namespace} in trust domain {domain}");
        return Err(CertifyError::Identity { found: found.clone(), expected });
    }
    Ok(())
}

fn token(config: &Config) -> Result<Option<String>, CertifyError> {
    let Some(path) = &config.token_file else { return Ok(None) };
    let bytes = read_bounded(path).map_err(|error| CertifyError::Token { path: path.clone(), error })?;
    match str::from_utf8(&bytes).map(str::trim) {
        Ok(token) if !token.is_empty() && token.is_ascii() => Ok(Some(token.to_owned())),
        _ => Err(CertifyError::TokenText { path: path.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_follows_the_controller_but_not_into_expiry() {
        let seconds = Duration::from_secs;
        assert_eq!(next_renewal(seconds(100), seconds(1000)), seconds(100));
        assert_eq!(next_renewal(seconds(2000), seconds(1000)), seconds(800));
        assert_eq!(next_renewal(seconds(0), seconds(1000)), seconds(500));
        assert_eq!(next_renewal(seconds(0), seconds(0)), MIN_RENEWAL);
    }
}
