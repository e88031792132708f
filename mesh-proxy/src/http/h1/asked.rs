//! A connection that a caller made, shared by who serves it and by the body of the request that it serves.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::{
    framing::{Decoder, Framing, Piece},
    head::{Malformed, write_response},
    io::Io,
};
use crate::{
    http::body::BodyError,
    net::{Prefixed, Stream},
};

/// A connection and the request that is on it.
pub(super) struct Connection {
    pub(super) state: RefCell<State>,
    /// Who waits for the request's body to end or to be let go of.
    waiting: Cell<Option<Waker>>,
}

/// What changes with every request.
pub(super) struct State {
    /// None: it does not speak HTTP any more.
    pub(super) io: Option<Io>,
    /// The request's body.
    pub(super) decoder: Decoder,
    /// The caller waits with the body until it is asked for.
    pub(super) expects: bool,
    /// The body is not what it should be: nobody knows what comes behind it.
    pub(super) broken: bool,
    /// Something of the body came.
    pub(super) came: bool,
    /// Whether the caller understands what is said before a response.
    interim: bool,
    /// The caller may have said all that it has to say before it is answered.
    patient: bool,
    /// Who gets the connection when it is to speak something else.
    pub(super) upgrade: Option<oneshot::Sender<Prefixed<Stream>>>,
}

impl Connection {
    /// One on which nothing was asked yet.
    pub(super) fn new(stream: Stream) -> Rc<Self> {
        Rc::new(Self {
            state: RefCell::new(State {
                io: Some(Io::new(stream)),
                decoder: Decoder::ended(),
                expects: false,
                broken: false,
                came: false,
                interim: false,
                patient: false,
                upgrade: None,
            }),
            waiting: Cell::new(None),
        })
    }

    /// Begins with a request: gives out its body.
    pub(super) fn begin(self: &Rc<Self>, framing: Framing, expects: bool, version: Version) -> Asked {
        let mut state = self.state.borrow_mut();
        state.decoder = Decoder::new(framing);
        let over = state.decoder.is_ended();
        state.expects = expects && !over;
        state.interim = version == Version::HTTP_11;
        state.patient = false;
        Asked { connection: Rc::clone(self), over }
    }

    /// Ready with true when the request's body has ended, and with false when it never will.
    pub(super) fn poll_body_over(self: &Rc<Self>, cx: &Context<'_>) -> Poll<bool> {
        let mut state = self.state.borrow_mut();
        let State { io, decoder, broken, .. } = &mut *state;
        if decoder.is_ended() || *broken {
            return Poll::Ready(!*broken);
        }
        if Rc::strong_count(self) > 1 {
            self.waiting.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        // Nobody wants it: what has come of it may be all.
        let Some(io) = io else { return Poll::Ready(false) };
        loop {
            match decoder.next(&mut io.read) {
                Ok(Piece::Data(_)) => {}
                Ok(Piece::Trailers(_) | Piece::End) => return Poll::Ready(true),
                Ok(Piece::More) | Err(_) => return Poll::Ready(decoder.is_ended()),
            }
        }
    }

    /// Ready when the caller is gone, as far as that can be seen before its request is read to the end. What is said to
    /// it meanwhile is written.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        let State { io, decoder, patient, .. } = &mut *state;
        let Some(io) = io else { return Poll::Pending };
        if !io.is_flushed() && matches!(io.poll_flush(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(());
        }
        if *patient {
            return Poll::Pending;
        }
        if !decoder.is_ended() {
            // Who reads the body sees it.
            self.waiting.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        while io.read.len() < super::serve::MAX_HEAD {
            match ready!(io.poll_fill(cx)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}

/// The body of a request.
pub(crate) struct Asked {
    connection: Rc<Connection>,
    /// All of it was given out, or it is broken: what comes next is not of this request.
    over: bool,
}

impl Asked {
    /// Passes on what an upstream says before its response, to callers that understand it (RFC 9110 section 15.2).
    pub(crate) fn interim(&self, response: &Response<()>) {
        let mut state = self.connection.state.borrow_mut();
        let State { io: Some(io), interim: true, .. } = &mut *state else { return };
        write_response(io.front(), response, Version::HTTP_11);
        io.front().extend_from_slice(b"\r\n");
    }

    /// The connection, once its caller was told that it may speak something else.
    pub(crate) fn on_upgrade(&self) -> OnUpgrade {
        let (sender, receiver) = oneshot::channel();
        self.connection.state.borrow_mut().upgrade = Some(sender);
        OnUpgrade(Some(receiver))
    }

    /// As [`on_upgrade`](Self::on_upgrade), for what is soon answered: what the caller says meanwhile is not looked at, and may
    /// be all that it has to say.
    pub(crate) fn on_tunnel(&self) -> OnUpgrade {
        self.connection.state.borrow_mut().patient = true;
        self.on_upgrade()
    }

    fn end(&mut self) {
        self.over = true;
        if let Some(waiting) = self.connection.waiting.take() {
            waiting.wake();
        }
    }
}

impl State {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        let Some(io) = &mut self.io else { return Poll::Ready(Err(Malformed::Ended.into())) };
        loop {
            match self.decoder.next(&mut io.read)? {
                Piece::More => {}
                piece => return Poll::Ready(Ok(piece)),
            }
            if std::mem::take(&mut self.expects) {
                let go_on = Response::builder().status(StatusCode::CONTINUE).body(());
                if let Ok(go_on) = go_on {
                    write_response(io.front(), &go_on, Version::HTTP_11);
                    io.front().extend_from_slice(b"\r\n");
                }
                // What cannot be written at once is, by who serves the connection.
                if let Poll::Ready(outcome) = io.poll_flush(cx) {
                    outcome?;
                }
            }
            if ready!(io.poll_fill(cx))? == 0 {
                self.decoder.close()?;
            }
        }
    }
}

impl Body for Asked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut state = self.connection.state.borrow_mut();
        let piece = ready!(state.poll_piece(cx));
        state.broken |= piece.is_err();
        state.came = true;
        let over = state.broken || state.decoder.is_ended();
        drop(state);
        if over {
            self.end();
        }
        Poll::Ready(match piece {
            Ok(Piece::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Piece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Piece::End | Piece::More) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        if self.over {
            return SizeHint::with_exact(0);
        }
        let remaining = self.connection.state.borrow().decoder.remaining();
        remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.end();
    }
}

/// A connection that is to come.
pub(crate) struct OnUpgrade(Option<oneshot::Receiver<Prefixed<Stream>>>);

impl OnUpgrade {
    /// One that never comes.
    pub(crate) fn never() -> Self {
        Self(None)
    }

    /// The connection; None: its caller was told something else.
    pub(crate) async fn stream(self) -> Option<Prefixed<Stream>> {
        self.0?.await.ok()
    }
}
