//! A body as it comes in a stream.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Response, StatusCode, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;

use super::caller::Caller;
use crate::http::body::BodyError;

/// The body of a request or a response. What was handed out gives its room in the window to what follows.
pub(crate) struct Received {
    /// None: it is over.
    stream: Option<RecvStream>,
    /// What is still to come, in bytes, where the head says it.
    left: Option<u64>,
    /// No more data: trailers, or the end.
    data_done: bool,
    /// Who sends it, in a request. None: it came in a response, whose server may end a stream by NO_ERROR once it has said
    /// all (RFC 9113 section 8.1).
    caller: Option<Rc<Caller>>,
    /// The caller was asked for it.
    asked: Cell<bool>,
    /// What still sends the request; cut when nobody waits for the response any more.
    upload: Option<AbortHandle>,
}

impl Received {
    /// The body of a request with these fields.
    pub(super) fn request(stream: RecvStream, fields: &HeaderMap, caller: Rc<Caller>) -> Self {
        Self::new(stream, fields, Some(caller))
    }

    /// The body of a response. 204 and 304 have none, whatever their fields say of the one that others would have.
    pub(crate) fn response(stream: RecvStream, status: StatusCode, fields: &HeaderMap) -> Self {
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            let asked = Cell::default();
            return Self { stream: None, left: None, data_done: true, caller: None, asked, upload: None };
        }
        Self::new(stream, fields, None)
    }

    fn new(stream: RecvStream, fields: &HeaderMap, caller: Option<Rc<Caller>>) -> Self {
        let stream = (!stream.is_end_stream()).then_some(stream);
        let length = || fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        let left = stream.as_ref().and_then(|_| length());
        Self { stream, left, data_done: false, caller, asked: Cell::default(), upload: None }
    }

    /// Passes on what an upstream says before its response. Only while the request's own work is polled.
    pub(crate) fn interim(&self, response: Response<()>) {
        if let Some(caller) = &self.caller {
            caller.say(response);
        }
    }

    /// Asks the caller for the body, which waits for that (RFC 9110 section 10.1.1). Only while the request's own work is
    /// polled.
    pub(crate) fn ask(&self) {
        if !self.asked.replace(true) {
            let mut go_on = Response::new(());
            *go_on.status_mut() = StatusCode::CONTINUE;
            self.interim(go_on);
        }
    }

    /// Keeps what still sends the request.
    pub(crate) fn sending(&mut self, upload: AbortHandle) {
        self.upload = Some(upload);
    }

    fn end(&mut self) {
        self.stream = None;
        // The server may still want the rest of the request.
        self.upload = None;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, h2::Error>> {
        loop {
            let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(None)) };
            if self.data_done {
                let trailers = ready!(stream.poll_trailers(cx))?;
                self.end();
                return Poll::Ready(Ok(trailers.map(Frame::trailers)));
            }
            let Some(data) = ready!(stream.poll_data(cx)).transpose()? else {
                self.data_done = true;
                continue;
            };
            if !data.is_empty() {
                stream.flow_control().release_capacity(data.len())?;
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            }
            if stream.is_end_stream() {
                self.end();
            }
            // An empty frame says nothing, or that this was all.
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(Frame::data(data))));
            }
        }
    }

    /// True when a stream that was reset had come to its end before.
    fn was_over(&self, error: &h2::Error) -> bool {
        self.caller.is_none()
            && error.is_remote()
            && error.reason() == Some(h2::Reason::NO_ERROR)
            && self.left.is_none_or(|left| left == 0)
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
        Poll::Ready(match ready!(this.poll(cx)) {
            Ok(frame) => frame.map(Ok),
            Err(error) => {
                let over = this.was_over(&error);
                this.end();
                if over { None } else { Some(Err(error.into())) }
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.stream, self.left) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), Some(left)) => SizeHint::with_exact(left),
            (Some(_), None) => SizeHint::default(),
        }
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.abort();
        }
    }
}
