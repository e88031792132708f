//! A request sent, and the head of its response read.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Method, Request, StatusCode, header::UPGRADE};

use super::{
    head::{self, ResponseHead},
    io::Io,
    sending::{Sending, Stopped},
};
use crate::http::{
    body::RequestBody,
    expect::Opener,
    interim::{Interims, is_interim, passed_on},
};

/// Largest head of a response, in bytes.
const MAX_HEAD: usize = 64 * 1024;

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
) -> Result<(ResponseHead, Sending), Failed> {
    head::write_request(io.front(), request.method(), request.uri(), request.headers());
    let mut upload = Sending::begin(io.front(), request.headers(), request.body(), true);
    let upgrade = request.headers().contains_key(UPGRADE);
    let mut reading = Reading {
        method: request.method().clone(),
        upgrade,
        searched: 0,
        interims: Interims::default(),
        opener,
    };
    let head = poll_fn(|cx| {
        loop {
            match upload.poll(cx, io, request.body_mut()) {
                Poll::Ready(Err(Stopped::Source)) => return Poll::Ready(Err(Failed::Request)),
                // There may be a response all the same, which says why.
                Poll::Ready(Err(Stopped::Connection) | Ok(())) | Poll::Pending => {}
            }
            match ready!(reading.poll(cx, io))? {
                Some(head) if is_interim(head.status) => {
                    request.body().interim(passed_on(head.status, head.fields));
                }
                Some(head) => return Poll::Ready(Ok(head)),
                // The body may be sent now.
                None => {}
            }
        }
    })
    .await?;
    Ok((head, upload))
}

/// Reads a response's head.
struct Reading<'a> {
    method: Method,
    /// The upstream was asked to speak something else.
    upgrade: bool,
    /// How much of what was read holds no end of a head.
    searched: usize,
    interims: Interims,
    opener: Option<&'a Opener>,
}

impl Reading<'_> {
    /// The next head; None: the upstream asked for the body.
    fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Result<Option<ResponseHead>, Failed>> {
        loop {
            let read = head::response(&mut io.read, self.searched, &self.method, HeaderMap::new());
            match read.map_err(|_| Failed::Malformed)? {
                Some(head) if is_interim(head.status) => {
                    self.searched = 0;
                    if !self.interims.came() {
                        return Poll::Ready(Err(Failed::Malformed));
                    }
                    if let (StatusCode::CONTINUE, Some(opener)) = (head.status, self.opener) {
                        opener.open();
                        return Poll::Ready(Ok(None));
                    }
                    return Poll::Ready(Ok(Some(head)));
                }
                Some(head) if head.status == StatusCode::SWITCHING_PROTOCOLS && !self.upgrade => {
                    return Poll::Ready(Err(Failed::Malformed));
                }
                Some(head) => return Poll::Ready(Ok(Some(head))),
                None => self.searched = io.read.len(),
            }
            if io.read.len() >= MAX_HEAD {
                return Poll::Ready(Err(Failed::Malformed));
            }
            let nothing_came = io.read.is_empty() && self.interims == Interims::default();
            match ready!(io.poll_fill(cx)) {
                Ok(count) if count > 0 => {}
                _ if nothing_came => return Poll::Ready(Err(Failed::Lost)),
                _ => return Poll::Ready(Err(Failed::Ended)),
            }
        }
    }
}
