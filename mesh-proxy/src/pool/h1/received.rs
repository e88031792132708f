//! A response's body as it comes on an HTTP/1 connection, and what becomes of the connection thereafter.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};

use super::idle::Connection;
use crate::{
    http::{
        body::{BodyError, Incoming, RequestBody},
        h1::{Decoder, Malformed, Piece, ResponseHead, Sending},
    },
    net::{Prefixed, Stream},
    pool::Upstream,
};

/// A connection with an exchange on it. Dropped by whoever is last, it goes back to the idle ones if it can be used
/// again, and is closed otherwise.
struct Held {
    upstream: Rc<Upstream>,
    connection: RefCell<Option<Box<Connection>>>,
    /// The request was sent to its end, or is not to be waited for.
    sent: Cell<bool>,
    /// The response came to its end, and the server lets another request follow.
    reusable: Cell<bool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && self.sent.get()
            && self.reusable.get()
            && connection.io.read.is_empty()
        {
            self.upstream.h1.put(connection);
        }
    }
}

/// The body of a response.
pub(crate) struct Received {
    /// None: it is over, and so is the use of the connection.
    held: Option<Rc<Held>>,
    decoder: Decoder,
    keep_alive: bool,
}

/// Makes the response of which the head came. What is left of the request goes on being sent. `switched`: the connection
/// speaks HTTP no more.
pub(super) fn response(
    upstream: &Rc<Upstream>,
    connection: Box<Connection>,
    head: ResponseHead,
    left: Option<(Sending, RequestBody)>,
    switched: bool,
) -> Response<Incoming> {
    let held = Rc::new(Held {
        upstream: Rc::clone(upstream),
        connection: RefCell::new(Some(connection)),
        sent: Cell::new(left.is_none()),
        reusable: Cell::new(false),
    });
    // A body that the upstream did not ask for is not sent any more, which ends the connection.
    if let Some((upload, body)) = left.filter(|(_, body)| !body.is_held()) {
        tokio::task::spawn_local(finish(Rc::clone(&held), upload, body));
    }
    let mut received =
        Received { held: Some(held), decoder: Decoder::new(head.framing), keep_alive: head.keep_alive };
    if !switched {
        received.release_at_end();
    }
    let mut response = Response::new(Incoming::H1(received));
    *response.status_mut() = head.status;
    *response.version_mut() = head.version;
    *response.headers_mut() = head.fields;
    if let Some(reason) = head.reason {
        response.extensions_mut().insert(reason);
    }
    response
}

/// Sends what is left of a request whose response is already coming. Once that is over, a caller that says nothing more of
/// the request does not keep both connections.
async fn finish(held: Rc<Held>, mut upload: Sending, mut body: RequestBody) {
    let silence = body.silence();
    let outcome = poll_fn(|cx| match held.connection.borrow_mut().as_mut() {
        Some(connection) => upload.poll(cx, &mut connection.io, &mut body),
        None => Poll::Ready(Ok(())),
    });
    let sent = tokio::select! {
        biased;
        outcome = outcome => outcome.is_ok(),
        () = silence.lasts(|| Rc::strong_count(&held) == 1) => false,
    };
    held.sent.set(sent);
}

impl Received {
    /// The connection after it was agreed to speak something else on it.
    pub(crate) fn into_stream(mut self) -> Option<Prefixed<Stream>> {
        let connection = self.held.take()?.connection.take()?;
        Some(connection.io.into_stream())
    }

    fn release_at_end(&mut self) {
        if self.decoder.is_ended()
            && let Some(held) = self.held.take()
        {
            held.reusable.set(self.keep_alive);
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        let Some(held) = &self.held else { return Poll::Ready(Ok(Piece::End)) };
        let mut connection = held.connection.borrow_mut();
        let Some(connection) = connection.as_mut() else { return Poll::Ready(Err(Malformed::Ended.into())) };
        loop {
            match self.decoder.next(&mut connection.io.read)? {
                Piece::More => {}
                piece => return Poll::Ready(Ok(piece)),
            }
            if ready!(connection.io.poll_fill(cx))? == 0 {
                self.decoder.close()?;
            }
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let piece = ready!(this.poll_piece(cx));
        if piece.is_err() {
            this.held = None;
            this.decoder = Decoder::ended();
        }
        this.release_at_end();
        Poll::Ready(match piece {
            Ok(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Piece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Piece::End | Piece::More) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_ended()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
