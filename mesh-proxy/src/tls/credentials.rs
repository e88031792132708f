//! What a peer showed when its connection was made, and whether that still counts.
//!
//! TLS verifies a peer once. A connection may stand for days: longer than the certificate, and longer than the root.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use rustls::{
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, UnixTime},
    server::{ParsedCertificate, danger::ClientCertVerifier as _},
};
use tokio::{sync::watch, time::sleep};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{RootsHash, TlsEpoch, provider, svid::at};

/// Longest time without a look at the clock, which may be set meanwhile.
const LOOK: Duration = Duration::from_secs(600);

/// Which side of a connection the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It dialled.
    Caller,
    /// It was dialled.
    Callee,
}

/// A peer's chain, as long as the connection that it authenticated stands.
pub(crate) struct Credentials {
    side: Side,
    chain: Chain,
    not_after: SystemTime,
    /// The roots under which the chain was last verified.
    roots: RootsHash,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, {} certificates)", self.side, self.chain.len())
    }
}

impl Credentials {
    /// Of a chain that the handshake verified under `roots`. None: there is no chain, or it cannot be read.
    pub(crate) fn new(side: Side, chain: Option<&Chain>, roots: RootsHash) -> Option<Self> {
        let chain = Arc::clone(chain?);
        let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
        let not_after = at(leaf.validity().not_after.timestamp());
        Some(Self { side, chain, not_after, roots })
    }

    /// True when this is the chain.
    pub(crate) fn are(&self, chain: &[CertificateDer<'static>]) -> bool {
        *self.chain == *chain
    }

    /// How long the chain is valid from `now` on. None: it has expired, or no longer leads to the roots of `epoch`.
    pub(crate) fn valid_for(&mut self, epoch: Option<&TlsEpoch>, now: SystemTime) -> Option<Duration> {
        let mut roots = self.roots;
        let left = self.left(&mut roots, epoch, now);
        self.roots = roots;
        left
    }

    /// As [`Self::valid_for`]; `roots` are those under which the chain was last verified.
    fn left(&self, roots: &mut RootsHash, epoch: Option<&TlsEpoch>, now: SystemTime) -> Option<Duration> {
        let left = self.not_after.duration_since(now).ok()?;
        if let Some(epoch) = epoch
            && epoch.roots_hash != *roots
        {
            if !epoch.trusts(self.side, &self.chain, now) {
                return None;
            }
            *roots = epoch.roots_hash;
        }
        Some(left)
    }

    /// Returns when the chain has expired or no longer leads to the roots. A mere renewal changes nothing.
    pub(crate) async fn withdrawn(&self, mut epochs: watch::Receiver<Option<Arc<TlsEpoch>>>) {
        let mut roots = self.roots;
        loop {
            let epoch = epochs.borrow_and_update().clone();
            let Some(left) = self.left(&mut roots, epoch.as_deref(), SystemTime::now()) else { return };
            tokio::select! {
                // An error: the proxy ends.
                changed = epochs.changed() => if changed.is_err() { return std::future::pending().await },
                // A little later than it expires.
                () = sleep(left.min(LOOK) + Duration::from_millis(1)) => {}
            }
        }
    }
}

/// What a peer authenticated with, leaf first; shared by its connections.
pub(crate) type Chain = Arc<[CertificateDer<'static>]>;

/// Chains that are looked through for one that is known already.
const MOST_KNOWN: usize = 16;

/// The chain as one that another connection of this thread holds, if there is one: a peer may have thousands.
pub(super) fn shared(chain: &[CertificateDer<'static>]) -> Chain {
    thread_local! {
        static KNOWN: RefCell<VecDeque<Weak<[CertificateDer<'static>]>>> = const { RefCell::new(VecDeque::new()) };
    }
    KNOWN.with_borrow_mut(|known| {
        known.retain(|held| held.strong_count() > 0);
        if let Some(held) = known.iter().filter_map(Weak::upgrade).find(|held| **held == *chain) {
            return held;
        }
        let new: Arc<[_]> = chain.into();
        if known.len() >= MOST_KNOWN {
            known.pop_front();
        }
        known.push_back(Arc::downgrade(&new));
        new
    })
}

impl TlsEpoch {
    /// Whether a chain, leaf first, would be accepted now. Who the leaf names does not change, so it is not looked at.
    fn trusts(&self, side: Side, chain: &[CertificateDer<'static>], now: SystemTime) -> bool {
        let Some((leaf, intermediates)) = chain.split_first() else { return false };
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        match side {
            Side::Caller => self.callers.verify_client_cert(leaf, intermediates, now).is_ok(),
            Side::Callee => ParsedCertificate::try_from(leaf).is_ok_and(|leaf| {
                let algorithms = provider().signature_verification_algorithms.all;
                verify_server_cert_signed_by_trust_anchor(
                    &leaf,
                    &self.anchors,
                    intermediates,
                    now,
                    algorithms,
                )
                .is_ok()
            }),
        }
    }
}
