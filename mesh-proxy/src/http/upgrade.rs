//! Connections that stop speaking HTTP (RFC 9110 section 7.8): after 101 both are copied into each other.

use std::future::Future;

use http::{Request, Response};
use mesh_core::{reason::Reason, settings::Timeouts};

use super::{
    body::{Incoming, RequestBody, ResponseBody},
    exchange::Exchange,
    h1::OnUpgrade,
};
use crate::{
    net::{
        Prefixed, Stream,
        copy::{Counts, bidirectional},
        is_cut,
        overtime::overtime,
    },
    pool::Lease,
    worker::Open,
};

/// The caller's half of an upgrade that its request asks for.
pub(crate) fn requested(request: &Request<RequestBody>) -> OnUpgrade {
    request.body().on_upgrade()
}

/// Answers 101 and joins both connections, until they end, `revoked` returns, or they are silent or stand for longer than
/// `timeouts` allow. The exchange ends with them, and with it `open`: limits hold for them and a drain waits for them, as
/// for any connection.
pub(crate) fn join(
    caller: OnUpgrade,
    response: Response<Incoming>,
    lease: Lease,
    exchange: Exchange,
    open: Open,
    timeouts: Timeouts,
    revoked: impl Future<Output = Reason> + 'static,
) -> Response<ResponseBody> {
    let (response, body) = response.into_parts();
    let upstream = match body {
        Incoming::H1(received) => received.into_stream(),
        Incoming::H2(_) | Incoming::Asked(_) => None,
    };
    // Dropped half-way, at a drain's end for instance, it is counted all the same.
    let tunnel = Tunnel {
        exchange,
        counts: Counts::default(),
        reason: Some(Reason::ShuttingDown),
        _held: (lease, open),
    };
    tokio::task::spawn_local(carry(caller, upstream, tunnel, timeouts, revoked));
    Response::from_parts(response, ResponseBody::none())
}

async fn carry(
    caller: OnUpgrade,
    upstream: Option<Prefixed<Stream>>,
    mut tunnel: Tunnel,
    timeouts: Timeouts,
    revoked: impl Future<Output = Reason>,
) {
    let (Some(mut caller), Some(mut upstream)) = (caller.stream().await, upstream) else {
        tunnel.reason = Some(Reason::ClientDisconnected);
        return;
    };
    tunnel.reason = tokio::select! {
        outcome = bidirectional(&mut caller, &mut upstream, &tunnel.counts) => {
            outcome.err().and_then(|error| {
                tracing::debug!(%error, "upgraded connection ended");
                is_cut(&error).then_some(Reason::PeerNotTrusted)
            })
        }
        reason = revoked => Some(reason),
        reason = overtime(timeouts, &tunnel.counts) => Some(reason),
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
