//! One request and its response, from head to last byte, counted once whatever happens.

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use http::{HeaderMap, Method, Request, StatusCode};
use mesh_core::{
    edge::{Direction, grpc_status_is_failure},
    reason::Reason,
    resilience::breaker::Counted,
};

use super::headers;
use crate::{
    limits::Permit,
    telemetry::{
        EdgeStats, Outcome,
        access_log::{AccessLog, Entry},
    },
};

/// How the body of a request fares; shared with the body.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Bytes so far.
    pub bytes: Cell<u64>,
    /// What the caller did wrong with it, once it did.
    pub fault: Cell<Option<Reason>>,
    /// The response has begun.
    pub answered: Cell<bool>,
}

/// Counts one exchange. When it is dropped before [`Exchange::finish`], the caller went away.
pub(crate) struct Exchange {
    edge: Arc<EdgeStats>,
    started: Instant,
    /// None when there is no body.
    request: Option<Rc<Progress>>,
    response_bytes: u64,
    status: Option<u16>,
    reason: Option<Reason>,
    failed: bool,
    grpc: bool,
    /// The response has no body, whatever its fields say (RFC 9112 section 6.3).
    without_body: bool,
    done: bool,
    retries: u32,
    /// What counts as in use meanwhile.
    held: Held,
    log: Option<Box<Line>>,
}

/// What an exchange has in use until it ends.
#[derive(Default)]
pub(crate) enum Held {
    /// Nothing that is limited.
    #[default]
    Nothing,
    /// One of the requests in flight to a Service.
    Circuit { _counted: Counted },
    /// One of the requests that the application can bear.
    Permit(Permit),
}

/// What the access log wants to know besides.
struct Line {
    log: AccessLog,
    direction: Direction,
    peer: Option<SocketAddr>,
    upstream: Option<SocketAddr>,
    method: Method,
    authority: Option<String>,
    path: String,
}

impl Exchange {
    /// Begins an exchange that counts on `edge` until a better one is known.
    pub(crate) fn begin(edge: Arc<EdgeStats>, method: &Method) -> Self {
        Self {
            edge,
            started: Instant::now(),
            request: None,
            response_bytes: 0,
            status: None,
            reason: None,
            failed: false,
            grpc: false,
            without_body: method == Method::HEAD,
            done: false,
            retries: 0,
            held: Held::Nothing,
            log: None,
        }
    }

    /// Keeps what the access log will want, when it is on.
    pub(crate) fn log_request<B>(
        &mut self,
        log: &AccessLog,
        direction: Direction,
        peer: Option<SocketAddr>,
        request: &Request<B>,
    ) {
        if !log.enabled() {
            return;
        }
        let host = || request.headers().get(http::header::HOST)?.to_str().ok().map(str::to_owned);
        self.log = Some(Box::new(Line {
            log: log.clone(),
            direction,
            peer,
            upstream: None,
            method: request.method().clone(),
            authority: request.uri().authority().map(ToString::to_string).or_else(host),
            path: request.uri().path().to_owned(),
        }));
    }

    /// Notes where the request is sent, for the access log.
    pub(crate) fn sent_to(&mut self, upstream: SocketAddr) {
        if let Some(line) = &mut self.log {
            line.upstream = Some(upstream);
        }
    }

    /// Sets the edge on which it will be counted.
    pub(crate) fn on_edge(&mut self, edge: &Arc<EdgeStats>) {
        if !Arc::ptr_eq(&self.edge, edge) {
            self.edge = Arc::clone(edge);
        }
    }

    /// When it began.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// Keeps what counts as in use, in place of what was kept.
    pub(crate) fn hold(&mut self, held: Held) {
        self.held = held;
    }

    /// Notes that the application answered.
    pub(crate) fn answered(&mut self) {
        if let Held::Permit(permit) = &mut self.held {
            permit.answered();
        }
    }

    /// Notes that the request is sent once more.
    pub(crate) fn retried(&mut self) {
        self.retries += 1;
        self.edge.retried();
    }

    /// Where the request's body says how it fares.
    pub(crate) fn request_progress(&mut self) -> Rc<Progress> {
        Rc::clone(self.request.get_or_insert_default())
    }

    /// What the caller did wrong with its body: what else failed follows from it.
    pub(crate) fn fault(&self) -> Option<Reason> {
        self.request.as_ref().and_then(|request| request.fault.get())
    }

    /// Notes the response's head.
    pub(crate) fn head(&mut self, status: StatusCode, fields: &HeaderMap) {
        self.status = Some(status.as_u16());
        if let Some(request) = &self.request {
            request.answered.set(true);
        }
        self.failed |= status.is_server_error();
        self.without_body |= matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.grpc = headers::is_grpc(fields);
        if self.grpc {
            self.grpc_status(fields);
        }
    }

    /// True when the response's head is all of it.
    pub(crate) fn without_body(&self) -> bool {
        self.without_body
    }

    /// True when the response is gRPC's.
    pub(crate) fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// Notes that a proxy made the response, or ended the exchange, and why.
    pub(crate) fn because(&mut self, reason: Reason) {
        self.reason = Some(reason);
        self.failed = true;
    }

    /// Counts bytes of the response's body.
    pub(crate) fn response_bytes(&mut self, count: u64) {
        self.response_bytes += count;
    }

    /// Notes the response's trailers.
    pub(crate) fn trailers(&mut self, fields: &HeaderMap) {
        if self.grpc {
            self.grpc_status(fields);
        }
    }

    fn grpc_status(&mut self, fields: &HeaderMap) {
        self.failed |= headers::grpc_status(fields).is_some_and(grpc_status_is_failure);
    }

    /// Counts it; later calls do nothing.
    pub(crate) fn finish(&mut self) {
        if self.done {
            return;
        }
        self.done = true;
        self.held = Held::Nothing;
        let outcome = Outcome {
            status: self.status,
            failed: self.failed,
            reason: self.reason,
            micros: self.started.elapsed().as_micros() as u64,
            request_bytes: self.request.as_ref().map_or(0, |request| request.bytes.get()),
            response_bytes: self.response_bytes,
            retries: self.retries,
        };
        self.edge.finished(&outcome);
        if let Some(line) = self.log.take() {
            (*line).write(&self.edge, outcome);
        }
    }
}

impl Line {
    fn write(self, edge: &Arc<EdgeStats>, outcome: Outcome) {
        let Self { log, direction, peer, upstream, method, authority, path } = self;
        log.write(Entry {
            direction,
            edge: Some(Arc::clone(edge)),
            peer,
            upstream,
            method: Some(method),
            authority,
            path: Some(path),
            server_name: None,
            outcome,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.done {
            self.because(Reason::ClientDisconnected);
            self.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::{edge::EdgeKey, protocol::Protocol};

    use super::*;
    use crate::telemetry::Shard;

    fn edge(shard: &Shard) -> Arc<EdgeStats> {
        let unknown = EdgeKey::unknown(Direction::Outbound);
        shard.edge(&EdgeKey { protocol: Protocol::Http1, secured: true, ..unknown })
    }

    fn totals(act: impl FnOnce(&mut Exchange)) -> mesh_core::edge::EdgeTotals {
        let shard = Shard::new();
        let edge = edge(&shard);
        let mut exchange = Exchange::begin(Arc::clone(&edge), &Method::GET);
        act(&mut exchange);
        drop(exchange);
        edge.totals()
    }

    #[test]
    fn counts_once_whatever_happens() {
        let good = totals(|exchange| {
            exchange.head(StatusCode::OK, &HeaderMap::new());
            exchange.response_bytes(5);
            exchange.finish();
            exchange.finish();
        });
        assert_eq!((good.requests, good.failures, good.response_bytes), (1, 0, 5));
        let gone = totals(|_| {});
        assert_eq!((gone.requests, gone.failures), (1, 1));
        assert_eq!(gone.reasons.get(&Reason::ClientDisconnected), Some(&1));
    }

    #[test]
    fn grpc_trailers_decide() {
        let fields = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(
                http::HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            )])
        };
        let ended_with = |status: &'static str| {
            totals(|exchange| {
                exchange.head(StatusCode::OK, &fields("content-type", "application/grpc"));
                exchange.trailers(&fields("grpc-status", status));
                exchange.finish();
            })
        };
        assert_eq!(ended_with("0").failures, 0);
        assert_eq!(ended_with("5").failures, 0, "NOT_FOUND is the caller's");
        assert_eq!(ended_with("14").failures, 1);
    }
}
