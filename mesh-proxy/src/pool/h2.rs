//! HTTP/2 connections: few, shared by many requests.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use http::{Request, Response};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::{
    reason::Reason,
    resilience::breaker::{Counted, Kind},
};
use tokio::time::timeout;

use super::{Failure, Terms, Upstream, Wire, reason_of};
use crate::{
    http::{
        LocalExecutor,
        body::{Incoming, RequestBody},
        serve::{CONNECTION_WINDOW, STREAM_WINDOW},
    },
    net::dial::CONNECT_TIMEOUT,
};

/// Streams on one connection before another one is opened.
const STREAMS: usize = 100;
/// Connections to one upstream; more streams than these take wait for their turn on the least loaded.
const MAX_CONNECTIONS: usize = 4;
/// Attempts on connections that end before they take the request.
const ATTEMPTS: usize = 3;
/// Largest list of header fields in a response, in bytes.
const MAX_HEAD: u32 = 64 * 1024;

#[derive(Clone)]
struct Connection {
    sender: SendRequest<RequestBody>,
    generation: u64,
    streams: Rc<Streams>,
}

/// The streams on one connection.
#[derive(Default)]
struct Streams {
    count: Cell<usize>,
    /// One of the connections that a Service may have in use; not while there are none.
    counted: Cell<Option<Counted>>,
}

/// The connections of one upstream.
#[derive(Default)]
pub(super) struct Shared {
    connections: RefCell<Vec<Connection>>,
    /// Held by whoever opens a connection; others wait for it instead of opening more.
    opening: tokio::sync::Mutex<()>,
}

impl Shared {
    /// The least loaded connection. None: another one should be opened.
    fn take(&self, generation: u64) -> Option<Connection> {
        let mut connections = self.connections.borrow_mut();
        // What was opened under an older certificate ends with its last stream.
        connections.retain(|c| !c.sender.is_closed() && c.generation == generation);
        let least = connections.iter().min_by_key(|c| c.streams.count.get())?;
        let room = least.streams.count.get() < STREAMS || connections.len() >= MAX_CONNECTIONS;
        room.then(|| least.clone())
    }

    /// Forgets what has ended, or is not of this generation: that ends with its last stream.
    pub(super) fn sweep(&self, generation: u64) {
        self.connections.borrow_mut().retain(|c| !c.sender.is_closed() && c.generation == generation);
    }
}

/// One stream; dropped, it no longer counts.
pub(super) struct Lease(Rc<Streams>);

impl Lease {
    /// # Errors
    /// [`Reason::CircuitOpen`].
    fn of(connection: &Connection, terms: &Terms<'_>) -> Result<Self, Reason> {
        let streams = &connection.streams;
        if streams.count.get() == 0 {
            // One that was just opened is counted already.
            let counted = streams.counted.take();
            streams.counted.set(if counted.is_some() { counted } else { terms.take(Kind::Connections)? });
        }
        streams.count.set(streams.count.get() + 1);
        Ok(Self(Rc::clone(streams)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let left = self.0.count.get().saturating_sub(1);
        self.0.count.set(left);
        if left == 0 {
            self.0.counted.set(None);
        }
    }
}

/// Sends on a shared connection, opening one where needed.
pub(super) async fn send(
    upstream: &Rc<Upstream>,
    shared: &Shared,
    wire: Wire,
    terms: &Terms<'_>,
    mut request: Request<RequestBody>,
) -> Result<(Response<Incoming>, super::Lease), Failure> {
    let generation = upstream.generation(terms.epoch);
    for _ in 0..ATTEMPTS {
        let (mut connection, fresh) = match shared.take(generation) {
            Some(connection) => (connection, false),
            None => match Box::pin(open(upstream, shared, wire, terms, generation)).await {
                Ok(opened) => opened,
                Err(reason) => return Err(Failure::unsent(reason, request)),
            },
        };
        let lease = match Lease::of(&connection, terms) {
            Ok(lease) => lease,
            Err(reason) => return Err(Failure::unsent(reason, request)),
        };
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                let lease = super::Lease { _stream: Some(lease), flight: None, fresh };
                return Ok((response.map(Incoming::Hyper), lease));
            }
            Err(mut failed) => match failed.take_message() {
                Some(unsent) => request = unsent,
                None => {
                    let (reason, refused) = (reason_of(failed.error()), is_refused(failed.error()));
                    return Err(Failure { reason, unsent: None, refused });
                }
            },
        }
    }
    Err(Failure::unsent(Reason::UpstreamReset, request))
}

/// Opens a connection, or waits for one that is being opened. True: it is new.
async fn open(
    upstream: &Rc<Upstream>,
    shared: &Shared,
    wire: Wire,
    terms: &Terms<'_>,
    generation: u64,
) -> Result<(Connection, bool), Reason> {
    let _pending = terms.take(Kind::Pending)?;
    let waiting = timeout(terms.connect.unwrap_or(CONNECT_TIMEOUT), shared.opening.lock()).await;
    let _opening = waiting.map_err(|_| Reason::UpstreamConnectTimeout)?;
    if let Some(connection) = shared.take(generation) {
        return Ok((connection, false));
    }
    let counted = terms.take(Kind::Connections)?;
    let stream = upstream.connect(wire.alpn(), terms).await?;
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    let (sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|_| Reason::UpstreamConnectFailed)?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 connection to upstream ended");
        }
    });
    let streams = Rc::new(Streams { count: Cell::new(0), counted: Cell::new(counted) });
    let opened = Connection { sender, generation, streams };
    shared.connections.borrow_mut().push(opened.clone());
    Ok((opened, true))
}

/// True when the peer says that it did not process a request: it refused the stream, or goes away and the stream is
/// above those that it still serves (RFC 9113 sections 6.8 and 8.7). A stream below that ends in other ways.
fn is_refused(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<::h2::Error>());
    source.is_some_and(|error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(::h2::Reason::REFUSED_STREAM))
    })
}
