//! The identity in a peer's certificate.

use std::fmt;

use mesh_core::identity::{IdentityError, SpiffeId};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Why a certificate names no identity of the mesh.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerIdentityError {
    /// There is no certificate.
    #[error("the peer sent no certificate")]
    Missing,
    /// It cannot be parsed.
    #[error("the peer's certificate is not valid X.509")]
    Malformed,
    /// It has no URI SAN, or several (X.509-SVID section 2: exactly one).
    #[error("the peer's certificate has {0} URI SANs instead of exactly one")]
    UriCount(usize),
    /// The URI is no SPIFFE ID.
    #[error("the peer's certificate names no SPIFFE ID: {0}")]
    Identity(#[from] IdentityError),
    /// It is another one than the one that was dialled.
    #[error("the peer is {found} instead of {expected}")]
    Unexpected {
        /// Who was dialled.
        expected: SpiffeId,
        /// Who answered.
        found: SpiffeId,
    },
    /// It belongs to another mesh.
    #[error("the peer {0} belongs to another trust domain")]
    TrustDomain(SpiffeId),
}

/// The text for people, because rustls prints the causes of its errors in this form.
impl fmt::Debug for PeerIdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads the SPIFFE ID of the leaf, the first of `certs`.
///
/// # Errors
/// When there is no certificate or not exactly one URI SAN with a SPIFFE ID. The chain is not verified here.
pub(crate) fn peer_identity(certs: Option<&[CertificateDer<'_>]>) -> Result<SpiffeId, PeerIdentityError> {
    let leaf = certs.and_then(<[_]>::first).ok_or(PeerIdentityError::Missing)?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| PeerIdentityError::Malformed)?;
    let names = leaf.subject_alternative_name().map_err(|_| PeerIdentityError::Malformed)?;
    let names = names.iter().flat_map(|extension| extension.value.general_names.iter());
    let uris: Vec<&str> =
        names.filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
    match uris.as_slice() {
        [uri] => Ok(uri.parse()?),
        other => Err(PeerIdentityError::UriCount(other.len())),
    }
}
