//! Connections that stop speaking HTTP (RFC 9110 section 7.8): after 101 both are copied into each other.

use std::future::Future;

use http::{Request, Response};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use mesh_core::reason::Reason;

use super::{body::ResponseBody, exchange::Exchange};
use crate::{
    net::copy::{Counts, bidirectional},
    pool::Lease,
    worker::Open,
};

/// The caller's half of an upgrade that its request asks for.
pub(crate) fn requested<B>(request: &mut Request<B>) -> OnUpgrade {
    hyper::upgrade::on(request)
}

/// Answers 101 and joins both connections, until they end or `revoked` returns. The exchange ends with them, and with
/// it `open`: limits hold for them and a drain waits for them, as for any connection.
pub(crate) fn join(
    caller: OnUpgrade,
    mut response: Response<Incoming>,
    lease: Lease,
    exchange: Exchange,
    open: Open,
    revoked: impl Future<Output = Reason> + 'static,
) -> Response<ResponseBody> {
    let upstream = hyper::upgrade::on(&mut response);
    // Dropped half-way, at a drain's end for instance, it is counted all the same.
    let tunnel = Tunnel {
        exchange,
        counts: Counts::default(),
        reason: Some(Reason::ShuttingDown),
        _held: (lease, open),
    };
    tokio::task::spawn_local(carry(caller, upstream, tunnel, revoked));
    response.map(|_| ResponseBody::none())
}

async fn carry(
    caller: OnUpgrade,
    upstream: OnUpgrade,
    mut tunnel: Tunnel,
    revoked: impl Future<Output = Reason>,
) {
    let Ok((caller, upstream)) = tokio::try_join!(caller, upstream) else {
        tunnel.reason = Some(Reason::ClientDisconnected);
        return;
    };
    let (mut caller, mut upstream) = (TokioIo::new(caller), TokioIo::new(upstream));
    tunnel.reason = tokio::select! {
        outcome = bidirectional(&mut caller, &mut upstream, &tunnel.counts) => {
            if let Err(error) = outcome {
                tracing::debug!(%error, "upgraded connection ended");
            }
            None
        }
        reason = revoked => Some(reason),
    };
}

/// Two joined connections; counted when dropped, whatever happened.
struct Tunnel {
    exchange: Exchange,
    counts: Counts,
    reason: Option<Reason>,
    /// What lives as long.
    _held: (Lease, Open),
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.exchange.request_progress().bytes.set(self.counts.forth.get());
        self.exchange.response_bytes(self.counts.back.get());
        if let Some(reason) = self.reason {
            self.exchange.because(reason);
        }
        self.exchange.finish();
    }
}
