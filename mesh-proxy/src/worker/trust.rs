//! Connections end when their time has come: the proxy drains, or a peer is no longer trusted.

use std::{future, rc::Rc, time::Duration};

use mesh_core::{edge::Direction, reason::Reason};
use tokio::time::sleep;

use super::Worker;
use crate::{drain, tls::Credentials};

/// How long a connection goes on after its peer's certificate expired or lost its root: for requests that run, and for
/// opaque connections, which cannot be told to end, only cut.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The proxy ends, and knows how long it may take.
    Drain,
    /// The peer is no longer trusted.
    Untrusted,
}

impl Ending {
    /// Returns when what still runs on the connection is to be cut; the end of a drain does that by itself.
    pub(crate) async fn overdue(self) {
        match self {
            Self::Drain => future::pending().await,
            Self::Untrusted => sleep(GRACE).await,
        }
    }
}

impl Worker {
    /// Returns when a connection that can be told to end must be told: the proxy drains, or what its caller
    /// authenticated with no longer counts (then it is counted). `caller` is None for plaintext.
    pub(crate) async fn ending(&self, direction: Direction, caller: Option<Rc<Credentials>>) -> Ending {
        let mut drain = self.drain();
        let drained = drain::ending(&mut drain, direction);
        let Some(caller) = caller else {
            drained.await;
            return Ending::Drain;
        };
        tokio::select! {
            () = drained => Ending::Drain,
            () = caller.withdrawn(self.control.tls()) => {
                self.refused(direction, Reason::PeerNotTrusted);
                Ending::Untrusted
            }
        }
    }

    /// Returns when a connection that carries no HTTP is to be cut, since its peer is no longer trusted; never for
    /// plaintext.
    pub(crate) async fn overdue(&self, peer: Option<&Credentials>) -> Reason {
        let Some(peer) = peer else { return future::pending().await };
        peer.withdrawn(self.control.tls()).await;
        sleep(GRACE).await;
        Reason::PeerNotTrusted
    }
}
