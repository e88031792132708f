//! Serving one connection, until it ends or is told to end.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h2::server::{Builder, Connection};
use http::{Request, Response};
use mesh_core::edge::Direction;
use tokio::time::timeout;

use super::{
    CONNECTION_WINDOW, Ended, Io, KeepAlive, MAX_HEAD, MAX_SEND_BUFFER, MAX_STREAMS, STREAM_WINDOW,
    answer::answer, caller::Caller,
};
use crate::{
    http::{
        body::{RequestBody, ResponseBody},
        front::Front,
        serve::HEAD_TIMEOUT,
    },
    net::Stream,
    telemetry::Refusals,
    tls::Credentials,
    worker::{Seldom, Worker},
};

/// Serves HTTP/2. `caller` is what the peer authenticated with; None for plaintext.
pub(crate) async fn serve<H, F>(
    worker: &Rc<Worker>,
    direction: Direction,
    io: Stream,
    caller: Option<Rc<Credentials>>,
    handle: Rc<H>,
) where
    H: Fn(Request<RequestBody>) -> F + 'static,
    F: Future<Output = Response<ResponseBody>> + 'static,
{
    let by = Rc::new(Caller::new(Front::new(worker, direction, &io)));
    let io = Io::accepted(io, Refusals::new(&worker.shard, direction));
    let outcome = match handshake(&io).await {
        Ok(mut connection) => {
            let keep = KeepAlive::new(connection.ping_pong());
            let ending: Pin<Box<dyn Future<Output = _>>> =
                Box::pin(told(Rc::clone(worker), direction, caller));
            let ending = Seldom::new(ending);
            let mut serving = Serving { connection, io, keep, ending, by, handle };
            poll_fn(|cx| serving.poll(cx)).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        tracing::debug!(direction = direction.as_str(), %error, "HTTP/2 connection ended");
    }
}

/// What happens to a connection from outside.
enum Told {
    /// It takes no new requests; with what cuts it in the end.
    End(Pin<Box<dyn Future<Output = Self>>>),
    /// What still runs on it is cut.
    Cut,
}

async fn told(worker: Rc<Worker>, direction: Direction, caller: Option<Rc<Credentials>>) -> Told {
    let ending = worker.ending(direction, caller).await;
    Told::End(Box::pin(async move {
        ending.overdue().await;
        Told::Cut
    }))
}

async fn handshake(io: &Io) -> Result<Connection<Io, Bytes>, Ended> {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(MAX_SEND_BUFFER);
    // Nearly always the preface was seen already.
    let mut shaking = pin!(builder.handshake(io.clone()));
    let shaken = poll_fn(|cx| {
        io.begin_turn();
        match shaking.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map_err(Ended::from)),
            Poll::Pending => io.poll_flush_behind(cx),
        }
    });
    timeout(HEAD_TIMEOUT, shaken).await.unwrap_or_else(|_| Err(Ended::silent()))
}

/// A connection that is served.
struct Serving<H> {
    connection: Connection<Io, Bytes>,
    io: Io,
    keep: KeepAlive,
    ending: Seldom<Pin<Box<dyn Future<Output = Told>>>>,
    by: Rc<Caller>,
    handle: Rc<H>,
}

impl<H> Serving<H> {
    /// Moves frames; ready when the connection has ended.
    fn poll<F>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>>
    where
        H: Fn(Request<RequestBody>) -> F + 'static,
        F: Future<Output = Response<ResponseBody>> + 'static,
    {
        self.io.begin_turn();
        while let Poll::Ready(told) = Pin::new(&mut self.ending).poll(cx) {
            match told {
                Told::End(cut) => {
                    self.connection.graceful_shutdown();
                    self.ending = Seldom::new(cut);
                }
                Told::Cut => return Poll::Ready(Ok(())),
            }
        }
        if !self.keep.is_alive(cx, &self.io, true) {
            return Poll::Ready(Err(Ended::silent()));
        }
        while let Poll::Ready(accepted) = self.connection.poll_accept(cx) {
            match accepted {
                Some(Ok((request, respond))) => {
                    let (by, handle) = (Rc::clone(&self.by), Rc::clone(&self.handle));
                    // In a box: the runtime moves a task four times from its beginning to its end.
                    tokio::task::spawn_local(Box::pin(answer(by, handle, request, respond)));
                }
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Ok(())),
            }
        }
        self.io.poll_flush_behind(cx)
    }
}
