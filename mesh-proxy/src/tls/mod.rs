//! Mesh TLS: one epoch per certificate and set of roots.
//!
//! *Invariant:* TLS 1.3 only, both sides with a certificate, and the identity that was expected or none.

mod anchors;
mod credentials;
mod peer;
pub(crate) mod session;
mod svid;
#[cfg(test)]
mod tests;
mod unverified;
mod verify;

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use mesh_core::{identity::SpiffeId, protocol::MeshAlpn, reason::Reason};
use rustls::{
    ClientConfig, ConfigBuilder, ConfigSide, RootCertStore, ServerConfig, WantsVerifier,
    client::{ClientSessionMemoryCache, Resumption},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
    server::ServerSessionMemoryCache,
    sign::SingleCertAndKey,
};

pub(crate) use self::{
    anchors::{AnchorError, Anchors, root_store, sha256},
    credentials::{Chain, Credentials, Side},
    peer::{PeerIdentityError, peer_identity},
    svid::{KeyAndRequest, Svid, SvidError},
    unverified::unverified,
    verify::{ExpectedServer, MeshClients},
};

/// Sessions of callers that one epoch keeps for resumption.
const SERVER_SESSIONS: usize = 256;
/// Sessions that one epoch keeps per identity that is called.
const CLIENT_SESSIONS: usize = 128;
/// Identities for which one epoch keeps client configurations; beyond it begins anew.
const MAX_CLIENT_CONFIGS: usize = 1024;

/// Why no TLS configuration can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The roots do not serve.
    #[error(transparent)]
    Anchors(#[from] AnchorError),
    /// The library refused.
    #[error("TLS configuration: {0}")]
    Rustls(#[from] rustls::Error),
    /// The verifier of callers could not be made.
    #[error("verifier of callers' certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// One certificate with one set of roots. A new one of either makes a new epoch with new session stores, for a resumed
/// session is not verified again.
pub(crate) struct TlsEpoch {
    /// Number, from 1, growing.
    pub generation: u64,
    /// Whose certificate it is.
    pub identity: SpiffeId,
    /// The certificate.
    pub svid: Arc<Svid>,
    /// The roots, DER.
    pub roots: Vec<CertificateDer<'static>>,
    /// Tells whether the roots of two epochs are the same.
    pub roots_hash: RootsHash,
    server: Arc<ServerConfig>,
    anchors: Arc<RootCertStore>,
    callers: Arc<MeshClients>,
    /// What all client configurations have in common; it accepts only the workload itself.
    client: ClientConfig,
    clients: Mutex<HashMap<SpiffeId, Client>>,
}

/// SHA-256 of the roots of an epoch, in their order.
pub(crate) type RootsHash = [u8; 32];

/// What connecting to one identity needs.
struct Client {
    /// One for all protocols: rustls resumes a session only under the verifier that it began with.
    verifier: Arc<ExpectedServer>,
    sessions: Arc<ClientSessionMemoryCache>,
    configs: Vec<(MeshAlpn, Arc<ClientConfig>)>,
}

impl TlsEpoch {
    /// Makes an epoch.
    ///
    /// # Errors
    /// When `roots` hold no usable certificate.
    pub(crate) fn new(
        generation: u64,
        svid: Arc<Svid>,
        roots: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let anchors = Arc::new(root_store(&roots)?);
        let callers = Arc::new(MeshClients::new(Arc::clone(&anchors), svid.identity.trust_domain())?);
        let mut server = only_tls13(ServerConfig::builder_with_provider(provider()))?
            .with_client_cert_verifier(Arc::clone(&callers) as _)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified())));
        server.alpn_protocols = MeshAlpn::ALL.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        server.session_storage = ServerSessionMemoryCache::new(SERVER_SESSIONS);
        server.send_tls13_tickets = 1;
        server.max_early_data_size = 0;
        // Records are sealed here: session/.
        server.enable_secret_extraction = true;
        let own = ExpectedServer::new(Anchors::Roots(Arc::clone(&anchors)), svid.identity.clone());
        Ok(Self {
            client: client_base(own, Some(&svid))?,
            generation,
            identity: svid.identity.clone(),
            svid,
            roots_hash: sha256(&roots.iter().flat_map(|root| root.iter().copied()).collect::<Vec<u8>>()),
            roots,
            callers,
            server: Arc::new(server),
            anchors,
            clients: Mutex::default(),
        })
    }

    /// For accepting: TLS 1.3, client certificate required and verified, ALPN of the mesh.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// For connecting to `expected` and nobody else. Takes a lock: callers keep the result.
    pub(crate) fn client_config(&self, expected: &SpiffeId, alpn: MeshAlpn) -> Arc<ClientConfig> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENT_CONFIGS && !clients.contains_key(expected) {
            clients.clear();
        }
        let anchors = || Anchors::Roots(Arc::clone(&self.anchors));
        let client = clients.entry(expected.clone()).or_insert_with(|| Client {
            verifier: Arc::new(ExpectedServer::new(anchors(), expected.clone())),
            sessions: Arc::new(ClientSessionMemoryCache::new(CLIENT_SESSIONS)),
            configs: Vec::new(),
        });
        if let Some((_, config)) = client.configs.iter().find(|(known, _)| *known == alpn) {
            return Arc::clone(config);
        }
        let mut config = self.client.clone();
        config.dangerous().set_certificate_verifier(Arc::clone(&client.verifier) as _);
        config.alpn_protocols = alpn.offered().iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        config.resumption = Resumption::store(Arc::clone(&client.sessions) as _);
        config.enable_secret_extraction = true;
        let config = Arc::new(config);
        client.configs.push((alpn, Arc::clone(&config)));
        config
    }
}

/// For one connection to the controller: `svid` None when the proxy has none yet.
///
/// # Errors
/// When the library refuses.
pub(crate) fn control_config(
    verifier: ExpectedServer,
    svid: Option<&Svid>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = client_base(verifier, svid)?;
    config.alpn_protocols = vec![mesh_core::protocol::CONTROL_ALPN.to_vec()];
    Ok(Arc::new(config))
}

/// True when a handshake failed because what came is no TLS.
pub(crate) fn is_plaintext(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidMessage(_)))
}

/// Why a handshake failed, as a reason code: towards a server, or with a caller.
pub(crate) fn handshake_reason(error: &io::Error) -> Reason {
    use rustls::{CertificateError, Error};
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match cause {
        Some(Error::InvalidCertificate(CertificateError::Other(other)))
            if matches!(other.0.downcast_ref(), Some(PeerIdentityError::Unexpected { .. })) =>
        {
            Reason::IdentityMismatch
        }
        _ => Reason::TlsHandshakeFailed,
    }
}

/// aws-lc-rs with AES-128 first: its strength is that of the P-256 certificates, and it costs less than AES-256.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    let make = || {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        Arc::new(provider)
    };
    Arc::clone(PROVIDER.get_or_init(make))
}

fn only_tls13<S: ConfigSide>(
    builder: ConfigBuilder<S, rustls::WantsVersions>,
) -> Result<ConfigBuilder<S, WantsVerifier>, rustls::Error> {
    builder.with_protocol_versions(&[&rustls::version::TLS13])
}

/// A client's configuration without ALPN and without resumption.
fn client_base(verifier: ExpectedServer, svid: Option<&Svid>) -> Result<ClientConfig, rustls::Error> {
    let builder = only_tls13(ClientConfig::builder_with_provider(provider()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match svid {
        Some(svid) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified()))),
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}
