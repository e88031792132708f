//! One type for every kind of connection, so that HTTP and copying are compiled once.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{client, server};

use super::{
    Ahead, pieces,
    tether::{Tether, To},
    told::Told,
};
use crate::tls::{Credentials, RootsHash, Side};

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
    /// TLS, the peer dialled; its chain was verified under these roots.
    Accepted(Box<Prefixed<server::TlsStream<Ahead>>>, RootsHash),
    /// TLS, this side dialled.
    Dialled(Box<Dialled>),
    /// The same, and the peer says first whether it takes the connection.
    Told(Box<Told>),
}

/// TLS to a peer that this side dialled. Others may cut it.
#[derive(Debug)]
pub(crate) struct Dialled {
    inner: client::TlsStream<Ahead>,
    tether: Rc<Tether>,
}

impl Dialled {
    /// After the handshake.
    pub(crate) fn new(inner: client::TlsStream<Ahead>) -> Self {
        Self { inner, tether: Rc::default() }
    }

    /// What cuts it.
    pub(crate) fn tether(&self) -> &Rc<Tether> {
        &self.tether
    }

    /// What the peer authenticated with, leaf first.
    pub(crate) fn chain(&self) -> Option<&[CertificateDer<'static>]> {
        self.inner.get_ref().1.peer_certificates()
    }

    fn reach<T>(
        &mut self,
        cx: &mut Context<'_>,
        to: To,
        act: impl FnOnce(Pin<&mut client::TlsStream<Ahead>>, &mut Context<'_>) -> Poll<io::Result<T>>,
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
            Self::Accepted(io, roots) => {
                Credentials::new(Side::Caller, io.inner.get_ref().1.peer_certificates(), *roots)
            }
            Self::Tcp(_) | Self::Dialled(_) | Self::Told(_) => None,
        }
    }

    /// The TLS connection that this side dialled.
    pub(crate) fn dialled(&self) -> Option<&Dialled> {
        match self {
            Self::Dialled(io) => Some(io),
            Self::Told(io) => Some(io.dialled()),
            Self::Tcp(_) | Self::Accepted(..) => None,
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
        match bufs {
            // TLS has one record to write as a rule, and the kernel takes one piece with less ado.
            [only] => Pin::new(&mut self.inner).poll_write(cx, only),
            _ => Pin::new(&mut self.inner).poll_write_vectored(cx, bufs),
        }
    }
}

/// Calls the same method on whichever stream it is.
macro_rules! delegate {
    ($self:ident, $method:ident, $($arg:expr),*) => {
        match $self.get_mut() {
            Stream::Tcp(io) => Pin::new(io).$method($($arg),*),
            Stream::Accepted(io, _) => Pin::new(io.as_mut()).$method($($arg),*),
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
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
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
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Accepted(io, _) => {
                pieces::write(bufs, |bufs| Pin::new(io.as_mut()).poll_write_vectored(cx, bufs))
            }
            Self::Dialled(io) => {
                pieces::write(bufs, |bufs| Pin::new(io.as_mut()).poll_write_vectored(cx, bufs))
            }
            Self::Told(io) => pieces::write(bufs, |bufs| Pin::new(io.as_mut()).poll_write_vectored(cx, bufs)),
        }
    }
}
