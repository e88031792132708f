//! Connections end when their time has come: the proxy drains, or a peer is no longer trusted.

use std::{future, time::Duration};

use mesh_core::{edge::Direction, reason::Reason};
use tokio::time::sleep;

use super::Worker;
use crate::{http::serve::draining, tls::Credentials};

/// How long an opaque connection goes on after its peer's certificate expired or lost its root: it cannot be told to
/// end, only cut.
const GRACE: Duration = Duration::from_secs(10);

impl Worker {
    /// Returns when a connection that can be told to end must be told: the proxy drains, or what its caller
    /// authenticated with no longer counts (then it is counted). `caller` is None for plaintext.
    pub(crate) async fn ending(&self, direction: Direction, caller: Option<Credentials>) {
        let mut drain = self.drain();
        let Some(caller) = caller else { return draining(&mut drain).await };
        tokio::select! {
            () = draining(&mut drain) => {}
            () = caller.withdrawn(self.control.tls()) => self.refused(direction, Reason::PeerNotTrusted),
        }
    }

    /// Returns when an opaque connection is to be cut, since its peer is no longer trusted; never for plaintext.
    pub(crate) async fn overdue(&self, peer: Option<Credentials>) -> Reason {
        let Some(peer) = peer else { return future::pending().await };
        peer.withdrawn(self.control.tls()).await;
        sleep(GRACE).await;
        Reason::PeerNotTrusted
    }
}
