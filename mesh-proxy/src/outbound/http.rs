//! HTTP from the application: every request is routed and balanced for itself.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use http::{Method, Request, Response, Version, header::SET_COOKIE};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use mesh_core::{
    addr::PeerAddr, edge::Direction, matching::RequestParts, name::Host, protocol::Protocol, reason::Reason,
    resource::DestinationKey,
};
use tokio::net::TcpStream;

use super::{
    destinations::Destination,
    table::{Choice, Kind, Table},
};
use crate::{
    balance::Flight,
    config::Http1Transport,
    detect::{Detected, Opening},
    http::{
        authority,
        body::{self, RequestBody, ResponseBody},
        exchange::Exchange,
        headers::{self, MESH_REASON},
        reply::{Audience, refuse},
        serve, upgrade,
    },
    net::Stream,
    pool::{Failure, Lease, Wire},
    worker::{Open, Worker},
};

/// Endpoints that are tried for one request, as long as nothing of it was sent.
const ATTEMPTS: usize = 3;

/// One connection of the application.
pub(super) struct Caller {
    worker: Rc<Worker>,
    peer: SocketAddr,
    /// Where all its requests go; None: each says it itself.
    fixed: Option<Rc<Destination>>,
    /// What the last request named, which the next one nearly always names again.
    last: RefCell<Option<(Box<str>, Rc<Destination>)>>,
}

/// Why a request ends here, and what to say besides.
struct Refusal {
    reason: Reason,
    detail: String,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: String::new() }
    }
}

/// Serves a connection whose requests say where they go (explicit mode).
pub(crate) async fn by_host(worker: &Rc<Worker>, stream: TcpStream, peer: PeerAddr) {
    let detected = worker.detect(Direction::Outbound, Opening::new(stream), serve::HEAD_TIMEOUT).await;
    let Some((detected, opening)) = detected else {
        return;
    };
    let protocol = match detected {
        Some(Detected::Http2) => Protocol::Http2,
        Some(Detected::Http1) => Protocol::Http1,
        // HTTP/1 answers 400 to what it cannot read.
        Some(Detected::Other) => Protocol::Http1,
        Some(Detected::MeshTls | Detected::ForeignTls) | None => {
            return worker.refused(Direction::Outbound, Reason::BadRequest);
        }
    };
    serve_http(worker, Stream::Tcp(opening.into_stream()), peer, None, protocol).await;
}

/// Serves a connection that speaks HTTP.
pub(super) async fn serve_http(
    worker: &Rc<Worker>,
    stream: Stream,
    peer: PeerAddr,
    fixed: Option<Rc<Destination>>,
    protocol: Protocol,
) {
    let caller = Rc::new(Caller { worker: Rc::clone(worker), peer: peer.0, fixed, last: RefCell::default() });
    let handle = Rc::new(move |request| handle(Rc::clone(&caller), request));
    if protocol == Protocol::Http1 {
        serve::http1(worker, Direction::Outbound, stream, None, handle).await;
    } else {
        serve::http2(worker, Direction::Outbound, stream, None, handle).await;
    }
}

async fn handle(caller: Rc<Caller>, request: Request<Incoming>) -> Response<ResponseBody> {
    let worker = &caller.worker;
    let seen = if request.version() == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
    let to = Audience { trusted: true, grpc: headers::is_grpc(request.headers()) };
    let destination = match caller.destination(&request) {
        Ok(destination) => destination,
        Err(refusal) => {
            let exchange = caller.begin(worker.bare_edge(Direction::Outbound, seen), &request);
            return refuse(exchange, refusal.reason, &refusal.detail, to);
        }
    };
    let table = match destination.table(worker).await {
        Ok(table) => table,
        Err(reason) => {
            let exchange = caller.begin(worker.bare_edge(Direction::Outbound, seen), &request);
            return refuse(exchange, reason, "", to);
        }
    };
    forward(&caller, &table, request, seen, to).await
}

impl Caller {
    fn begin(
        &self,
        edge: std::sync::Arc<crate::telemetry::EdgeStats>,
        request: &Request<Incoming>,
    ) -> Exchange {
        let mut exchange = Exchange::begin(edge, request.method());
        exchange.log_request(&self.worker.access_log, Direction::Outbound, Some(self.peer), request);
        exchange
    }

    /// The destination that a request names.
    fn destination(&self, request: &Request<Incoming>) -> Result<Rc<Destination>, Refusal> {
        if request.method() == Method::CONNECT {
            let detail = "CONNECT is not carried: declare a TCP upstream instead".to_owned();
            return Err(Refusal { reason: Reason::BadRequest, detail });
        }
        let host = authority::host(request);
        if let Some(fixed) = &self.fixed {
            // The original destination decides; the head must still be unambiguous.
            return host.map(|_| Rc::clone(fixed)).map_err(Refusal::from);
        }
        let host = host?;
        if let Some((name, destination)) = &*self.last.borrow()
            && **name == *host
        {
            return Ok(Rc::clone(destination));
        }
        let parsed: Host = host
            .parse()
            .map_err(|error| Refusal { reason: Reason::UnknownDestination, detail: format!("{error}") })?;
        let destination = self.worker.destinations.get(&self.worker, &DestinationKey::Host(parsed))?;
        destination.touch();
        *self.last.borrow_mut() = Some((host.into(), Rc::clone(&destination)));
        Ok(destination)
    }
}

async fn forward(
    caller: &Caller,
    table: &Table,
    mut request: Request<Incoming>,
    seen: Protocol,
    to: Audience,
) -> Response<ResponseBody> {
    let worker = &caller.worker;
    if let Kind::Unknown(text) = table.kind() {
        let exchange = caller.begin(table.edge(seen), &request);
        // Names of objects are for logs and meshctl; the response has the code and what to do.
        tracing::info!(detail = text, "unknown destination");
        return refuse(exchange, Reason::UnknownDestination, "", to);
    }
    let version = request.version();
    // Before anything is decided: what is decided on is what is sent.
    let stripped = headers::strip(request.headers_mut(), version);
    let choice = match choose(table, &mut request, seen, caller.peer) {
        Ok(choice) => choice,
        Err(nowhere) => {
            let exchange = caller.begin(nowhere.edge, &request);
            return refuse(exchange, nowhere.reason, "", to);
        }
    };
    let mut exchange = caller.begin(std::sync::Arc::clone(&choice.edge), &request);
    let asked = stripped.upgrade.then(|| upgrade::requested(&mut request));
    // What is said before a response is said in HTTP/1 only.
    let plain = asked.is_some() || request.headers().contains_key(http::header::EXPECT);
    let request = request.map(|body| RequestBody::new(body, &mut exchange));
    let sent = send(caller, table, choice, request, seen, plain, &mut exchange).await;
    match sent {
        Ok((response, lease, reason)) => {
            let asked = asked.map(|asked| (asked, worker));
            respond(response, lease, reason, asked, exchange)
        }
        Err(reason) => refuse(exchange, reason, "", to),
    }
}

/// Routes a request, in the one reading of its path when a route looks at paths.
fn choose(
    table: &Table,
    request: &mut Request<Incoming>,
    seen: Protocol,
    peer: SocketAddr,
) -> Result<Choice, Box<super::table::Nowhere>> {
    if table.looks_at_paths() {
        let ambiguous = |reason| Box::new(super::table::Nowhere { reason, edge: table.edge(seen) });
        let path = authority::normal_path(request.uri()).map_err(ambiguous)?;
        if path != request.uri().path() {
            let path = path.into_owned();
            authority::set_path(request.uri_mut(), &path).map_err(ambiguous)?;
        }
    }
    let parts = RequestParts {
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
        authority: authority::named(request.uri(), request.headers()),
    };
    table.choose(Some(&parts), seen, Some(peer.ip()), None)
}

/// Sends to the chosen endpoint, or to another one as long as nothing was sent. With the response comes the reason that
/// the peer's proxy gave.
async fn send(
    caller: &Caller,
    table: &Table,
    mut choice: Choice,
    mut request: Request<RequestBody>,
    seen: Protocol,
    upgrade: bool,
    exchange: &mut Exchange,
) -> Result<(Response<body::Incoming>, Lease, Option<Reason>), Reason> {
    let worker = &caller.worker;
    let mut attempt = 1;
    loop {
        let secured = choice.endpoint.endpoint.identity.is_some();
        let epoch = if secured { Some(worker.wait_for_tls().await?) } else { None };
        let wire = wire(worker, choice.endpoint.endpoint.protocol, seen, secured, upgrade);
        authority::write_for(&mut request, wire)?;
        exchange.on_edge(&choice.edge);
        exchange.sent_to(choice.endpoint.upstream.address());
        let mut flight = Flight::start(&choice.endpoint);
        match choice.endpoint.upstream.send(wire, epoch.as_deref(), request).await {
            Ok((mut response, mut lease)) => {
                // Only a proxy of the mesh can have said it: it strips what its application says in the mesh's name.
                let reason = if secured { headers::take_reason(response.headers()) } else { None };
                // An error is quickly made; it must not look like a quick answer.
                if reason.is_some_and(|reason| reason.http_status().is_server_error()) {
                    flight.failed();
                } else if response.status().is_server_error() {
                    flight.answered_badly();
                } else {
                    flight.answered();
                }
                if let Some(cookie) = choice.cookie.take() {
                    response.headers_mut().append(SET_COOKIE, cookie);
                }
                lease.flight = Some(flight);
                if lease.fresh {
                    choice.edge.connection();
                }
                return Ok((response, lease, reason));
            }
            Err(Failure { reason, unsent }) => {
                flight.failed();
                drop(flight);
                attempt += 1;
                match unsent {
                    Some(unsent) if attempt <= ATTEMPTS => request = *unsent,
                    _ => return Err(reason),
                }
                choice = retry(table, &choice, &request, seen, caller.peer).ok_or(reason)?;
            }
        }
    }
}

/// Another endpoint for a request of which nothing was sent. None: there is no other.
fn retry(
    table: &Table,
    failed: &Choice,
    request: &Request<RequestBody>,
    seen: Protocol,
    peer: SocketAddr,
) -> Option<Choice> {
    let parts = RequestParts {
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
        authority: authority::named(request.uri(), request.headers()),
    };
    let choice = table.choose(Some(&parts), seen, Some(peer.ip()), Some(&failed.endpoint)).ok()?;
    (!Rc::ptr_eq(&choice.endpoint, &failed.endpoint)).then_some(choice)
}

/// How a request travels: what the application speaks there decides; where that is not declared, what the caller
/// speaks.
fn wire(worker: &Worker, declared: Protocol, seen: Protocol, secured: bool, upgrade: bool) -> Wire {
    let http1 = match declared {
        Protocol::Http1 => true,
        Protocol::Http2 | Protocol::Grpc => false,
        Protocol::Undeclared | Protocol::Opaque => seen == Protocol::Http1,
    };
    match http1 {
        false => Wire::H2,
        true if upgrade || !secured => Wire::H1,
        // Frames of HTTP/2 stay frames; the peer's proxy writes them to HTTP/1.
        true if seen == Protocol::Http2 => Wire::H1OverH2,
        true => match worker.config.http1_transport {
            Http1Transport::H1 => Wire::H1,
            Http1Transport::H1OverH2 => Wire::H1OverH2,
        },
    }
}

fn respond(
    mut response: Response<body::Incoming>,
    lease: Lease,
    reason: Option<Reason>,
    asked: Option<(OnUpgrade, &Rc<Worker>)>,
    mut exchange: Exchange,
) -> Response<ResponseBody> {
    let version = response.version();
    let stripped = headers::strip(response.headers_mut(), version);
    exchange.head(response.status(), response.headers());
    if let Some(reason) = reason {
        exchange.because(reason);
        response.headers_mut().insert(MESH_REASON, http::HeaderValue::from_static(reason.code()));
    }
    match asked {
        Some((caller, worker))
            if response.status() == http::StatusCode::SWITCHING_PROTOCOLS && stripped.upgrade =>
        {
            let open = Open::count(worker, Direction::Outbound);
            // Policy is the other side's.
            upgrade::join(caller, response, lease, exchange, open, std::future::pending())
        }
        _ => response.map(|body| ResponseBody::upstream(body, lease, exchange)),
    }
}
