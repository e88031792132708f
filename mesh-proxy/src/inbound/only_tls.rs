//! Bytes to an application that speaks HTTP. A caller that has its requests carried as bytes could say in them what only
//! proxies may say (`mesh-client-id`), past what is decided and limited for each request. Nothing but TLS of the
//! application's own is let through: what that says, no proxy could have said.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    detect::HANDSHAKE,
    net::{Lend, Stream, writes_through},
};

/// Why reading fails on a connection that carries something else.
#[derive(Debug, thiserror::Error)]
#[error("bytes that are not TLS, to a port that is declared to speak HTTP")]
struct NotTls;

/// True for the error of a connection that carries something else.
pub(super) fn is_not_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<NotTls>())
}

/// The caller's connection.
pub(super) struct OnlyTls<'a> {
    inner: &'a mut Stream,
    /// The first byte is still to come, and to be looked at.
    looks: bool,
}

impl<'a> OnlyTls<'a> {
    /// `looks`: false lets everything through.
    pub(super) fn new(inner: &'a mut Stream, looks: bool) -> Self {
        Self { inner, looks }
    }
}

impl AsyncRead for OnlyTls<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut *self.inner).poll_read(cx, buf))?;
        if self.looks
            && let Some(first) = buf.filled().get(before)
        {
            if *first != HANDSHAKE {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, NotTls)));
            }
            self.looks = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl Lend for OnlyTls<'_> {
    fn poll_lend(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<&[u8]>>> {
        if self.looks { None } else { self.inner.poll_lend(cx) }
    }

    fn take_lent(&mut self, count: usize) {
        self.inner.take_lent(count);
    }
}

writes_through!(OnlyTls<'_>);
