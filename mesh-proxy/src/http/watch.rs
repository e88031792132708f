//! A connection that carries HTTP/2 to this proxy, watched: what the library refuses by itself is counted, and a caller
//! that floods it with frames that bring nothing is cut off.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use mesh_core::{edge::Direction, reason::Reason};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Budget, Frame, Scanner, refusal};
use crate::{detect::PREFACE, net::Stream, worker::Worker};

/// A watched connection.
pub(super) struct Watched {
    io: Stream,
    worker: Rc<Worker>,
    direction: Direction,
    from: Scanner,
    to: Scanner,
    budget: Budget,
}

impl Watched {
    /// Watches `io`, from its preface on.
    pub(super) fn new(io: Stream, worker: &Rc<Worker>, direction: Direction) -> Self {
        Self {
            io,
            worker: Rc::clone(worker),
            direction,
            from: Scanner::after(PREFACE.len() as u32),
            to: Scanner::default(),
            budget: Budget::new(Instant::now()),
        }
    }

    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut spent = false;
        self.from.scan(bytes, |frame| spent |= !self.budget.came(frame, Instant::now));
        if !spent {
            return Ok(());
        }
        self.worker.refused(self.direction, Reason::LimitExceeded);
        Err(io::Error::other("too many frames that bring nothing"))
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        Poll::Ready(self.came(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        let this = &mut *self;
        let told = |frame: Frame| told(&this.worker, this.direction, &mut this.budget, frame);
        this.to.scan(buf.get(..count).unwrap_or_default(), told);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        let this = &mut *self;
        let mut left = count;
        for buf in bufs {
            let part = buf.get(..buf.len().min(left)).unwrap_or_default();
            let told = |frame: Frame| told(&this.worker, this.direction, &mut this.budget, frame);
            this.to.scan(part, told);
            left -= part.len();
        }
        Poll::Ready(Ok(count))
    }
}

/// Accounts for a frame that this side sent.
fn told(worker: &Worker, direction: Direction, budget: &mut Budget, frame: Frame) {
    budget.sent(frame);
    if let Some(reason) = refusal(frame) {
        worker.refused(direction, reason);
    }
}
