//! A TLS 1.3 connection whose handshake rustls does and whose records are sealed and opened here, where they lie: the
//! library copies what is received three times and keeps a buffer of 4 KiB for every connection, busy or not.
//! Why this is ours: docs/adr/0011-records-of-tls.md.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handshake;
mod incoming;
mod message;
mod outgoing;
mod record;
mod schedule;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{AlertDescription, ExtractedSecrets};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

pub(crate) use self::handshake::{accept, connect};
pub(crate) use self::record::{MOST as MOST_RECORD, MOST_PLAIN, OVERHEAD};
use self::{incoming::Incoming, outgoing::Outgoing, record::Key, schedule::Schedule};
use crate::{net::pieces, tls::Chain};

/// What the handshake found out.
#[derive(Debug)]
pub(crate) struct Established {
    /// The protocol inside.
    pub alpn: Option<Vec<u8>>,
    /// What the peer authenticated with, leaf first.
    pub chain: Option<Chain>,
}

/// The connection, after its handshake.
pub(crate) struct Session<S> {
    io: S,
    incoming: Incoming,
    outgoing: Outgoing,
    schedule: Schedule,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// `early` was read behind the handshake; `limit`: after so many records a key is changed.
    fn new(
        io: S,
        secrets: ExtractedSecrets,
        schedule: Schedule,
        limit: u64,
        early: Vec<u8>,
    ) -> io::Result<Self> {
        let incoming = Incoming::new(Key::new(secrets.rx)?, early);
        let outgoing = Outgoing::new(Key::new(secrets.tx)?, limit);
        Ok(Self { io, incoming, outgoing, schedule })
    }

    /// Opens what was read as far as there is something to take. False: more has to be read.
    fn advance(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let advanced = self.incoming.advance(&mut self.schedule, &mut self.outgoing.asked);
        if let Err(error) = advanced
            && let Some(alert) = error.alert()
        {
            // As far as the connection takes it.
            let _ = self.outgoing.poll_close(&mut self.io, cx, alert);
        }
        Ok(advanced?)
    }

    /// What the peer sent, opened where it lies; nothing: that was all. [`AsyncBufRead::consume`] takes it.
    fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        while !self.advance(cx)? {
            ready!(self.incoming.poll_fill(&mut self.io, cx))?;
        }
        Poll::Ready(Ok(self.plain()))
    }
}

impl<S> Session<S> {
    /// What was opened and not taken yet.
    pub(crate) fn plain(&self) -> &[u8] {
        self.incoming.plain()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncBufRead for Session<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.get_mut().poll_plain(cx)
    }

    fn consume(mut self: Pin<&mut Self>, count: usize) {
        self.incoming.consume(count);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Session<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut plain = ready!(this.poll_plain(cx))?;
        loop {
            let count = plain.len().min(buf.remaining());
            pieces::append(plain.get(..count).unwrap_or_default(), |piece| buf.put_slice(piece));
            this.incoming.consume(count);
            // What cannot be opened is said at the next call.
            if count == 0 || buf.remaining() == 0 || !this.advance(cx).unwrap_or(false) {
                return Poll::Ready(Ok(()));
            }
            plain = this.incoming.plain();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Session<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.outgoing.poll_write(&mut this.io, cx, bufs, &mut this.schedule)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.outgoing.poll_drain(&mut this.io, cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.outgoing.poll_close(&mut this.io, cx, AlertDescription::CloseNotify))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// Without keys.
impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}
