//! TLS ends for tests: mesh TLS and ordinary TLS, client and server.

use std::{net::SocketAddr, sync::Arc};

use mesh_core::identity::SpiffeId;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::ca::{Svid, TestCa, identity_of};

/// Whether a server wants a certificate of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It does not ask.
    None,
    /// It asks and takes those without, too.
    Optional,
    /// It refuses those without.
    Required,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(ca: &TestCa) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add(ca.root()).expect("a root");
    Arc::new(store)
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.to_vec()).collect()
}

/// A client of mesh TLS (1.3 only): verifies the chain against the roots of `ca`, and that the server is `expected`
/// when that is given.
#[must_use]
pub fn mesh_client(
    ca: &TestCa,
    svid: Option<&Svid>,
    expected: Option<&SpiffeId>,
    alpn: &[&[u8]],
) -> Arc<ClientConfig> {
    let verifier = MeshVerifier { roots: Some(roots(ca)), expected: expected.cloned(), provider: provider() };
    client(verifier, svid, alpn)
}

/// A client of TLS 1.3 that believes everything: for tests about what a server does.
#[must_use]
pub fn credulous_client(svid: Option<&Svid>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    client(MeshVerifier { roots: None, expected: None, provider: provider() }, svid, alpn)
}

fn client(verifier: MeshVerifier, svid: Option<&Svid>, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match svid.cloned() {
        Some(svid) => builder.with_client_auth_cert(svid.chain, svid.key).expect("key and certificate fit"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

/// A server of mesh TLS (1.3 only), which verifies clients against the roots of `ca`.
#[must_use]
pub fn mesh_server(ca: &TestCa, svid: &Svid, auth: ClientAuth, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let builder =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).expect("TLS 1.3");
    let verifier = || WebPkiClientVerifier::builder_with_provider(roots(ca), provider());
    let builder = match auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional => {
            builder.with_client_cert_verifier(verifier().allow_unauthenticated().build().expect("roots"))
        }
        ClientAuth::Required => builder.with_client_cert_verifier(verifier().build().expect("roots")),
    };
    let svid = svid.clone();
    let mut config = builder.with_single_cert(svid.chain, svid.key).expect("key and certificate fit");
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

/// An ordinary client (TLS 1.2 and 1.3) that trusts `ca` and checks the server's DNS name.
#[must_use]
pub fn web_client(ca: &TestCa, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(ca), provider()).build().expect("roots");
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

/// An ordinary server (TLS 1.2 and 1.3).
#[must_use]
pub fn web_server(certificate: &Svid, alpn: &[&[u8]]) -> Arc<ServerConfig> {
    let Svid { chain, key } = certificate.clone();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("key and certificate fit");
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

/// Connects and shakes hands; `name` is what goes into SNI.
///
/// In TLS 1.3 a server may refuse the client's certificate after this has returned: the first read tells.
///
/// # Errors
/// When the connection or the handshake fails.
pub async fn connect(
    address: SocketAddr,
    name: &str,
    config: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(name.to_owned()).map_err(std::io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}

#[derive(Debug)]
struct MeshVerifier {
    /// None: believes everything.
    roots: Option<Arc<RootCertStore>>,
    expected: Option<SpiffeId>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for MeshVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let parsed = ParsedCertificate::try_from(leaf)?;
            verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        }
        if self.expected.is_some() && self.expected != identity_of(leaf) {
            return Err(CertificateError::NotValidForName.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
