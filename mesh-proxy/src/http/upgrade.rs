//! Connections that stop speaking HTTP (RFC 9110 section 7.8): after 101 both are copied into each other.

use http::{Request, Response};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{body::ResponseBody, exchange::Exchange};
use crate::{
    net::copy::{Counts, bidirectional},
    pool::Lease,
};

/// The caller's half of an upgrade that its request asks for.
pub(crate) fn requested<B>(request: &mut Request<B>) -> OnUpgrade {
    hyper::upgrade::on(request)
}

/// Answers 101 and joins both connections. The exchange ends with them.
pub(crate) fn join(
    caller: OnUpgrade,
    mut response: Response<Incoming>,
    lease: Lease,
    exchange: Exchange,
) -> Response<ResponseBody> {
    let upstream = hyper::upgrade::on(&mut response);
    tokio::task::spawn_local(carry(caller, upstream, lease, exchange));
    response.map(|_| ResponseBody::none())
}

async fn carry(caller: OnUpgrade, upstream: OnUpgrade, lease: Lease, mut exchange: Exchange) {
    let Ok((caller, upstream)) = tokio::try_join!(caller, upstream) else { return };
    let (mut caller, mut upstream) = (TokioIo::new(caller), TokioIo::new(upstream));
    let counts = Counts::default();
    let outcome = bidirectional(&mut caller, &mut upstream, &counts).await;
    exchange.request_counter().set(counts.forth.get());
    exchange.response_bytes(counts.back.get());
    if let Err(error) = outcome {
        tracing::debug!(%error, "upgraded connection ended");
    }
    exchange.finish();
    drop(lease);
}
