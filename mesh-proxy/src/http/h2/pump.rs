//! A body on its way out in a stream.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::http::body::BodyError;

/// Why a body was not sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It did not come to its end; the stream was reset.
    Source,
    /// The peer reset the stream, or the connection is gone.
    Stream,
}

/// Sends a body, as fast as it comes and the peer takes it. One piece is in hand at most, and one in the stream.
pub(crate) struct Pump<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// A piece that waits for room in the window, and whether it is the last.
    waiting: Option<(Bytes, bool)>,
    /// Nothing was sent yet: what comes first may wait in the stream.
    first: bool,
}

impl<B> Pump<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    /// Begins; the head was sent.
    pub(crate) fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Self { stream, body, waiting: None, first: true }
    }

    /// What it sends.
    pub(crate) fn body(&self) -> &B {
        &self.body
    }

    /// Sends what there is; ready when all is sent.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        loop {
            if let Some((data, last)) = self.waiting.take() {
                match self.poll_room(cx) {
                    Poll::Ready(room) => room?,
                    Poll::Pending => {
                        self.waiting = Some((data, last));
                        return Poll::Pending;
                    }
                }
                self.send(data, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                // A reset is to be heard of while nothing else happens.
                return match self.stream.poll_reset(cx) {
                    Poll::Ready(_) => Poll::Ready(Err(Stopped::Stream)),
                    Poll::Pending => Poll::Pending,
                };
            };
            match frame.transpose() {
                Ok(Some(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let last = self.body.is_end_stream();
                        if !(data.is_empty() || std::mem::take(&mut self.first)) {
                            // A claim on the window, no larger than needed to be told of room. Made only now: a body
                            // of which nothing comes would keep it from others.
                            self.stream.reserve_capacity(1);
                            self.waiting = Some((data, last));
                            continue;
                        }
                        if last || !data.is_empty() {
                            self.send(data, last)?;
                        }
                        if last {
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.stream.reserve_capacity(0);
                            let sent = self.stream.send_trailers(trailers);
                            return Poll::Ready(sent.map_err(|_| Stopped::Stream));
                        }
                    }
                },
                Ok(None) => return Poll::Ready(self.send(Bytes::new(), true)),
                Err(error) => {
                    self.stream.send_reset(reset_for(&error));
                    return Poll::Ready(Err(Stopped::Source));
                }
            }
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Stopped>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Stopped::Stream)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, data: Bytes, last: bool) -> Result<(), Stopped> {
        self.stream.send_data(data, last).map_err(|_| Stopped::Stream)
    }
}

impl<B> Future for Pump<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Output = Result<(), Stopped>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_send(cx)
    }
}

/// With which error a stream ends whose body breaks. A body that was given up elsewhere is given up here.
fn reset_for(error: &BodyError) -> Reason {
    match error {
        BodyError::H2(error) => match error.reason() {
            // That would look like an end.
            None | Some(Reason::NO_ERROR) => Reason::INTERNAL_ERROR,
            Some(reason) => reason,
        },
        _ => Reason::INTERNAL_ERROR,
    }
}
