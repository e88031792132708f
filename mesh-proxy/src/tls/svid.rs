//! A certificate with its key (X.509 SVID), and the request for one.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_core::identity::SpiffeId;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{PeerIdentityError, peer_identity, provider, root_store};

/// Longest chain that is taken.
const MAX_CHAIN: usize = 8;

/// Why a certificate is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SvidError {
    /// The key could not be made, or the request not signed.
    #[error("making a key and a certificate request: {0}")]
    Key(#[from] rcgen::Error),
    /// No certificate, or too many.
    #[error("a chain holds 1 to {MAX_CHAIN} certificates, this one {0}")]
    Length(usize),
    /// It names no identity.
    #[error(transparent)]
    Identity(#[from] PeerIdentityError),
    /// It is malformed, for another key, or does not lead to the roots.
    #[error("the issued certificate does not serve: {0}")]
    Rustls(#[from] rustls::Error),
    /// The roots are of no use.
    #[error(transparent)]
    Roots(#[from] super::AnchorError),
}

/// A fresh private key with a request for its certificate.
pub(crate) struct KeyAndRequest {
    key: PrivateKeyDer<'static>,
    /// PKCS #10, DER. It names nothing: the controller takes the public key alone.
    pub request: Vec<u8>,
}

impl KeyAndRequest {
    /// Draws a P-256 key.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub(crate) fn generate() -> Result<Self, SvidError> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())), request })
    }

    /// A key that was drawn before, PKCS #8 in DER.
    pub(crate) fn existing(key: Vec<u8>) -> Self {
        Self { key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)), request: Vec::new() }
    }

    /// Joins the key with the chain that was issued for it, leaf first.
    ///
    /// # Errors
    /// When the chain is not for this key, is not valid at `now`, or does not lead to `roots`.
    pub(crate) fn certify(
        self,
        chain: Vec<CertificateDer<'static>>,
        roots: &[CertificateDer<'static>],
        now: SystemTime,
    ) -> Result<Svid, SvidError> {
        let length = chain.len();
        let (leaf, intermediates) = match chain.split_first() {
            Some((leaf, rest)) if length <= MAX_CHAIN => (leaf, rest),
            _ => return Err(SvidError::Length(length)),
        };
        let identity = peer_identity(Some(&chain))?;
        verify(leaf, intermediates, roots, now)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| PeerIdentityError::Malformed)?;
        let not_after = at(parsed.validity().not_after.timestamp());
        let serial = parsed.raw_serial_as_string().replace(':', "");
        let key = provider().key_provider.load_private_key(self.key.clone_key())?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match()?;
        Ok(Svid { identity, not_after, serial, certified: Arc::new(certified), key: self.key })
    }
}

/// A certificate with its key. The key never leaves memory, but for that of the process that succeeds this one.
pub(crate) struct Svid {
    /// Whose it is.
    pub identity: SpiffeId,
    /// When it expires.
    pub not_after: SystemTime,
    /// Serial number, hexadecimal.
    pub serial: String,
    certified: Arc<CertifiedKey>,
    key: PrivateKeyDer<'static>,
}

impl Svid {
    /// The private key, in DER.
    pub(crate) fn key_der(&self) -> &[u8] {
        self.key.secret_der()
    }

    /// The chain, leaf first.
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// For a TLS configuration.
    pub(crate) fn certified(&self) -> CertifiedKey {
        CertifiedKey::clone(&self.certified)
    }

    /// Whether the chain leads to `roots` and is valid at `now`.
    pub(crate) fn is_trusted_by(&self, roots: &[CertificateDer<'static>], now: SystemTime) -> bool {
        match self.certified.cert.split_first() {
            Some((leaf, intermediates)) => verify(leaf, intermediates, roots, now).is_ok(),
            None => false,
        }
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Svid({}, serial {})", self.identity, self.serial)
    }
}

fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), SvidError> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rustls::client::verify_server_cert_signed_by_trust_anchor(
        &parsed,
        &root_store(roots)?,
        intermediates,
        UnixTime::since_unix_epoch(since_epoch),
        provider().signature_verification_algorithms.all,
    )?;
    Ok(())
}

/// A point in time of a certificate.
pub(super) fn at(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// An SVID whose claims nobody checked.
#[cfg(test)]
pub(super) fn forged(identity: SpiffeId, not_after: SystemTime, certified: CertifiedKey) -> Svid {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(Vec::new()));
    Svid { identity, not_after, serial: String::new(), certified: Arc::new(certified), key }
}
