//! A request sent, and the head of its response read.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Method, Request, StatusCode};

use super::{
    head::{self, ResponseHead},
    io::Io,
    upload::{Stopped, Upload},
};
use crate::http::{body::RequestBody, expect::Opener};

/// Largest head of a response, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Most interim responses (1xx) before the final one.
const MAX_INTERIM: usize = 16;

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The connection ended before anything of a response came.
    Lost,
    /// The connection ended within the response's head.
    Ended,
    /// The response is not HTTP/1.1 or 1.0, or its head is too large.
    Malformed,
    /// The request's body did not come to its end.
    Request,
}

/// Sends a request and reads the response's head, both at the same time. The body may not be sent to its end when the
/// head is there; a body that the upstream did not ask for is not begun.
///
/// # Errors
/// [`Failed`]. The connection is of no use any more.
pub(crate) async fn exchange(
    io: &mut Io,
    request: &mut Request<RequestBody>,
    opener: Option<&Opener>,
) -> Result<(ResponseHead, Upload), Failed> {
    head::write_request(io.front(), request.method(), request.uri(), request.headers());
    let mut upload = Upload::begin(io.front(), request.headers(), request.body());
    let mut reading = Reading { method: request.method().clone(), searched: 0, interim: 0, opener };
    let head = poll_fn(|cx| {
        loop {
            match upload.poll(cx, io, request.body_mut()) {
                Poll::Ready(Err(Stopped::Source)) => return Poll::Ready(Err(Failed::Request)),
                // There may be a response all the same, which says why.
                Poll::Ready(Err(Stopped::Connection) | Ok(())) | Poll::Pending => {}
            }
            let outcome = ready!(reading.poll(cx, io));
            if let Some(head) = outcome? {
                return Poll::Ready(Ok(head));
            }
            // The body may be sent now.
        }
    })
    .await?;
    Ok((head, upload))
}

/// Reads a response's head.
struct Reading<'a> {
    method: Method,
    /// How much of what was read holds no end of a head.
    searched: usize,
    interim: usize,
    opener: Option<&'a Opener>,
}

impl Reading<'_> {
    /// The head; None: the upstream asked for the body.
    fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Result<Option<ResponseHead>, Failed>> {
        loop {
            let read = head::response(&mut io.read, self.searched, &self.method, HeaderMap::new());
            match read.map_err(|_| Failed::Malformed)? {
                Some(head)
                    if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS =>
                {
                    self.searched = 0;
                    self.interim += 1;
                    if self.interim > MAX_INTERIM {
                        return Poll::Ready(Err(Failed::Malformed));
                    }
                    if let (StatusCode::CONTINUE, Some(opener)) = (head.status, self.opener) {
                        opener.open();
                        return Poll::Ready(Ok(None));
                    }
                    continue;
                }
                Some(head) => return Poll::Ready(Ok(Some(head))),
                None => self.searched = io.read.len(),
            }
            if io.read.len() >= MAX_HEAD {
                return Poll::Ready(Err(Failed::Malformed));
            }
            let nothing_came = io.read.is_empty() && self.interim == 0;
            match ready!(io.poll_fill(cx)) {
                Ok(count) if count > 0 => {}
                _ if nothing_came => return Poll::Ready(Err(Failed::Lost)),
                _ => return Poll::Ready(Err(Failed::Ended)),
            }
        }
    }
}
