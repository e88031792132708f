//! HTTP/1 connections: one request at a time, idle ones on a stack, the newest on top.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Request, Response,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use mesh_core::{protocol::MeshAlpn, reason::Reason};

use super::{Failure, Held, Upstream, reason_of};
use crate::{
    http::{body::RequestBody, expect::hold_if_expected},
    tls::TlsEpoch,
};

/// Most connections that are kept idle for one upstream.
const MAX_IDLE: usize = 256;
/// Age at which a connection takes no new request, so that load moves to new endpoints behind an address.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Largest head of a response, and largest buffer for one, in bytes.
const MAX_HEAD: usize = 64 * 1024;

struct Connection {
    sender: SendRequest<RequestBody>,
    generation: u64,
    opened: Instant,
    used: Instant,
}

/// Connections that wait for a request.
#[derive(Default)]
pub(super) struct Idle(RefCell<Vec<Connection>>);

impl Idle {
    /// Takes the newest that can take a request. One whose last exchange is not over yet stays.
    fn take(&self, generation: u64, keep_idle: Duration) -> Option<Connection> {
        let mut idle = self.0.borrow_mut();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let connection = idle.get(at)?;
            let stale = connection.sender.is_closed() || connection.generation != generation;
            if !stale && !connection.sender.is_ready() {
                continue;
            }
            // The order of the others does not matter much; what matters is that this costs nothing.
            let connection = idle.swap_remove(at);
            let fresh = connection.used.elapsed() < keep_idle && connection.opened.elapsed() < MAX_AGE;
            if !stale && fresh {
                return Some(connection);
            }
        }
        None
    }

    fn put(&self, connection: Connection) {
        let mut idle = self.0.borrow_mut();
        if !connection.sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    pub(super) fn sweep(&self, now: Instant, keep_idle: Duration) {
        let keep =
            |c: &Connection| !c.sender.is_closed() && now.saturating_duration_since(c.used) < keep_idle;
        let mut idle = self.0.borrow_mut();
        idle.retain(keep);
        if idle.capacity() > 2 * idle.len() + 4 {
            idle.shrink_to_fit();
        }
    }
}

/// A connection in use; dropped, it goes back to the stack.
pub(super) struct Lease {
    upstream: Rc<Upstream>,
    connection: Option<Connection>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.used = Instant::now();
            // A response that was not read to its end closes the connection; until then it is not ready.
            self.upstream.h1.put(connection);
        }
    }
}

/// Sends on an idle connection, or on a new one.
pub(super) async fn send(
    upstream: &Rc<Upstream>,
    epoch: Option<&TlsEpoch>,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, super::Lease), Failure> {
    let generation = upstream.generation(epoch);
    let mut only_fresh = false;
    frame(&mut request);
    loop {
        let idle = if only_fresh { None } else { upstream.h1.take(generation, upstream.keep_idle) };
        let (mut connection, fresh) = match idle {
            Some(connection) => (connection, false),
            None => match Box::pin(open(upstream, epoch, generation)).await {
                Ok(connection) => (connection, true),
                Err(reason) => return Err(Failure::unsent(reason, request)),
            },
        };
        let spare = if fresh { None } else { repeatable(&request) };
        hold_if_expected(&mut request);
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                let lease = Lease { upstream: Rc::clone(upstream), connection: Some(connection) };
                return Ok((
                    response,
                    super::Lease { _connection: Held::H1 { _lease: lease }, flight: None, fresh },
                ));
            }
            Err(mut failed) => match failed.take_message() {
                // The connection had ended meanwhile and nothing was sent.
                Some(unsent) if !fresh => request = unsent,
                Some(unsent) => return Err(Failure::unsent(Reason::UpstreamReset, unsent)),
                None => match spare {
                    // The server closed the idle connection while the request was on its way.
                    Some(spare) if is_lost(failed.error()) => (request, only_fresh) = (spare, true),
                    _ => return Err(Failure { reason: reason_of(failed.error()), unsent: None }),
                },
            },
        }
    }
}

/// Says how a body without a length is framed. Left to itself, hyper sends none with GET and its like.
fn frame(request: &mut Request<RequestBody>) {
    let body = request.body();
    let sized = body.is_empty() || body.size_hint().exact().is_some();
    if !sized && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// A copy of a request that may be sent twice (RFC 9110 section 9.2.2): idempotent, without a body.
fn repeatable(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !request.body().is_empty() || !request.method().is_idempotent() {
        return None;
    }
    let mut copy = Request::new(RequestBody::none());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// The connection ended before a response began.
fn is_lost(error: &hyper::Error) -> bool {
    let io = std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>());
    error.is_incomplete_message() || error.is_closed() || io
}

async fn open(upstream: &Upstream, epoch: Option<&TlsEpoch>, generation: u64) -> Result<Connection, Reason> {
    let stream = upstream.connect(MeshAlpn::H1, epoch).await?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|_| Reason::UpstreamConnectFailed)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "HTTP/1 connection to upstream ended");
        }
    });
    let now = Instant::now();
    Ok(Connection { sender, generation, opened: now, used: now })
}
