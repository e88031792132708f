//! Copies of requests for other Services. Nobody waits for them, and their answers are dropped.
//!
//! A copy is sent once the request's body has passed, of which at most as much is kept as for a retry; a larger one is
//! not copied. So the request itself is never delayed, and a copy is never half a request.

use std::{cell::Cell, net::IpAddr, rc::Rc, sync::Arc, time::Duration};

use http::Request;
use http_body_util::BodyExt as _;
use mesh_core::{filter::Filter, protocol::Protocol, reason::Reason, resilience::breaker::Kind};
use tokio::time::timeout;

use super::attempt::wire;
use crate::{
    balance::{Affinity, EndpointState, Flight},
    http::{authority, body::RequestBody},
    limits::Circuit,
    outbound::table::Table,
    pool::Terms,
    telemetry::Shard,
    worker::Worker,
};

/// Copies of one worker that are under way at a time; more are dropped, and counted.
const MAX_COPIES: usize = 64;
/// How long a copy may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Copies `request` as the `filters` of a rule want it.
pub(super) fn copy(
    worker: &Rc<Worker>,
    table: &Table,
    filters: &[Filter],
    request: &mut Request<RequestBody>,
    source: IpAddr,
    seen: Protocol,
) {
    for filter in filters {
        let Filter::Mirror(mirror) = filter else { continue };
        if !mirror.share.takes(fastrand::u64(..)) {
            continue;
        }
        let Some(copying) = Copying::begin(worker) else { continue };
        // Copies of what belongs together go together.
        let call = Affinity { headers: Some(request.headers()), source: Some(source), hash: None };
        let Some((endpoint, circuit)) = table.mirror(&mirror.service, call) else { continue };
        let head = authority::copy_head(request);
        let own = Rc::clone(worker);
        let send = move |body| {
            tokio::task::spawn_local(copying.send(own, (endpoint, circuit), head.map(|()| body), seen));
        };
        match request.body_mut().replay() {
            None => send(RequestBody::none()),
            Some(replay) => replay.when_complete(Box::new(send)),
        }
    }
}

/// A copy under way; counted when dropped.
struct Copying {
    shard: Arc<Shard>,
    under_way: Rc<Cell<usize>>,
    sent: bool,
}

impl Copying {
    fn begin(worker: &Worker) -> Option<Self> {
        let under_way = worker.services.copies();
        if under_way.get() >= MAX_COPIES {
            worker.shard.mirrored(false);
            return None;
        }
        under_way.set(under_way.get() + 1);
        Some(Self { shard: Arc::clone(&worker.shard), under_way, sent: false })
    }

    async fn send(
        mut self,
        worker: Rc<Worker>,
        (endpoint, circuit): (Rc<EndpointState>, Option<Rc<Circuit>>),
        mut request: Request<RequestBody>,
        seen: Protocol,
    ) {
        let secured = endpoint.endpoint.identity.is_some();
        let Ok(epoch) = (if secured { worker.wait_for_tls().await.map(Some) } else { Ok(None) }) else {
            return;
        };
        let wire = wire(&worker, endpoint.endpoint.protocol, seen, secured, false);
        if authority::write_for(&mut request, wire).is_err() {
            return;
        }
        let terms = Terms { circuit: circuit.as_deref(), ..Terms::usual(epoch.as_deref()) };
        let Ok(_counted) = terms.take(Kind::Requests) else { return };
        let mut flight = Flight::start(&endpoint);
        let exchange = async {
            let (response, _lease) = match endpoint.upstream.send(wire, &terms, &mut request).await {
                Ok(answered) => answered,
                Err(failure) => {
                    if failure.reason != Reason::CircuitOpen {
                        flight.failed();
                    }
                    return None;
                }
            };
            match response.status().is_server_error() {
                true => flight.answered_badly(),
                false => flight.answered(),
            }
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.frame().await {}
            Some(())
        };
        self.sent = matches!(timeout(PATIENCE, exchange).await, Ok(Some(())));
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.under_way.set(self.under_way.get().saturating_sub(1));
        self.shard.mirrored(self.sent);
    }
}
