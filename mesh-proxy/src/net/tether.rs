//! Cutting a connection from outside of the task that uses it.

use std::{
    cell::{Cell, RefCell},
    io,
    task::{Context, Waker},
};

/// Why reading and writing fail on a connection that was cut.
#[derive(Debug, thiserror::Error)]
#[error("the connection was cut: its peer is no longer trusted")]
struct Cut;

/// Holds one connection. Who uses it and who cuts it are tasks of one thread.
#[derive(Debug, Default)]
pub(crate) struct Tether {
    cut: Cell<bool>,
    /// Who waits to read, and who waits to write.
    waiting: RefCell<[Option<Waker>; 2]>,
}

/// What a task waits for.
#[derive(Clone, Copy)]
pub(super) enum To {
    Read,
    Write,
}

impl Tether {
    /// Cuts the connection: whoever uses it fails, at once if it waits.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
        let waiting = self.waiting.take();
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    /// # Errors
    /// When the connection was cut.
    pub(super) fn check(&self) -> io::Result<()> {
        if self.cut.get() { Err(io::Error::other(Cut)) } else { Ok(()) }
    }

    /// Notes that a task waits for the connection.
    pub(super) fn wait(&self, to: To, cx: &Context<'_>) {
        let mut waiting = self.waiting.borrow_mut();
        let waker = match to {
            To::Read => &mut waiting[0],
            To::Write => &mut waiting[1],
        };
        match waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }
}

/// True for the error of a connection that was cut.
pub(crate) fn is_cut(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Cut>())
}
