//! Verifiers: the chain to the mesh's roots, then exactly one SPIFFE ID, then the one that is expected.

use std::{slice, sync::Arc};

use mesh_core::identity::SpiffeId;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{Anchors, PeerIdentityError, peer_identity, provider};

/// Verifies a server that must be one identity.
#[derive(Debug)]
pub(crate) struct ExpectedServer {
    anchors: Anchors,
    expected: SpiffeId,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ExpectedServer {
    /// Accepts `expected` alone, with a chain to `anchors`.
    pub(crate) fn new(anchors: Anchors, expected: SpiffeId) -> Self {
        Self { anchors, expected, algorithms: provider().signature_verification_algorithms }
    }
}

impl ServerCertVerifier for ExpectedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let unknown = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let roots = self.anchors.for_chain(intermediates).ok_or_else(unknown)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, self.algorithms.all)?;
        let found = peer_identity(Some(slice::from_ref(end_entity))).map_err(refused)?;
        if found != self.expected {
            return Err(refused(PeerIdentityError::Unexpected { expected: self.expected.clone(), found }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Verifies callers: a certificate of the mesh's trust domain with exactly one SPIFFE ID is required.
#[derive(Debug)]
pub(crate) struct MeshClients {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
}

impl MeshClients {
    /// Accepts every identity of `trust_domain` with a chain to `roots`.
    ///
    /// # Errors
    /// When there are no roots.
    pub(crate) fn new(roots: Arc<RootCertStore>, trust_domain: &str) -> Result<Self, VerifierBuilderError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
        Ok(Self { chain, trust_domain: trust_domain.to_owned() })
    }
}

impl ClientCertVerifier for MeshClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: callers have one certificate, and the subjects would only make the handshake longer.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let found = peer_identity(Some(slice::from_ref(end_entity))).map_err(refused)?;
        if found.trust_domain() != self.trust_domain {
            return Err(refused(PeerIdentityError::TrustDomain(found)));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn refused(error: PeerIdentityError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
