//! HTTP to the application: every request is authorised for itself.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Request, Response, Version, request::Parts};
use mesh_core::{
    config::WorkloadConfig, edge::Direction, protocol::Protocol, reason::Reason, settings::Timeouts,
};

use super::{accept::Rest, port::Callee};
use crate::{
    http::{
        authority,
        body::{Incoming, RequestBody, ResponseBody},
        clock::{self, Clock, within},
        exchange::{Exchange, Held},
        h1::{OnUpgrade, switches},
        h2,
        headers::{self, MESH_CLIENT_ID},
        reply::{Audience, Refusal, refuse},
        serve, upgrade,
    },
    limits::PortLimits,
    net::Stream,
    pool::{Failure, Lease, Terms, Upstream, Wire},
    telemetry::EdgeStats,
    tls::Credentials,
    worker::Open,
};

/// What a caller is told whose tunnel policy does not let in.
const NO_CONNECT: &str = "No rule lets this caller open a tunnel: allow the method CONNECT by name, where the application is a \
                          proxy and no rule denies requests, or declare the port as tcp.";

/// A connection that carries HTTP.
struct Server {
    callee: Box<Callee>,
    app: Rc<Upstream>,
    wire: Wire,
    seen: Protocol,
    /// The connection was counted, with its first call.
    counted: Cell<bool>,
    /// What the caller authenticated with, as long as its calls go on.
    credentials: Option<Rc<Credentials>>,
    limits: RefCell<Limits>,
}

/// The limits of one port, valid for one configuration.
#[derive(Default)]
struct Limits {
    config: Option<Arc<WorkloadConfig>>,
    limits: Option<Arc<PortLimits>>,
}

/// A request that policy lets in.
struct Entered {
    /// What is counted.
    edge: Arc<EdgeStats>,
    /// What else it must keep to; None: nothing.
    limits: Option<Arc<PortLimits>>,
}

/// Serves a connection that carries HTTP.
pub(super) fn serve_http(callee: Box<Callee>, stream: Stream, http2: bool, wire: Wire) -> Rest {
    let worker = Rc::clone(&callee.worker);
    // What is counted is what the calls are, not how proxies carry them.
    let seen = if wire == Wire::H2 { Protocol::Http2 } else { Protocol::Http1 };
    let credentials = stream.caller().map(Rc::new);
    let server = Rc::new(Server {
        app: worker.app(callee.app),
        callee,
        wire,
        seen,
        counted: Cell::new(false),
        credentials: credentials.clone(),
        limits: RefCell::default(),
    });
    let handle = Rc::new(move |request| handle(Rc::clone(&server), request));
    if http2 {
        Box::pin(async move { h2::serve(&worker, Direction::Inbound, stream, credentials, handle).await })
    } else {
        Box::pin(async move { serve::http1(&worker, Direction::Inbound, stream, credentials, handle).await })
    }
}

async fn handle(server: Rc<Server>, mut request: Request<RequestBody>) -> Response<ResponseBody> {
    let trusted = server.callee.caller.is_some();
    let version = request.version();
    let connect = request.method() == Method::CONNECT;
    // Before anything is decided: what is decided on is what the application sees.
    let stripped = headers::strip_any(request.headers_mut(), version, connect);
    let to = Audience { trusted, grpc: headers::wants_grpc(&request) };
    let Entered { edge, limits } = match server.authorise(&mut request) {
        Ok(entered) => entered,
        Err((edge, reason)) => {
            let exchange = server.begin(edge, &request);
            let unprocessed = reason == Reason::DiscoveryUnavailable;
            let detail = if connect && reason == Reason::AuthzDenied { NO_CONNECT } else { "" };
            return Refusal { unprocessed, detail, ..Refusal::of(reason) }.respond(exchange, to);
        }
    };
    let mut exchange = server.begin(edge, &request);
    if let Some(limits) = limits {
        match limits.admit(server.callee.caller.as_ref(), request.headers()) {
            Ok(None) => {}
            Ok(Some(permit)) => exchange.hold(Held::Permit(permit)),
            Err(refusal) => return refusal.respond(exchange, to),
        }
    }
    let asked = stripped.upgrade.then(|| Asked::by(&server, &request));
    if authority::is_hostless(&request) {
        authority::name_host(&mut request, server.app.address());
    }
    if let Some(id) = &server.callee.client_id {
        request.headers_mut().insert(MESH_CLIENT_ID, id.clone());
    }
    if let Err(reason) = authority::write_for(&mut request, server.wire) {
        return refuse(exchange, reason, "", to);
    }
    exchange.sent_to(server.app.address());
    let mut clock = deadline(trusted.then_some(stripped.timeout).flatten(), to.grpc, &mut request, &exchange);
    request.body_mut().count_for(&mut exchange);
    if server.wire == Wire::H1 {
        request.body_mut().limit_silence(server.callee.worker.config.body_idle);
    }
    let terms = Terms::usual(None);
    let sending = server.app.send(server.wire, &terms, &mut request);
    match within(clock.as_deref_mut(), None, sending).await {
        Ok(Ok((response, lease))) => respond(response, lease, asked, exchange, clock),
        Ok(Err(failure)) => {
            // Then another endpoint may have it, whatever it asks for.
            let unprocessed = failure.unsent || failure.refused;
            let reason = exchange.fault().unwrap_or_else(|| app_reason(&failure));
            Refusal { unprocessed, ..Refusal::of(reason) }.respond(exchange, to)
        }
        Err(_) => refuse(exchange, Reason::RequestTimeout, "", to),
    }
}

/// Starts a clock where the caller gives a time: what nobody waits for any more is not worked on.
fn deadline(
    given: Option<Duration>,
    grpc: bool,
    request: &mut Request<RequestBody>,
    exchange: &Exchange,
) -> Option<Box<Clock>> {
    let own = if grpc { clock::of_grpc(request.headers()) } else { None };
    let time = [given, own].into_iter().flatten().min()?;
    let clock = Clock::until(Some(exchange.started() + time), Instant::now());
    clock.tell(request.headers_mut(), grpc, false);
    Some(Box::new(clock))
}

impl Server {
    fn begin(&self, edge: Arc<EdgeStats>, request: &Request<RequestBody>) -> Exchange {
        if !self.counted.replace(true) {
            edge.connection();
        }
        let mut exchange = Exchange::begin(edge, request.method());
        let callee = &self.callee;
        exchange.log_request(
            &callee.worker.access_log,
            Direction::Inbound,
            Some(callee.ends.source),
            request,
        );
        exchange
    }

    /// The limits of the port, as one configuration has them. Nearly always there are none.
    fn limits(&self, config: &Arc<WorkloadConfig>) -> Option<Arc<PortLimits>> {
        let mut known = self.limits.borrow_mut();
        if !known.config.as_ref().is_some_and(|of| Arc::ptr_eq(of, config)) {
            let port = config.inbound.iter().find(|port| port.port == self.callee.port);
            known.limits = port.and_then(|port| self.callee.worker.shared.port(port.port, &port.limits));
            known.config = Some(Arc::clone(config));
        }
        known.limits.clone()
    }

    /// Decides a request. Where a rule looks at paths, what it sees is what is forwarded.
    fn authorise(&self, request: &mut Request<RequestBody>) -> Result<Entered, (Arc<EdgeStats>, Reason)> {
        let callee = &self.callee;
        let refused = |reason| (callee.undecided(self.seen), reason);
        let connect = request.method() == Method::CONNECT;
        if connect && (request.version() == Version::HTTP_2 || self.wire == Wire::H2) {
            return Err(refused(Reason::Unsupported));
        }
        if !authority::is_hostless(request) {
            authority::host(request).map_err(refused)?;
        }
        // One configuration for all of it. Listeners stand only once there is one; without one nothing is let in.
        let config = callee.worker.workload().ok_or_else(|| refused(Reason::DiscoveryUnavailable))?;
        // CONNECT has no path.
        if config.policy.looks_at_paths(callee.port) && !connect {
            authority::normalise_path(request.uri_mut()).map_err(refused)?;
        }
        let parts = authority::parts(request.method(), request.uri(), request.headers());
        let decided = callee.decide_by(&config, Some(&parts), self.seen);
        match decided.verdict {
            Ok(()) => Ok(Entered { edge: decided.edge, limits: self.limits(&config) }),
            Err(reason) => Err((decided.edge, reason)),
        }
    }
}

/// A request for an upgrade, or for a tunnel through the application: the caller's half, and what the request was, for
/// policy to decide again.
struct Asked {
    server: Rc<Server>,
    caller: OnUpgrade,
    request: Parts,
}

impl Asked {
    fn by(server: &Rc<Server>, request: &Request<RequestBody>) -> Self {
        let again = authority::copy_head(request);
        let caller = upgrade::requested(request);
        Self { server: Rc::clone(server), caller, request: again.into_parts().0 }
    }
}

/// Returns when a request that became a connection is to be cut: policy or trust no longer lets it in.
async fn ended(server: Rc<Server>, request: Parts) -> Reason {
    tokio::select! {
        reason = revoked(&server, &request) => reason,
        reason = server.callee.worker.overdue(server.credentials.as_deref()) => reason,
    }
}

/// Returns when policy no longer lets a request in.
async fn revoked(server: &Server, request: &Parts) -> Reason {
    let callee = &server.callee;
    let mut changes = callee.worker.workload_changes();
    let parts = authority::parts(&request.method, &request.uri, &request.headers);
    loop {
        // At once too: policy may have changed since the request was let in.
        if let Err(reason) = callee.decide(Some(&parts), server.seen).verdict {
            return reason;
        }
        if changes.changed().await.is_err() {
            // The last policy stays.
            return std::future::pending().await;
        }
    }
}

/// What failed is the application, not a peer.
fn app_reason(failure: &Failure) -> Reason {
    match failure.reason {
        Reason::UpstreamConnectFailed | Reason::UpstreamConnectTimeout => Reason::AppUnavailable,
        other => other,
    }
}

fn respond(
    mut response: Response<Incoming>,
    lease: Lease,
    asked: Option<Asked>,
    mut exchange: Exchange,
    clock: Option<Box<Clock>>,
) -> Response<ResponseBody> {
    let version = response.version();
    let connect = asked.as_ref().is_some_and(|asked| asked.request.method == Method::CONNECT);
    let stripped = headers::strip_any(response.headers_mut(), version, connect);
    exchange.head(response.status(), response.headers());
    exchange.answered();
    match asked {
        Some(asked) if switches(connect, response.status()) && stripped.upgrade => {
            let open = Open::count(&asked.server.callee.worker, Direction::Inbound);
            let revoked = ended(asked.server, asked.request);
            // Limits of time are the caller's.
            let timeouts = Timeouts::default();
            upgrade::join(asked.caller, response, lease, exchange, open, timeouts, revoked)
        }
        _ => response.map(|body| ResponseBody::upstream(body, lease, exchange, clock)),
    }
}
