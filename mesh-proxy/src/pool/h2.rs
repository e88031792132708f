//! HTTP/2 connections: few, shared by many requests. A request's own task sends on them, and waits for its response.

mod exchange;

use std::{
    cell::{Cell, RefCell},
    future::{Future as _, poll_fn},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use ::h2::client::{self, Builder, SendRequest};
use bytes::Bytes;
use http::{Request, Response};
use mesh_core::{
    reason::Reason,
    resilience::breaker::{Counted, Kind},
};
use tokio::time::timeout;

use self::exchange::exchange;
use super::{Failure, Terms, Upstream, Wire};
use crate::{
    http::{
        body::{Incoming, RequestBody},
        expect::hold_if_expected,
        h2::{Ended, Io, KeepAlive, MAX_HEAD, MAX_SEND_BUFFER, STREAM_WINDOW},
    },
    net::dial::CONNECT_TIMEOUT,
};

/// Streams on one connection before another one is opened.
const STREAMS: usize = 100;
/// Connections to one upstream; more streams than these take wait for their turn on the least loaded. Many: on one with
/// more than [`STREAMS`], responses that nobody reads can take the whole window.
const MAX_CONNECTIONS: usize = 64;
/// Connections that are opened, or waited for, and end before they take the request.
const ATTEMPTS: usize = 3;
/// Streams that may be opened before the server says how many it takes.
const FIRST_STREAMS: usize = 100;

struct Connection {
    sender: SendRequest<Bytes>,
    generation: u64,
    state: Rc<State>,
}

/// What a connection's requests and the task that drives it know of each other.
#[derive(Default)]
struct State {
    streams: Cell<usize>,
    /// It takes no new streams.
    closed: Cell<bool>,
    /// One of the connections that a Service may have in use; not while there are no streams.
    counted: Cell<Option<Counted>>,
    /// The newest stream of whose head the server may have got something.
    opened: Rc<Cell<u32>>,
}

impl Connection {
    /// What sends one request. None: the connection ended, or goes away.
    fn sender(&self) -> Option<SendRequest<Bytes>> {
        // One of its own for each request, which may wait until the server allows another stream.
        let mut sender = self.sender.clone();
        let ready = sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        self.state.closed.set(!matches!(ready, Poll::Ready(Ok(()))));
        (!self.state.closed.get()).then_some(sender)
    }
}

/// The connections of one upstream.
#[derive(Default)]
pub(super) struct Shared {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Held by whoever opens a connection; others wait for it instead of opening more.
    opening: tokio::sync::Mutex<()>,
}

impl Shared {
    /// The least loaded connection. None: another one should be opened.
    fn take(&self, generation: u64) -> Option<Rc<Connection>> {
        let mut connections = self.connections.borrow_mut();
        // What was opened under an older certificate ends with its last stream.
        if connections.iter().any(|c| c.state.closed.get() || c.generation != generation) {
            connections.retain(|c| !c.state.closed.get() && c.generation == generation);
        }
        let least = connections.iter().min_by_key(|c| c.state.streams.get())?;
        let room = least.state.streams.get() < STREAMS || connections.len() >= MAX_CONNECTIONS;
        room.then(|| Rc::clone(least))
    }

    /// Forgets what has ended, or is not of this generation: that ends with its last stream.
    pub(super) fn sweep(&self, generation: u64) {
        self.connections.borrow_mut().retain(|c| !c.state.closed.get() && c.generation == generation);
    }
}

/// One stream; dropped, it no longer counts.
pub(super) struct Lease(Rc<State>);

impl Lease {
    /// # Errors
    /// [`Reason::CircuitOpen`].
    fn of(connection: &Connection, terms: &Terms<'_>) -> Result<Self, Reason> {
        let state = &connection.state;
        if state.streams.get() == 0 {
            // One that was just opened is counted already.
            let counted = state.counted.take();
            state.counted.set(if counted.is_some() { counted } else { terms.take(Kind::Connections)? });
        }
        state.streams.set(state.streams.get() + 1);
        Ok(Self(Rc::clone(state)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let left = self.0.streams.get().saturating_sub(1);
        self.0.streams.set(left);
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
    request: &mut Request<RequestBody>,
) -> Result<(Response<Incoming>, super::Lease), Failure> {
    let generation = upstream.generation(terms.epoch);
    let opener = hold_if_expected(request);
    let mut attempts = 0;
    loop {
        let (connection, fresh) = match shared.take(generation) {
            // One that has ended is not taken again: sooner or later none is left.
            Some(connection) => (connection, false),
            None if attempts == ATTEMPTS => return Err(Failure::unsent(Reason::UpstreamReset)),
            None => match Box::pin(open(upstream, shared, wire, terms, generation)).await {
                Ok(opened) => {
                    attempts += 1;
                    opened
                }
                Err(reason) => return Err(Failure::unsent(reason)),
            },
        };
        let Some(sender) = connection.sender() else { continue };
        let lease = match Lease::of(&connection, terms) {
            Ok(lease) => lease,
            Err(reason) => return Err(Failure::unsent(reason)),
        };
        drop(connection);
        let head = terms.take_head(request);
        let response = exchange(sender, head, request.body_mut(), opener.as_ref(), &lease.0.opened).await?;
        return Ok((response, super::Lease { _stream: Some(lease), flight: None, fresh }));
    }
}

/// Opens a connection, or waits for one that is being opened. True: it is new.
async fn open(
    upstream: &Rc<Upstream>,
    shared: &Shared,
    wire: Wire,
    terms: &Terms<'_>,
    generation: u64,
) -> Result<(Rc<Connection>, bool), Reason> {
    let _pending = terms.take(Kind::Pending)?;
    let waiting = timeout(terms.connect.unwrap_or(CONNECT_TIMEOUT), shared.opening.lock()).await;
    let _opening = waiting.map_err(|_| Reason::UpstreamConnectTimeout)?;
    if let Some(connection) = shared.take(generation) {
        return Ok((connection, false));
    }
    let counted = terms.take(Kind::Connections)?;
    let opened = Rc::<Cell<u32>>::default();
    let stream = upstream.connect(wire.alpn(), terms).await?;
    let io = Io::dialled(stream, upstream.refusals.clone(), &opened);
    let mut builder = Builder::new();
    builder
        .initial_max_send_streams(FIRST_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        // Responses that their callers do not read keep their windows: they must not keep those of the others.
        .initial_connection_window_size(STREAM_WINDOW * STREAMS as u32)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(MAX_SEND_BUFFER)
        .enable_push(false);
    // It only writes, which cannot block yet.
    let (sender, mut connection) =
        builder.handshake(io.clone()).await.map_err(|_| Reason::UpstreamConnectFailed)?;
    let state = Rc::new(State { counted: Cell::new(counted), opened, ..State::default() });
    let keep = KeepAlive::new(connection.ping_pong());
    let mut driver = Driver { connection, io, keep, state: Rc::clone(&state) };
    tokio::task::spawn_local(async move {
        if let Err(error) = poll_fn(|cx| driver.poll(cx)).await {
            tracing::debug!(%error, "HTTP/2 connection to upstream ended");
        }
    });
    let opened = Rc::new(Connection { sender, generation, state });
    shared.connections.borrow_mut().push(Rc::clone(&opened));
    Ok((opened, true))
}

/// What moves the frames of a connection.
struct Driver {
    connection: client::Connection<Io, Bytes>,
    io: Io,
    keep: KeepAlive,
    state: Rc<State>,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        if !self.keep.is_alive(cx, &self.io, self.state.streams.get() > 0) {
            return Poll::Ready(Err(Ended::silent()));
        }
        self.io.begin_turn();
        match Pin::new(&mut self.connection).poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map_err(Ended::from)),
            Poll::Pending => self.io.poll_flush_behind(cx),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.state.closed.set(true);
    }
}
