//! HTTP to the application: every request is authorised for itself.

use std::{cell::Cell, rc::Rc, sync::Arc};

use http::{Request, Response, StatusCode, Version};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use mesh_core::{edge::Direction, matching::RequestParts, protocol::Protocol, reason::Reason};

use super::port::Callee;
use crate::{
    http::{
        authority,
        body::{RequestBody, ResponseBody},
        exchange::Exchange,
        headers::{self, MESH_CLIENT_ID},
        reply::{Audience, refuse},
        serve, upgrade,
    },
    net::Stream,
    pool::{Failure, Lease, Upstream, Wire},
    telemetry::EdgeStats,
};

/// A connection that carries HTTP.
struct Server {
    callee: Callee,
    app: Rc<Upstream>,
    wire: Wire,
    seen: Protocol,
    /// The connection was counted, with its first call.
    counted: Cell<bool>,
}

/// Serves a connection that carries HTTP.
pub(super) async fn serve_http(callee: Callee, stream: Stream, http2: bool, wire: Wire) {
    let worker = Rc::clone(&callee.worker);
    // What is counted is what the calls are, not how proxies carry them.
    let seen = if wire == Wire::H2 { Protocol::Http2 } else { Protocol::Http1 };
    let server =
        Rc::new(Server { app: worker.app(callee.app), callee, wire, seen, counted: Cell::new(false) });
    let handle = Rc::new(move |request| handle(Rc::clone(&server), request));
    if http2 {
        serve::http2(&worker, Direction::Inbound, stream, handle).await;
    } else {
        serve::http1(&worker, Direction::Inbound, stream, handle).await;
    }
}

async fn handle(server: Rc<Server>, mut request: Request<Incoming>) -> Response<ResponseBody> {
    let trusted = server.callee.caller.is_some();
    let to = Audience { trusted, grpc: headers::is_grpc(request.headers()) };
    let edge = match server.authorise(&mut request) {
        Ok(edge) => edge,
        Err((edge, reason)) => {
            let exchange = server.begin(edge, &request);
            return refuse(exchange, reason, "", to);
        }
    };
    let mut exchange = server.begin(edge, &request);
    let version = request.version();
    let stripped = headers::strip(request.headers_mut(), version);
    if let Some(id) = &server.callee.client_id {
        request.headers_mut().insert(MESH_CLIENT_ID, id.clone());
    }
    let asked = stripped.upgrade.then(|| upgrade::requested(&mut request));
    if let Err(reason) = authority::write_for(&mut request, server.wire) {
        return refuse(exchange, reason, "", to);
    }
    exchange.sent_to(server.app.address());
    let request = request.map(|body| RequestBody::new(body, &mut exchange));
    match server.app.send(server.wire, None, request).await {
        Ok((response, lease)) => respond(response, lease, asked, exchange),
        Err(failure) => refuse(exchange, app_reason(&failure), "", to),
    }
}

impl Server {
    fn begin(&self, edge: Arc<EdgeStats>, request: &Request<Incoming>) -> Exchange {
        if !self.counted.replace(true) {
            edge.connection();
        }
        let mut exchange = Exchange::begin(edge);
        let callee = &self.callee;
        exchange.log_request(&callee.worker.access_log, Direction::Inbound, Some(callee.peer.0), request);
        exchange
    }

    /// Decides a request. Where a rule looks at paths, what it sees is what is forwarded.
    fn authorise(&self, request: &mut Request<Incoming>) -> Result<Arc<EdgeStats>, (Arc<EdgeStats>, Reason)> {
        let callee = &self.callee;
        let refused = |reason| (callee.undecided(self.seen), reason);
        if request.method() == http::Method::CONNECT {
            return Err(refused(Reason::BadRequest));
        }
        authority::host(request).map_err(refused).or_else(|bad| match request.version() {
            // HTTP/1.0 had no Host.
            Version::HTTP_10 => Ok(""),
            _ => Err(bad),
        })?;
        if callee.looks_at_paths() {
            let path = authority::normal_path(request.uri()).map_err(refused)?;
            if path != request.uri().path() {
                let path = path.into_owned();
                authority::set_path(request.uri_mut(), &path).map_err(refused)?;
            }
        }
        let parts = RequestParts {
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query(),
            headers: request.headers(),
        };
        let decided = callee.decide(Some(&parts), self.seen);
        match decided.verdict {
            Ok(()) => Ok(decided.edge),
            Err(reason) => Err((decided.edge, reason)),
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
    asked: Option<OnUpgrade>,
    mut exchange: Exchange,
) -> Response<ResponseBody> {
    let version = response.version();
    let stripped = headers::strip(response.headers_mut(), version);
    exchange.head(response.status(), response.headers());
    match asked {
        Some(caller) if response.status() == StatusCode::SWITCHING_PROTOCOLS && stripped.upgrade => {
            upgrade::join(caller, response, lease, exchange)
        }
        _ => response.map(|body| ResponseBody::upstream(body, lease, exchange)),
    }
}
