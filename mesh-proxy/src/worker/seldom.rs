//! Waiting for what seldom comes, inside of a task that is woken often by other things.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::AcqRel},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// A future that is polled only when it asked for it, however often its task is woken.
pub(crate) struct Seldom<F> {
    future: F,
    signal: Arc<Signal>,
}

/// What wakes the future.
struct Signal {
    woken: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, AcqRel) {
            self.task.wake();
        }
    }
}

impl<F> Seldom<F> {
    /// It is polled once at first.
    pub(crate) fn new(future: F) -> Self {
        let signal = Signal { woken: AtomicBool::new(true), task: AtomicWaker::new() };
        Self { future, signal: Arc::new(signal) }
    }
}

impl<F: Future + Unpin> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, signal } = self.get_mut();
        signal.task.register(cx.waker());
        if !signal.woken.swap(false, AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(signal));
        Pin::new(future).poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, pin::pin};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_asked_for_it() {
        let (send, receive) = oneshot::channel();
        let (polls, mut receive) = (Cell::new(0), pin!(receive));
        let counted = poll_fn(|cx| {
            polls.set(polls.get() + 1);
            receive.as_mut().poll(cx)
        });
        let mut seldom = Seldom::new(counted);
        for _ in 0..5 {
            let polled = poll_fn(|cx| Poll::Ready(Pin::new(&mut seldom).poll(cx).is_ready()));
            assert!(!polled.await);
        }
        assert_eq!(polls.get(), 1);
        let told = async {
            tokio::task::yield_now().await;
            send.send(7).unwrap();
        };
        let (got, ()) = tokio::join!(seldom, told);
        assert_eq!((got, polls.get()), (Ok(7), 2));
    }
}
