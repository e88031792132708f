//! Trust before the first byte: a bundle file or a pin. Never trust on first use.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::{
    config::TrustAnchor,
    tls::{AnchorError, Anchors, root_store},
};

/// Largest bundle or token file, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why the controller cannot be verified.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// The bundle file cannot be read.
    #[error("cannot read the trust bundle {}: {error}; is --trust-bundle right", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// It is no PEM.
    #[error("the trust bundle {} is not PEM: {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: rustls::pki_types::pem::Error,
    },
    /// Its certificates do not serve.
    #[error(transparent)]
    Roots(#[from] AnchorError),
    /// The library refused.
    #[error("TLS towards the controller: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The configured anchor; a bundle file is read anew.
///
/// # Errors
/// [`TrustError`].
pub(crate) fn bootstrap_anchors(anchor: &TrustAnchor) -> Result<Anchors, TrustError> {
    match anchor {
        TrustAnchor::Pin(pin) => Ok(Anchors::Pin(*pin)),
        TrustAnchor::Bundle(path) => {
            let pem = read_bounded(path).map_err(|error| TrustError::Read { path: path.clone(), error })?;
            let roots: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
                .collect::<Result<_, _>>()
                .map_err(|error| TrustError::Pem { path: path.clone(), error })?;
            Ok(Anchors::Roots(Arc::new(root_store(&roots)?)))
        }
    }
}

/// Reads a small file.
///
/// # Errors
/// When it cannot be read or is larger than a bundle or token ever is.
pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: Option<&str>, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = bootstrap_anchors(&TrustAnchor::Bundle(path)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_bundle_that_is_none_says_so() {
        check(None, "is --trust-bundle right");
        check(Some(""), "this one 0");
        check(Some("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n"), "is not PEM");
        check(Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "root 1");
        check(Some(&"x".repeat(2 << 20)), "larger than");
    }

    #[test]
    fn a_bundle_of_roots_is_taken() {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let root = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        std::fs::write(&path, root.pem()).unwrap();
        let anchors = bootstrap_anchors(&TrustAnchor::Bundle(path)).unwrap();
        assert_eq!(format!("{anchors:?}"), "1 roots");
    }
}
