//! Connections that stop speaking HTTP (RFC 9110 sections 7.8 and 9.3.6): after 101, or 2xx to CONNECT, both are copied into
//! each other.

use std::future::Future;

use http::{Method, Request, Response};
use mesh_core::{reason::Reason, settings::Timeouts};
use tokio::io::AsyncWrite;

use super::{
    body::{Incoming, RequestBody, ResponseBody},
    exchange::Exchange,
    h1::OnUpgrade,
};
use crate::{
    net::{
        Lend, blame,
        copy::{Counts, bidirectional},
        overtime::overtime,
    },
    pool::Lease,
    worker::Open,
};

/// The caller's half of an upgrade that its request asks for, or of a tunnel. That stands, or does not, within the time that
/// connecting takes. Until then nothing is read of what the caller sends into it, be it all that it has to say.
pub(crate) fn requested(request: &Request<RequestBody>) -> OnUpgrade {
    match *request.method() {
        Method::CONNECT => request.body().on_tunnel(),
        _ => request.body().on_upgrade(),
    }
}

/// Answers as the upstream did and joins both connections, until they end, `revoked` returns, or they are silent or stand for
/// longer than `timeouts` allow. The exchange ends with them, and with it `open`: limits hold for them and a drain waits for
/// them, as for any connection.
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
    Tunnel::new(exchange, None, (lease, open)).spawn(caller, upstream, timeouts, revoked);
    Response::from_parts(response, ResponseBody::none())
}

/// Two joined connections; counted when dropped, whatever happened.
pub(crate) struct Tunnel<H> {
    exchange: Exchange,
    counts: Counts,
    reason: Option<Reason>,
    /// What it is called when one of them breaks; None: their end.
    broken: Option<Reason>,
    /// What lives as long.
    _held: H,
}

impl<H: 'static> Tunnel<H> {
    /// One in which nothing was carried yet.
    pub(crate) fn new(exchange: Exchange, broken: Option<Reason>, held: H) -> Self {
        // Dropped half-way, at a drain's end for instance, it is counted all the same.
        let reason = Some(Reason::ShuttingDown);
        Self { exchange, counts: Counts::default(), reason, broken, _held: held }
    }

    /// Carries in a task of its own, once the caller was told that it may speak something else.
    pub(crate) fn spawn<S>(
        self,
        caller: OnUpgrade,
        upstream: Option<S>,
        timeouts: Timeouts,
        revoked: impl Future<Output = Reason> + 'static,
    ) where
        S: Lend + AsyncWrite + 'static,
    {
        tokio::task::spawn_local(self.carry(caller, upstream, timeouts, revoked));
    }

    async fn carry<S>(
        mut self,
        caller: OnUpgrade,
        upstream: Option<S>,
        timeouts: Timeouts,
        revoked: impl Future<Output = Reason>,
    ) where
        S: Lend + AsyncWrite,
    {
        let (Some(mut caller), Some(mut upstream)) = (caller.stream().await, upstream) else {
            self.reason = Some(Reason::ClientDisconnected);
            return;
        };
        self.reason = tokio::select! {
            outcome = bidirectional(&mut caller, &mut upstream, &self.counts) => {
                outcome.err().and_then(|error| {
                    tracing::debug!(%error, "joined connections ended");
                    blame(&error).or(self.broken)
                })
            }
            reason = revoked => Some(reason),
            reason = overtime(timeouts, &self.counts) => Some(reason),
        };
    }
}

impl<H> Drop for Tunnel<H> {
    fn drop(&mut self) {
        self.exchange.request_progress().bytes.set(self.counts.forth.get());
        self.exchange.response_bytes(self.counts.back.get());
        if let Some(reason) = self.reason {
            self.exchange.because(reason);
        }
        self.exchange.finish();
    }
}
