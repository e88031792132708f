//! One type for every kind of connection, so that HTTP and copying are compiled once.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncBufRead as _, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    tether::{Tether, To},
    told::Told,
};
use crate::tls::{Chain, Credentials, RootsHash, Side, session::Session};

/// A connection whose first bytes were read already and are read again.
#[derive(Debug)]
pub(crate) struct Prefixed<S = TcpStream> {
    prefix: Bytes,
    inner: S,
}

impl<S> Prefixed<S> {
    /// `prefix` are the bytes that were read from `inner`.
    pub(crate) fn new(inner: S, prefix: Bytes) -> Self {
        Self { prefix, inner }
    }

    /// Bytes that were read are to be read again; nothing else is waiting to be.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.prefix = bytes;
    }

    /// The connection itself, when nothing is to be read again.
    pub(super) fn inner(&mut self) -> Option<&mut S> {
        self.prefix.is_empty().then_some(&mut self.inner)
    }

    /// The connection itself.
    #[cfg(test)]
    pub(crate) fn get_ref(&self) -> &S {
        &self.inner
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Plain TCP.
    Tcp(Prefixed),
    /// TLS, the peer dialled.
    Accepted(Box<Accepted>),
    /// TLS, this side dialled.
    Dialled(Box<Dialled>),
    /// The same, and the peer says first whether it takes the connection.
    Told(Box<Told>),
}

/// TLS from a peer that dialled.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) inner: Prefixed<Session<Prefixed>>,
    pub(crate) chain: Option<Chain>,
    /// The roots under which the chain was verified.
    pub(crate) roots: RootsHash,
}

/// TLS to a peer that this side dialled. Others may cut it.
#[derive(Debug)]
pub(crate) struct Dialled {
    inner: Session<Prefixed>,
    chain: Option<Chain>,
    tether: Rc<Tether>,
}

impl Dialled {
    /// After the handshake.
    pub(crate) fn new(inner: Session<Prefixed>, chain: Option<Chain>) -> Self {
        Self { inner, chain, tether: Rc::default() }
    }

    /// What cuts it.
    pub(crate) fn tether(&self) -> &Rc<Tether> {
        &self.tether
    }

    /// What the peer authenticated with, leaf first.
    pub(crate) fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref()
    }

    /// What the peer sent, in the buffer where it was opened; nothing: that was all.
    pub(super) fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        ready!(self.reach(cx, To::Read, |inner, cx| inner.poll_fill_buf(cx).map_ok(|_| ())))?;
        Poll::Ready(Ok(self.inner.plain()))
    }

    /// Takes so many bytes of that.
    pub(super) fn consume(&mut self, count: usize) {
        Pin::new(&mut self.inner).consume(count);
    }

    fn reach<T>(
        &mut self,
        cx: &mut Context<'_>,
        to: To,
        act: impl FnOnce(Pin<&mut Session<Prefixed>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.tether.check()?;
        let outcome = act(Pin::new(&mut self.inner), cx);
        if outcome.is_pending() {
            self.tether.wait(to, cx);
        }
        outcome
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reach(cx, To::Read, |inner, cx| inner.poll_read(cx, buf))
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.reach(cx, To::Write, |inner, cx| inner.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reach(cx, To::Write, |inner, cx| inner.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reach(cx, To::Write, |inner, cx| inner.poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.reach(cx, To::Write, |inner, cx| inner.poll_write_vectored(cx, bufs))
    }
}

impl Stream {
    /// A plain connection.
    pub(crate) fn tcp(inner: TcpStream) -> Self {
        Self::Tcp(Prefixed::new(inner, Bytes::new()))
    }

    /// What the caller authenticated with; None: this is no connection that a peer made with mesh TLS.
    pub(crate) fn caller(&self) -> Option<Credentials> {
        match self {
            Self::Accepted(io) => Credentials::new(Side::Caller, io.chain.as_ref(), io.roots),
            Self::Tcp(_) | Self::Dialled(_) | Self::Told(_) => None,
        }
    }

    /// The TLS connection that this side dialled.
    pub(crate) fn dialled(&self) -> Option<&Dialled> {
        match self {
            Self::Dialled(io) => Some(io),
            Self::Told(io) => Some(io.dialled()),
            Self::Tcp(_) | Self::Accepted(_) => None,
        }
    }
}

impl AsMut<Self> for Stream {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.prefix.len().min(buf.remaining());
        buf.put_slice(self.prefix.get(..count).unwrap_or_default());
        self.prefix.advance(count);
        if self.prefix.is_empty() {
            // Frees the buffer.
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
}

/// Calls the same method on whichever stream it is.
macro_rules! delegate {
    ($self:ident, $method:ident, $($arg:expr),*) => {
        match $self.get_mut() {
            Stream::Tcp(io) => Pin::new(io).$method($($arg),*),
            Stream::Accepted(io) => Pin::new(&mut io.inner).$method($($arg),*),
            Stream::Dialled(io) => Pin::new(io.as_mut()).$method($($arg),*),
            Stream::Told(io) => Pin::new(io.as_mut()).$method($($arg),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write, cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write_vectored, cx, bufs)
    }
}
