//! The proxy's identity: certificate, roots, and the TLS epochs made of them.

mod certify;
mod handed;
mod renew;
mod trust;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use mesh_core::{config::TrustBundle, identity::SpiffeId};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Notify, watch};

pub(crate) use self::{
    handed::Handed,
    renew::run,
    trust::{TrustError, bootstrap_anchors},
};
use crate::{
    config::Config,
    tls::{Anchors, ExpectedServer, Svid, TlsEpoch, TlsError, control_config, root_store},
};

/// Keeps certificate and roots; publishes an epoch whenever either changes.
pub(crate) struct Keeper {
    held: Mutex<Held>,
    epochs: watch::Sender<Option<Arc<TlsEpoch>>>,
    /// Wakes the renewal before its time.
    renew: Notify,
}

#[derive(Default)]
struct Held {
    svid: Option<Arc<Svid>>,
    roots: Vec<CertificateDer<'static>>,
    /// The roots came over the discovery stream, so that those of a renewal are not newer.
    pushed: bool,
    generation: u64,
    /// When to renew; None: at once.
    renew_at: Option<Instant>,
}

impl Keeper {
    /// Holds nothing yet.
    pub(crate) fn new() -> Self {
        Self { held: Mutex::default(), epochs: watch::Sender::new(None), renew: Notify::new() }
    }

    /// The newest epoch.
    pub(crate) fn epochs(&self) -> watch::Receiver<Option<Arc<TlsEpoch>>> {
        self.epochs.subscribe()
    }

    /// The certificate.
    pub(crate) fn svid(&self) -> Option<Arc<Svid>> {
        self.held().svid.clone()
    }

    /// The proxy's identity.
    pub(crate) fn identity(&self) -> Option<SpiffeId> {
        self.held().svid.as_ref().map(|svid| svid.identity.clone())
    }

    /// Takes a certificate, with the roots that came along.
    ///
    /// # Errors
    /// When no TLS configuration can be made of them; then what was held stays.
    fn install(&self, svid: Svid, roots: Vec<CertificateDer<'static>>) -> Result<(), TlsError> {
        let mut held = self.held();
        let roots = if held.pushed { held.roots.clone() } else { roots };
        let pushed = held.pushed;
        self.publish(&mut held, Arc::new(svid), roots, pushed)
    }

    /// Takes the roots that the controller pushed. A certificate that they do not cover is renewed at once.
    ///
    /// # Errors
    /// When they are of no use; then what was held stays.
    pub(crate) fn set_bundle(&self, bundle: &TrustBundle) -> Result<(), TlsError> {
        let roots: Vec<_> = bundle.roots.iter().map(|der| CertificateDer::from(der.clone())).collect();
        root_store(&roots)?;
        let mut held = self.held();
        if held.roots == roots {
            held.pushed = true;
            return Ok(());
        }
        let Some(svid) = held.svid.clone() else {
            (held.roots, held.pushed) = (roots, true);
            return Ok(());
        };
        if !svid.is_trusted_by(&roots, SystemTime::now()) {
            self.renew.notify_one();
        }
        self.publish(&mut held, svid, roots, true)
    }

    fn publish(
        &self,
        held: &mut Held,
        svid: Arc<Svid>,
        roots: Vec<CertificateDer<'static>>,
        pushed: bool,
    ) -> Result<(), TlsError> {
        let epoch = TlsEpoch::new(held.generation + 1, Arc::clone(&svid), roots.clone())?;
        let (generation, renew_at) = (held.generation + 1, held.renew_at);
        *held = Held { svid: Some(svid), roots, pushed, generation, renew_at };
        self.epochs.send_replace(Some(Arc::new(epoch)));
        Ok(())
    }

    /// How long until the certificate should be renewed.
    fn renewal(&self) -> Duration {
        self.held().renew_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Notes when the certificate should be renewed.
    fn renew_in(&self, wait: Duration) {
        self.held().renew_at = Instant::now().checked_add(wait);
    }

    /// TLS for one connection to the controller. With `bootstrap` the configured anchor is used even when newer roots
    /// are held: these may have been replaced while the controller could not be reached.
    ///
    /// # Errors
    /// [`TrustError`].
    pub(crate) fn control_tls(
        &self,
        config: &Config,
        svid: Option<&Svid>,
        bootstrap: bool,
    ) -> Result<Arc<rustls::ClientConfig>, TrustError> {
        let roots = self.held().roots.clone();
        let anchors = if roots.is_empty() || bootstrap {
            bootstrap_anchors(&config.trust)?
        } else {
            Anchors::Roots(Arc::new(root_store(&roots)?))
        };
        let controller = SpiffeId::controller(&config.trust_domain);
        Ok(control_config(ExpectedServer::new(anchors, controller), svid)?)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
