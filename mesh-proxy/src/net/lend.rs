//! Copying without a copy: a connection under TLS has what it read in a buffer of its own, opened where it lies.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite};

use super::{Dialled, Prefixed, Stream, Told};
use crate::tls::session::Session;

/// What [`AsyncBufRead`](tokio::io::AsyncBufRead) says, by whoever may have no such buffer.
pub(crate) trait Lend: AsyncRead + Unpin {
    /// What was read and not taken yet, or comes now; nothing: that was all. None: it is read like any other.
    fn poll_lend(&mut self, _: &mut Context<'_>) -> Option<Poll<io::Result<&[u8]>>> {
        None
    }

    /// Takes so many bytes of what was lent.
    fn take_lent(&mut self, _: usize) {}
}

#[cfg(test)]
impl Lend for tokio::io::DuplexStream {}

impl<S: AsyncRead + AsyncWrite + Unpin> Lend for Session<S> {
    fn poll_lend(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<&[u8]>>> {
        Some(Pin::new(self).poll_fill_buf(cx))
    }

    fn take_lent(&mut self, count: usize) {
        Pin::new(self).consume(count);
    }
}

impl<S: Lend> Lend for Prefixed<S> {
    fn poll_lend(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<&[u8]>>> {
        self.inner()?.poll_lend(cx)
    }

    fn take_lent(&mut self, count: usize) {
        if let Some(inner) = self.inner() {
            inner.take_lent(count);
        }
    }
}

impl Lend for Told {
    fn poll_lend(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<&[u8]>>> {
        match self.poll_taken(cx) {
            Poll::Ready(Ok(())) => self.dialled_mut().poll_lend(cx),
            Poll::Ready(Err(error)) => Some(Poll::Ready(Err(error))),
            Poll::Pending => Some(Poll::Pending),
        }
    }

    fn take_lent(&mut self, count: usize) {
        self.dialled_mut().take_lent(count);
    }
}

impl Lend for Dialled {
    fn poll_lend(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<&[u8]>>> {
        Some(self.poll_plain(cx))
    }

    fn take_lent(&mut self, count: usize) {
        self.consume(count);
    }
}

impl Lend for Stream {
    fn poll_lend(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<&[u8]>>> {
        match self {
            Self::Tcp(_) => None,
            Self::Accepted(io) => io.inner.poll_lend(cx),
            Self::Dialled(io) => io.poll_lend(cx),
            Self::Told(io) => io.poll_lend(cx),
        }
    }

    fn take_lent(&mut self, count: usize) {
        match self {
            Self::Tcp(_) => {}
            Self::Accepted(io) => io.inner.take_lent(count),
            Self::Dialled(io) => io.take_lent(count),
            Self::Told(io) => io.take_lent(count),
        }
    }
}
