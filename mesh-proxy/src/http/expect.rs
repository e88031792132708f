//! `Expect: 100-continue` from end to end (RFC 9110 section 10.1.1): the body is asked for once the upstream wants it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use http::{Request, StatusCode, header::EXPECT};
use tokio::time::{Sleep, sleep};

use super::body::RequestBody;

/// How long the upstream may be silent before the body is sent all the same: some servers do not know the expectation.
const PATIENCE: Duration = Duration::from_secs(1);

/// Holds a body back.
pub(crate) struct Gate {
    shared: Arc<Shared>,
    patience: Pin<Box<Sleep>>,
}

#[derive(Default)]
struct Shared {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    /// Waits until the body may be sent.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.waker.register(cx.waker());
        if self.shared.open.load(Relaxed) {
            return Poll::Ready(());
        }
        self.patience.as_mut().poll(cx)
    }
}

/// Holds the body of a request back until the upstream says 100, where the caller waits for that. Only for HTTP/1:
/// over HTTP/2 interim responses do not come through, and the body is not held.
pub(crate) fn hold_if_expected(request: &mut Request<RequestBody>) {
    if !request.headers().contains_key(EXPECT) || request.body().is_empty() {
        return;
    }
    let shared = Arc::<Shared>::default();
    let opener = Arc::clone(&shared);
    hyper::ext::on_informational(request, move |interim| {
        if interim.status() == StatusCode::CONTINUE {
            opener.open.store(true, Relaxed);
            opener.waker.wake();
        }
    });
    request.body_mut().hold(Gate { shared, patience: Box::pin(sleep(PATIENCE)) });
}
