//! TLS of the control port: the controller's own leaf, renewed in memory, and who may present a client certificate.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::identity::{SpiffeId, TrustDomain};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::peer::identity_of;
use crate::ca::{Ca, CsrError, keep_fresh};

/// Why the control port has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The controller's own certificate cannot be made.
    #[error("cannot make the controller's certificate: {0}")]
    Certificate(String),
    /// rustls refused the configuration.
    #[error("cannot set up TLS: {0}")]
    Rustls(#[from] rustls::Error),
    /// The root cannot verify clients.
    #[error("cannot set up the verification of clients: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

impl From<CsrError> for TlsError {
    fn from(error: CsrError) -> Self {
        Self::Certificate(error.to_string())
    }
}

/// The TLS configuration, replaced as a whole when the own leaf is renewed.
pub(super) struct Tls {
    current: ArcSwap<ServerConfig>,
    verifier: Arc<SpiffeClientVerifier>,
    provider: Arc<CryptoProvider>,
    identity: SpiffeId,
    ca: Arc<Ca>,
    /// When the first leaf expires, in seconds since the Unix epoch.
    first_not_after: i64,
}

impl Tls {
    pub(super) fn new(ca: Arc<Ca>, trust_domain: &TrustDomain) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(ca.root().clone())?;
        let inner = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()?;
        let verifier = Arc::new(SpiffeClientVerifier { inner, trust_domain: trust_domain.clone() });
        let identity = SpiffeId::controller(trust_domain);
        let (config, first_not_after) = server_config(&ca, &identity, &verifier, &provider)?;
        Ok(Self { current: ArcSwap::from(config), verifier, provider, identity, ca, first_not_after })
    }

    /// The configuration for the next connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Renews the own leaf in time, for ever.
    pub(super) async fn keep_fresh(&self) {
        let certify = || {
            let (config, not_after) =
                server_config(&self.ca, &self.identity, &self.verifier, &self.provider)?;
            self.current.store(config);
            Ok::<_, TlsError>(not_after)
        };
        keep_fresh("controller", self.first_not_after, certify).await;
    }
}

/// A configuration with a fresh leaf, and when that leaf expires. The chain ends with the root, so that a client that
/// only holds the root's hash can check it.
fn server_config(
    ca: &Ca,
    identity: &SpiffeId,
    verifier: &Arc<SpiffeClientVerifier>,
    provider: &Arc<CryptoProvider>,
) -> Result<(Arc<ServerConfig>, i64), TlsError> {
    let (leaf, key) = ca.certify_own(identity)?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::clone(verifier) as Arc<dyn ClientCertVerifier>)
        .with_single_cert(leaf.chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would skip verification; connections here are few and long.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok((Arc::new(config), leaf.not_after))
}

/// Verifies the chain as WebPKI does, then that it names a peer of this mesh.
#[derive(Debug)]
struct SpiffeClientVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    trust_domain: TrustDomain,
}

impl ClientCertVerifier for SpiffeClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        identity_of(end_entity, &self.trust_domain)
            .map_err(|error| CertificateError::Other(OtherError(Arc::new(error))))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
