//! The certificate, as one process hands it to the one that succeeds it: memory to memory, never by a file.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{
    Keeper,
    certify::{CertifyError, check_identity},
};
use crate::{config::Config, tls::KeyAndRequest};

/// Key, chain and roots, all in DER.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Handed {
    key: Vec<u8>,
    /// Leaf first.
    chain: Vec<Vec<u8>>,
    roots: Vec<Vec<u8>>,
    /// The roots came over the discovery stream.
    pushed: bool,
    renew_in_millis: u64,
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handed({} certificates)", self.chain.len())
    }
}

impl Keeper {
    /// What a successor needs; None: there is no certificate yet.
    pub(crate) fn hand_over(&self) -> Option<Handed> {
        let left = self.renewal();
        let held = self.held();
        let svid = held.svid.as_ref()?;
        let bytes = |list: &[CertificateDer<'static>]| list.iter().map(|der| der.to_vec()).collect();
        Some(Handed {
            key: svid.key_der().to_vec(),
            chain: bytes(svid.chain()),
            roots: bytes(&held.roots),
            pushed: held.pushed,
            renew_in_millis: u64::try_from(left.as_millis()).unwrap_or_default(),
        })
    }

    /// Takes the certificate of the process that this one succeeds, verified as one that was just issued.
    ///
    /// # Errors
    /// [`CertifyError`]; then nothing is held.
    pub(crate) fn adopt(&self, handed: &Handed, config: &Config) -> Result<(), CertifyError> {
        let certificates =
            |list: &[Vec<u8>]| list.iter().map(|der| CertificateDer::from(der.clone())).collect::<Vec<_>>();
        let roots = certificates(&handed.roots);
        let key = KeyAndRequest::existing(handed.key.clone());
        let svid = key.certify(certificates(&handed.chain), &roots, SystemTime::now())?;
        check_identity(&svid, config)?;
        self.held().pushed = false;
        self.install(svid, roots)?;
        self.held().pushed = handed.pushed;
        self.renew_in(Duration::from_millis(handed.renew_in_millis));
        Ok(())
    }
}
