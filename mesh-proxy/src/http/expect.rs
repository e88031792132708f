//! `Expect: 100-continue` from end to end (RFC 9110 section 10.1.1): the body is asked for once the upstream wants it.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Request, header::EXPECT};
use tokio::time::{Sleep, sleep};

use super::body::RequestBody;

/// How long the upstream may be silent before the body is sent all the same: some servers do not know the expectation.
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds a body back.
pub(crate) struct Gate {
    open: Rc<Cell<bool>>,
    patience: Pin<Box<Sleep>>,
}

impl Gate {
    /// Waits until the body may be sent. Who opens it polls the body thereafter.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open.get() {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(cx)
    }
}

/// Opens a [`Gate`].
pub(crate) struct Opener(Rc<Cell<bool>>);

impl Opener {
    /// The upstream wants the body.
    pub(crate) fn open(&self) {
        self.0.set(true);
    }
}

/// Holds the body of a request back until the upstream says 100, where the caller waits for that. It is asked for the body
/// then, or when the upstream was silent for long.
pub(crate) fn hold_if_expected(request: &mut Request<RequestBody>) -> Option<Opener> {
    let waits = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if request.body().is_empty() || !request.headers().get(EXPECT).is_some_and(waits) {
        return None;
    }
    let open = Rc::<Cell<bool>>::default();
    request.body_mut().hold(Gate { open: Rc::clone(&open), patience: Box::pin(sleep(PATIENCE)) });
    Some(Opener(open))
}
