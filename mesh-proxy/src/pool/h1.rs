//! HTTP/1 connections: one request at a time, idle ones on a stack, the newest on top.

mod received;

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use http::{Request, Response};
use mesh_core::{
    protocol::MeshAlpn,
    reason::Reason,
    resilience::breaker::{Counted, Kind},
};

pub(crate) use self::received::Received;
use super::{Failure, Terms, Upstream};
use crate::http::{
    body::{Incoming, RequestBody},
    expect::hold_if_expected,
    h1::{Failed, Io, exchange},
};

/// Most connections that are kept idle for one upstream. Many callers' answers can come in one turn: what is closed then
/// costs a handshake a moment later.
const MAX_IDLE: usize = 1024;
/// Age at which a connection takes no new request, so that load moves to new endpoints behind an address.
const MAX_AGE: Duration = Duration::from_secs(600);

/// A connection, and what decides whether it is used again.
struct Connection {
    io: Io,
    generation: u64,
    opened: Instant,
    used: Instant,
    /// One of the connections that a Service may have.
    _counted: Option<Counted>,
}

/// Connections that wait for a request.
#[derive(Default)]
#[expect(clippy::vec_box, reason = "connections go in and out with every request: one word each")]
pub(super) struct Idle(RefCell<Vec<Box<Connection>>>);

impl Idle {
    /// Takes the newest that can take a request.
    fn take(&self, generation: u64, keep_idle: Duration) -> Option<Box<Connection>> {
        let mut idle = self.0.borrow_mut();
        let mut connection = idle.pop()?;
        let now = Instant::now();
        loop {
            let fresh = connection.generation == generation
                && now.saturating_duration_since(connection.used) < keep_idle
                && now.saturating_duration_since(connection.opened) < MAX_AGE;
            if fresh && connection.io.is_quiet() {
                return Some(connection);
            }
            connection = idle.pop()?;
        }
    }

    fn put(&self, mut connection: Box<Connection>) {
        let mut idle = self.0.borrow_mut();
        if idle.len() < MAX_IDLE {
            connection.used = Instant::now();
            connection.io.rest();
            idle.push(connection);
        }
    }

    pub(super) fn sweep(&self, now: Instant, keep_idle: Duration) {
        let mut idle = self.0.borrow_mut();
        idle.retain_mut(|c| now.saturating_duration_since(c.used) < keep_idle && c.io.is_quiet());
        if idle.capacity() > 2 * idle.len() + 4 {
            idle.shrink_to_fit();
        }
    }
}

/// Sends on an idle connection, or on a new one.
pub(super) async fn send(
    upstream: &Rc<Upstream>,
    terms: &Terms<'_>,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, super::Lease), Failure> {
    let generation = upstream.generation(terms.epoch);
    let opener = hold_if_expected(&mut request);
    let mut only_fresh = false;
    loop {
        let idle = if only_fresh { None } else { upstream.h1.take(generation, upstream.keep_idle) };
        let (mut connection, fresh) = match idle {
            Some(connection) => (connection, false),
            None => match Box::pin(open(upstream, terms, generation)).await {
                Ok(connection) => (connection, true),
                Err(reason) => return Err(Failure::unsent(reason, request)),
            },
        };
        match exchange(&mut connection.io, &mut request, opener.as_ref()).await {
            Ok((head, upload)) => {
                let response = received::response(upstream, connection, request, head, upload);
                return Ok((response, super::Lease { _stream: None, flight: None, fresh }));
            }
            // The server closed the idle connection while the request was on its way.
            Err(Failed::Lost) if !fresh && repeatable(&request) => only_fresh = true,
            Err(failed) => return Err(Failure { reason: reason_of(failed), unsent: None, refused: false }),
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
    let now = Instant::now();
    Ok(Box::new(Connection { io: Io::new(stream), generation, opened: now, used: now, _counted: counted }))
}
