//! HTTP/1 connections: one request at a time.

mod idle;
mod received;

use std::{mem, rc::Rc};

use http::{Method, Request, Response};
use mesh_core::{protocol::MeshAlpn, reason::Reason, resilience::breaker::Kind};

use self::idle::Connection;
pub(super) use self::idle::Idle;
pub(crate) use self::received::Received;
use super::{Failure, Terms, Upstream};
use crate::http::{
    body::{Incoming, RequestBody},
    expect::hold_if_expected,
    h1::{Failed, Io, exchange, switches},
};

/// Sends on an idle connection, or on a new one.
pub(super) async fn send(
    upstream: &Rc<Upstream>,
    terms: &Terms<'_>,
    request: &mut Request<RequestBody>,
) -> Result<(Response<Incoming>, super::Lease), Failure> {
    let generation = upstream.generation(terms.epoch);
    let opener = hold_if_expected(request);
    // An idle connection may be gone, and who asks for a tunnel is not asked twice.
    let connect = request.method() == Method::CONNECT;
    let mut only_fresh = connect;
    // It may have been processed: whatever hinders the second attempt, nobody may be told that it was not.
    let mut lost = false;
    let unsent = |reason, lost| match lost {
        true => Failure::broken(Reason::UpstreamReset),
        false => Failure::unsent(reason),
    };
    loop {
        let idle = if only_fresh { None } else { upstream.h1.take(generation) };
        let (mut connection, fresh) = match idle {
            Some(mut connection) => match terms.take(Kind::Connections) {
                Ok(counted) => {
                    connection.counted = counted;
                    (connection, false)
                }
                Err(reason) => {
                    upstream.h1.back(connection);
                    return Err(unsent(reason, lost));
                }
            },
            None => match Box::pin(open(upstream, terms, generation)).await {
                Ok(connection) => (connection, true),
                Err(reason) => return Err(unsent(reason, lost)),
            },
        };
        match exchange(&mut connection.io, request, opener.as_ref()).await {
            Ok((head, upload)) => {
                connection.hear(&head.fields);
                let left = (!upload.is_done()).then(|| {
                    let body = mem::replace(request.body_mut(), RequestBody::none());
                    (upload, body)
                });
                let switched = switches(connect, head.status);
                let response = received::response(upstream, connection, head, left, switched);
                return Ok((response, super::Lease { _stream: None, flight: None, fresh }));
            }
            // The server closed the idle connection while the request was on its way.
            Err(Failed::Lost) if !fresh && repeatable(request) => (only_fresh, lost) = (true, true),
            Err(failed) => return Err(Failure::broken(reason_of(failed))),
        }
    }
}

/// Whether a request may be sent twice (RFC 9110 section 9.2.2): idempotent, without a body.
fn repeatable(request: &Request<RequestBody>) -> bool {
    request.body().is_empty() && request.method().is_idempotent()
}

fn reason_of(failed: Failed) -> Reason {
    match failed {
        Failed::Lost | Failed::Ended => Reason::UpstreamReset,
        Failed::Malformed => Reason::UpstreamProtocolError,
        Failed::Request => Reason::ClientDisconnected,
    }
}

async fn open(upstream: &Upstream, terms: &Terms<'_>, generation: u64) -> Result<Box<Connection>, Reason> {
    let _pending = terms.take(Kind::Pending)?;
    let counted = terms.take(Kind::Connections)?;
    let stream = upstream.connect(MeshAlpn::H1, terms).await?;
    let keep = upstream.h1.keep(upstream.keep_idle);
    Ok(Connection::new(Io::new(stream), generation, keep, counted))
}
