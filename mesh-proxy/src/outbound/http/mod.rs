//! HTTP from the application: every request is routed and balanced for itself.

mod attempt;
mod filters;
mod forward;
mod mirror;
mod tunnel;

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use http::{Method, Request, Response, Version};
use mesh_core::{
    addr::PeerAddr, edge::Direction, name::Host, protocol::Protocol, reason::Reason, resource::DestinationKey,
};
use tokio::net::TcpStream;

use super::destinations::Destination;
use crate::{
    detect::{Detected, Opening},
    http::{
        authority,
        body::{RequestBody, ResponseBody},
        exchange::Exchange,
        h2, headers,
        reply::{Audience, refuse},
        serve,
    },
    net::Stream,
    worker::Worker,
};

/// One connection of the application.
pub(super) struct Caller {
    worker: Rc<Worker>,
    peer: SocketAddr,
    /// Where all its requests go, and the address that was called; None: each says it itself.
    fixed: Option<(Rc<Destination>, SocketAddr)>,
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
    fixed: Option<(Rc<Destination>, SocketAddr)>,
    protocol: Protocol,
) {
    let caller = Rc::new(Caller { worker: Rc::clone(worker), peer: peer.0, fixed, last: RefCell::default() });
    let handle = Rc::new(move |request| handle(Rc::clone(&caller), request));
    if protocol == Protocol::Http1 {
        serve::http1(worker, Direction::Outbound, stream, None, handle).await;
    } else {
        // In a box: it is large, and connections of HTTP/1 are the many.
        Box::pin(h2::serve(worker, Direction::Outbound, stream, None, handle)).await;
    }
}

async fn handle(caller: Rc<Caller>, mut request: Request<RequestBody>) -> Response<ResponseBody> {
    let worker = &caller.worker;
    if request.method() == Method::CONNECT && caller.fixed.is_none() {
        // In a box: rare, and it would otherwise be part of every request's future.
        return Box::pin(tunnel::open(Rc::clone(&caller), request)).await;
    }
    let seen = if request.version() == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
    let to = Audience { trusted: true, grpc: headers::wants_grpc(&request) };
    if let Some((_, address)) = &caller.fixed
        && authority::is_hostless(&request)
    {
        authority::name_host(&mut request, *address);
    }
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
    forward::forward(&caller, &table, &mut request, seen, to).await
}

impl Caller {
    fn begin(
        &self,
        edge: std::sync::Arc<crate::telemetry::EdgeStats>,
        request: &Request<RequestBody>,
    ) -> Exchange {
        let mut exchange = Exchange::begin(edge, request.method());
        exchange.log_request(&self.worker.access_log, Direction::Outbound, Some(self.peer), request);
        exchange
    }

    /// The destination that a request names.
    fn destination(&self, request: &Request<RequestBody>) -> Result<Rc<Destination>, Refusal> {
        if request.method() == Method::CONNECT && request.version() == Version::HTTP_2 {
            return Err(Reason::Unsupported.into());
        }
        let host = authority::host(request);
        if let Some((fixed, _)) = &self.fixed {
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

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;
    use crate::{
        outbound::table::{Choice, Table},
        pool::{Terms, Upstream, Wire},
    };

    /// Size of the future that `start` would make; it is never called.
    fn size<A, F: Future>(_start: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// What is made, moved and dropped for each request.
    #[test]
    fn requests_are_small() {
        type Body = &'static mut Request<RequestBody>;
        type Sent = (&'static Rc<Upstream>, Wire, &'static Terms<'static>, Body);
        type Tried = (&'static attempt::Call<'static>, Choice, Body, &'static mut Exchange);
        type Forwarded = (&'static Caller, &'static Table, Body, Protocol, Audience);
        let sizes = [
            ("on a connection", size(|(u, w, t, r): Sent| u.send(w, t, r))),
            ("with retries", size(|(u, t, r, p): Tried| attempt::send(u, t, r, p, None))),
            ("by its route", size(|(u, t, r, p, a): Forwarded| forward::forward(u, t, r, p, a))),
            ("all", size(|(u, r): (Rc<Caller>, Request<RequestBody>)| handle(u, r))),
        ];
        println!("{sizes:?}");
        assert!(sizes.iter().all(|(_, size)| *size <= 3 * 1024), "{sizes:?}");
    }
}
