//! Bodies that can be sent again: what was read is kept, up to a bound, until nobody will ask for it.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};

use super::{
    body::{BodyError, Incoming, RequestBody},
    exchange::Progress,
};

/// Most bytes that are kept of one body.
pub(crate) const MAX_KEPT: usize = 64 * 1024;

/// Takes a body of which all has come.
type Taker = Box<dyn FnOnce(RequestBody)>;

struct Shared {
    /// None: all of it is kept.
    source: Option<Incoming>,
    /// Who wants a copy of it.
    takers: Vec<Taker>,
    progress: Rc<Progress>,
    kept: Vec<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// Somebody may still want to send it again.
    keep: bool,
    /// Something was read that was not kept.
    lost: bool,
    /// Which reader it belongs to: the newest.
    turn: u32,
    waker: Option<Waker>,
}

/// One reader of a body.
pub(crate) struct Replay {
    shared: Rc<RefCell<Shared>>,
    turn: u32,
    /// Kept pieces that were read already.
    read: usize,
    trailers_read: bool,
}

impl Replay {
    /// A body whose bytes count in `progress`, once however often it is sent.
    pub(super) fn new(source: Incoming, progress: Rc<Progress>) -> Self {
        Self::over(Shared {
            source: Some(source),
            takers: Vec::new(),
            progress,
            kept: Vec::new(),
            bytes: 0,
            trailers: None,
            ended: false,
            keep: false,
            lost: false,
            turn: 0,
            waker: None,
        })
    }

    fn over(shared: Shared) -> Self {
        Self { shared: Rc::new(RefCell::new(shared)), turn: 0, read: 0, trailers_read: false }
    }

    /// Gives a copy to `taker` once all of it has come; never, if it is too large or does not come to its end.
    pub(crate) fn when_complete(&self, taker: Taker) {
        let mut shared = self.shared.borrow_mut();
        if !shared.lost {
            shared.takers.push(taker);
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.shared.borrow_mut();
        let shared = &mut *shared;
        if shared.turn != self.turn {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(piece) = shared.kept.get(self.read) {
            self.read += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        if shared.ended {
            let trailers = if self.trailers_read { None } else { shared.trailers.clone() };
            self.trailers_read = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let Some(source) = &mut shared.source else { return Poll::Ready(None) };
        let polled = Pin::new(source).poll_frame(cx);
        if polled.is_pending() && !shared.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            shared.waker = Some(cx.waker().clone());
        }
        let frame = ready!(polled);
        shared.progress.note(&frame);
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.read = shared.note(data);
                    if shared.source.as_ref().is_none_or(Body::is_end_stream) {
                        shared.complete();
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    (shared.trailers, shared.ended) = (Some(trailers.clone()), true);
                    self.trailers_read = true;
                    shared.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                shared.lose();
                Poll::Ready(Some(Err(error)))
            }
            None => {
                (shared.ended, self.trailers_read) = (true, true);
                shared.complete();
                Poll::Ready(None)
            }
        }
    }

    /// Passes on what an upstream says before its response.
    pub(super) fn interim(&self, response: Response<()>) {
        if let Some(source) = &self.shared.borrow().source {
            source.interim(response);
        }
    }

    /// Asks the caller for the body, if it waits for that.
    pub(super) fn ask(&self) {
        if let Some(source) = &self.shared.borrow().source {
            source.ask();
        }
    }

    /// How the body fares.
    pub(super) fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.shared.borrow().progress)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        let over = shared.ended || shared.source.as_ref().is_none_or(Body::is_end_stream);
        self.read >= shared.kept.len() && over && (self.trailers_read || shared.trailers.is_none())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let shared = self.shared.borrow();
        let unread: usize = shared.kept.iter().skip(self.read).map(Bytes::len).sum();
        match shared.source.as_ref().map_or(Some(0), |source| source.size_hint().exact()) {
            Some(rest) => SizeHint::with_exact(rest + unread as u64),
            None => SizeHint::default(),
        }
    }

    fn spare(&self) -> Option<Rc<RefCell<Shared>>> {
        let mut shared = self.shared.borrow_mut();
        if shared.lost {
            return None;
        }
        shared.keep = true;
        Some(Rc::clone(&self.shared))
    }
}

impl Shared {
    /// Keeps a piece that came. Returns how many are kept.
    fn note(&mut self, data: &Bytes) -> usize {
        let wanted = self.keep || !self.takers.is_empty();
        if wanted && !self.lost && self.bytes + data.len() <= MAX_KEPT {
            self.bytes += data.len();
            self.kept.push(data.clone());
        } else {
            self.lose();
        }
        self.kept.len()
    }

    /// What was read is gone. All that was kept was read by the one reader that counts.
    fn lose(&mut self) {
        self.lost = true;
        self.kept = Vec::new();
        self.takers = Vec::new();
    }

    /// All has come: whoever wants a copy gets it.
    fn complete(&mut self) {
        for taker in std::mem::take(&mut self.takers) {
            let copy = Self {
                source: None,
                takers: Vec::new(),
                progress: Rc::default(),
                kept: self.kept.clone(),
                bytes: self.bytes,
                trailers: self.trailers.clone(),
                ended: true,
                keep: false,
                lost: false,
                turn: 0,
                waker: None,
            };
            taker(RequestBody::again(Replay::over(copy)));
        }
    }
}

/// What it takes to send a request again whose head is kept. Dropped, the body is no longer kept.
pub(crate) struct Spare(Option<Rc<RefCell<Shared>>>);

impl Spare {
    /// For the request with this body; None: something of it is gone.
    pub(crate) fn of(body: &mut RequestBody) -> Option<Self> {
        Some(Self(match body.replay() {
            None => None,
            Some(replay) => Some(replay.spare()?),
        }))
    }

    /// Whether all of the body is still there.
    pub(crate) fn is_usable(&self) -> bool {
        self.0.as_ref().is_none_or(|body| !body.borrow().lost)
    }

    /// Makes `body` whole again. What still sends the first one gets no more of it. False: part of it is gone.
    pub(crate) fn restore(mut self, body: &mut RequestBody) -> bool {
        // Of nothing, nothing is gone.
        let Some(shared) = self.0.take() else { return true };
        let turn = {
            let mut shared = shared.borrow_mut();
            if shared.lost {
                return false;
            }
            shared.turn += 1;
            shared.keep = false;
            if let Some(waker) = shared.waker.take() {
                waker.wake();
            }
            shared.turn
        };
        *body = RequestBody::again(Replay { shared, turn, read: 0, trailers_read: false });
        true
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.borrow_mut().keep = false;
        }
    }
}
