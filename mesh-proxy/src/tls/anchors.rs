//! What chains are verified against: roots, or the fingerprint of one.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest;
use rustls::{RootCertStore, pki_types::CertificateDer};

/// Largest bundle of roots.
const MAX_ROOTS: usize = 64;

/// Why roots do not serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AnchorError {
    /// None, or too many.
    #[error("a trust bundle holds 1 to {MAX_ROOTS} roots, this one {0}")]
    Count(usize),
    /// One cannot be parsed.
    #[error("root {index} of the trust bundle is not a valid X.509 certificate: {error}")]
    Invalid {
        /// Its place, from 1.
        index: usize,
        /// What is wrong.
        error: String,
    },
}

/// What a chain is verified against.
#[derive(Clone)]
pub(crate) enum Anchors {
    /// These roots.
    Roots(Arc<RootCertStore>),
    /// The certificate with this SHA-256 within the chain that the server sends.
    Pin([u8; 32]),
}

impl Anchors {
    /// The roots for one chain. None: the pinned root is not among `chain`.
    pub(crate) fn for_chain(&self, chain: &[CertificateDer<'_>]) -> Option<Arc<RootCertStore>> {
        match self {
            Self::Roots(roots) => Some(Arc::clone(roots)),
            Self::Pin(pin) => {
                let root = chain.iter().find(|certificate| sha256(certificate) == *pin)?;
                root_store(&[root.clone().into_owned()]).ok().map(Arc::new)
            }
        }
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roots(roots) => write!(f, "{} roots", roots.len()),
            Self::Pin(_) => f.write_str("pin"),
        }
    }
}

/// Takes roots.
///
/// # Errors
/// When there are none or too many, or one is no certificate: nothing is left out silently.
pub(crate) fn root_store(roots: &[CertificateDer<'_>]) -> Result<RootCertStore, AnchorError> {
    if roots.is_empty() || roots.len() > MAX_ROOTS {
        return Err(AnchorError::Count(roots.len()));
    }
    let mut store = RootCertStore::empty();
    for (index, root) in roots.iter().enumerate() {
        store
            .add(root.clone().into_owned())
            .map_err(|error| AnchorError::Invalid { index: index + 1, error: error.to_string() })?;
    }
    Ok(store)
}

/// SHA-256 of a certificate's DER.
pub(crate) fn sha256(der: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
    out
}
