//! Bodies that pass through: never buffered, never copied, counted on the way.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::Response;
use http_body::{Body, Frame, SizeHint};
use mesh_core::reason::Reason;

pub(crate) use super::incoming::{BodyError, Incoming};
use super::{
    clock::{Clock, Patience, Silence},
    exchange::{Exchange, Progress},
    expect::Gate,
    h1::OnUpgrade,
    headers,
    replay::Replay,
    reply,
};
use crate::pool::Lease;

/// The body of a forwarded request.
pub(crate) struct RequestBody {
    inner: Inner,
    /// None: there is no body.
    progress: Option<Rc<Progress>>,
    /// Until it opens, the body is not asked for.
    gate: Option<Gate>,
    /// None: it may be silent for ever.
    patience: Option<Patience>,
}

enum Inner {
    /// There never was one.
    Nothing,
    Incoming(Incoming),
    /// One that may be sent again.
    Replay(Replay),
}

impl RequestBody {
    /// Counts its bytes for `exchange` from now on.
    pub(crate) fn count_for(&mut self, exchange: &mut Exchange) {
        self.progress = (!self.is_end_stream()).then(|| exchange.request_progress());
    }

    /// No body.
    pub(crate) fn none() -> Self {
        Self { inner: Inner::Nothing, progress: None, gate: None, patience: None }
    }

    /// A body that is sent once more.
    pub(super) fn again(replay: Replay) -> Self {
        let progress = Some(replay.progress());
        Self { inner: Inner::Replay(replay), progress, gate: None, patience: None }
    }

    /// Makes it one that may be sent again, if it is not yet. None: there is nothing to send.
    pub(crate) fn replay(&mut self) -> Option<&Replay> {
        let progress = self.progress.as_ref()?;
        self.inner = match std::mem::replace(&mut self.inner, Inner::Nothing) {
            Inner::Incoming(incoming) => Inner::Replay(Replay::new(incoming, Rc::clone(progress))),
            other @ (Inner::Replay(_) | Inner::Nothing) => other,
        };
        match &self.inner {
            Inner::Replay(replay) => Some(replay),
            Inner::Incoming(_) | Inner::Nothing => None,
        }
    }

    /// Holds the body back until `gate` opens.
    pub(crate) fn hold(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// Ends the body when nothing of it comes for this long, at most twice as long, while no response has begun. Not for
    /// HTTP/2 applications: their streams may be silent, and cost little.
    pub(crate) fn limit_silence(&mut self, limit: Duration) {
        self.patience = self.progress.is_some().then(|| Patience::new(limit));
    }

    /// What is needed to see that nothing of it comes any more.
    pub(crate) fn silence(&self) -> Silence {
        let limit = self.patience.as_ref().map_or(Silence::USUAL, Patience::limit);
        Silence::new(limit, self.progress.clone())
    }

    /// The caller's connection, should it be told to speak something else.
    pub(super) fn on_upgrade(&self) -> OnUpgrade {
        match &self.inner {
            Inner::Incoming(incoming) => incoming.on_upgrade(),
            Inner::Nothing | Inner::Replay(_) => OnUpgrade::never(),
        }
    }

    /// As [`on_upgrade`](Self::on_upgrade), for what is soon answered.
    pub(super) fn on_tunnel(&self) -> OnUpgrade {
        match &self.inner {
            Inner::Incoming(incoming) => incoming.on_tunnel(),
            Inner::Nothing | Inner::Replay(_) => OnUpgrade::never(),
        }
    }

    /// Passes on what an upstream says before its response.
    pub(crate) fn interim(&self, response: Response<()>) {
        match &self.inner {
            Inner::Nothing => {}
            Inner::Incoming(incoming) => incoming.interim(response),
            Inner::Replay(replay) => replay.interim(response),
        }
    }

    /// Asks the caller for the body, if it waits for that.
    fn ask(&self) {
        match &self.inner {
            Inner::Nothing => {}
            Inner::Incoming(incoming) => incoming.ask(),
            Inner::Replay(replay) => replay.ask(),
        }
    }

    /// True when it is held back.
    pub(crate) fn is_held(&self) -> bool {
        self.gate.is_some()
    }

    /// True when there is no body at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.progress.is_none()
    }
}

impl From<Incoming> for RequestBody {
    /// A body that came, and is not [counted](Self::count_for) yet.
    fn from(inner: Incoming) -> Self {
        Self { inner: Inner::Incoming(inner), progress: None, gate: None, patience: None }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.poll_open(cx));
            self.gate = None;
            self.ask();
        }
        let this = &mut *self;
        let polled = match &mut this.inner {
            Inner::Nothing => return Poll::Ready(None),
            Inner::Incoming(inner) => Pin::new(inner).poll_frame(cx).map(|frame| {
                if let Some(progress) = &this.progress {
                    progress.note(&frame);
                }
                frame
            }),
            // It notes for itself.
            Inner::Replay(replay) => replay.poll_frame(cx),
        };
        let Poll::Ready(mut frame) = polled else {
            let (Some(patience), Some(progress)) = (&mut this.patience, &this.progress) else {
                return Poll::Pending;
            };
            ready!(patience.poll(cx, progress));
            progress.fault.set(Some(Reason::RequestStalled));
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        if let Some(patience) = &mut this.patience {
            patience.touch();
        }
        clean(&mut frame);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Nothing => true,
            Inner::Incoming(inner) => inner.is_end_stream(),
            Inner::Replay(replay) => replay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Nothing => SizeHint::with_exact(0),
            Inner::Incoming(inner) => inner.size_hint(),
            Inner::Replay(replay) => replay.size_hint(),
        }
    }
}

impl Progress {
    /// Notes what came of a body.
    pub(super) fn note(&self, frame: &Option<Result<Frame<Bytes>, BodyError>>) {
        match frame {
            Some(Ok(frame)) => {
                let count = frame.data_ref().map_or(0, Bytes::remaining) as u64;
                self.bytes.set(self.bytes.get() + count);
            }
            Some(Err(error)) => self.fault.set(Some(error.fault())),
            None => {}
        }
    }
}

/// Nobody speaks in the mesh's name in trailers, and nothing there is about the message itself.
fn clean<E>(frame: &mut Option<Result<Frame<Bytes>, E>>) {
    if let Some(Ok(frame)) = frame
        && let Some(trailers) = frame.trailers_mut()
    {
        headers::strip_trailers(trailers);
    }
}

/// True when all of a response's body has come. Its end alone may still be under way, in a frame of its own that an
/// HTTP/1 server does not wait for; gRPC says there how it went.
fn is_over(body: &Incoming, exchange: &Exchange) -> bool {
    body.is_end_stream() || (!exchange.is_grpc() && body.size_hint().exact() == Some(0))
}

/// The body of a response: what came from upstream, or a short text of the proxy's own.
pub(crate) struct ResponseBody {
    source: Source,
    /// None: somebody else counts.
    exchange: Option<Exchange>,
    /// None: it may take as long as it wants.
    clock: Option<Box<Clock>>,
}

enum Source {
    Upstream {
        inner: Incoming,
        /// The upstream connection; free for others once this is dropped.
        _lease: Lease,
    },
    Text(Option<Bytes>),
}

impl ResponseBody {
    /// The body that came from upstream.
    pub(crate) fn upstream(
        inner: Incoming,
        lease: Lease,
        mut exchange: Exchange,
        clock: Option<Box<Clock>>,
    ) -> Self {
        if exchange.without_body() || is_over(&inner, &exchange) {
            exchange.finish();
        }
        Self { source: Source::Upstream { inner, _lease: lease }, exchange: Some(exchange), clock }
    }

    /// A text of the proxy's own, where the response has a body.
    pub(crate) fn text(text: Bytes, mut exchange: Exchange) -> Self {
        let text = if exchange.without_body() { Bytes::new() } else { text };
        exchange.response_bytes(text.len() as u64);
        exchange.finish();
        Self {
            source: Source::Text((!text.is_empty()).then_some(text)),
            exchange: Some(exchange),
            clock: None,
        }
    }

    /// Ends it before its time: gRPC callers are told why, others see it break.
    fn time_out(&mut self) -> Result<Frame<Bytes>, BodyError> {
        self.source = Source::Text(None);
        self.clock = None;
        let Some(mut exchange) = self.exchange.take() else { return Err(BodyError::TimedOut) };
        exchange.because(Reason::RequestTimeout);
        exchange.finish();
        if !exchange.is_grpc() {
            return Err(BodyError::TimedOut);
        }
        Ok(Frame::trailers(reply::trailers(Reason::RequestTimeout)))
    }

    /// No body, and nothing to count.
    pub(crate) fn none() -> Self {
        Self { source: Source::Text(None), exchange: None, clock: None }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let inner = match &mut this.source {
            Source::Text(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Upstream { inner, .. } => inner,
        };
        let polled = Pin::new(&mut *inner).poll_frame(cx);
        if let Some(clock) = &mut this.clock {
            match polled {
                Poll::Ready(_) => clock.touch(),
                Poll::Pending => {
                    ready!(clock.poll_expired(cx, None));
                    return Poll::Ready(Some(this.time_out()));
                }
            }
        }
        let mut frame = ready!(polled);
        clean(&mut frame);
        let Some(exchange) = &mut this.exchange else { return Poll::Ready(frame) };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    exchange.response_bytes(data.remaining() as u64);
                } else if let Some(trailers) = frame.trailers_ref() {
                    exchange.trailers(trailers);
                }
                // The server may not ask again when it knows that this was all.
                if frame.is_trailers() || is_over(inner, exchange) {
                    exchange.finish();
                }
            }
            Some(Err(_)) => {
                // The peer keeps the same time, and may be the first to give up.
                let over = this.clock.as_ref().is_some_and(|clock| clock.is_over());
                exchange.because(if over { Reason::RequestTimeout } else { Reason::UpstreamReset });
                exchange.finish();
            }
            None => exchange.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Upstream { inner, .. } => inner.is_end_stream(),
            Source::Text(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Upstream { inner, .. } => inner.size_hint(),
            Source::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}
