//! An opaque connection on which the peer's proxy says first whether it takes it. What this side sends does not wait for
//! that: only the peer's own bytes come after it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use mesh_core::reason::Reason;
use tokio::io::{AsyncRead, ReadBuf};

use super::{Dialled, writes_through};

/// The byte that says that the connection is taken. Any other is the length of a reason's code, which follows.
pub(crate) const TAKEN: u8 = 0;

/// Why reading fails on a connection that the peer refused.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the peer's proxy refused the connection: {}", .0.code())]
struct Refused(Reason);

/// The peer's reason, where that is what an error says.
pub(crate) fn refusal(error: &io::Error) -> Option<Reason> {
    error.get_ref().and_then(|inner| inner.downcast_ref()).map(|Refused(reason)| *reason)
}

/// What a proxy that refuses says.
pub(crate) fn refused(reason: Reason) -> Vec<u8> {
    let code = reason.code().as_bytes();
    // Codes are short.
    let length = u8::try_from(code.len()).unwrap_or(u8::MAX);
    [&[length], code.get(..length.into()).unwrap_or_default()].concat()
}

/// The connection.
#[derive(Debug)]
pub(crate) struct Told {
    inner: Dialled,
    word: Word,
}

/// What the peer has said.
#[derive(Debug)]
enum Word {
    /// Nothing.
    Awaited,
    /// Part of a code, which has this length.
    Begun(u8, Vec<u8>),
    /// That it takes the connection.
    Taken,
    /// That it does not.
    Refused(Reason),
}

impl Told {
    /// After the handshake.
    pub(crate) fn new(inner: Dialled) -> Self {
        Self { inner, word: Word::Awaited }
    }

    /// The TLS connection.
    pub(crate) fn dialled(&self) -> &Dialled {
        &self.inner
    }

    /// The same, to read of it once the peer has taken it.
    pub(super) fn dialled_mut(&mut self) -> &mut Dialled {
        &mut self.inner
    }

    /// Ready when the peer has taken the connection.
    ///
    /// # Errors
    /// When it has not: see [`refusal`].
    pub(crate) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.word = match &mut self.word {
                Word::Taken => return Poll::Ready(Ok(())),
                Word::Refused(reason) => return Poll::Ready(Err(io::Error::other(Refused(*reason)))),
                Word::Awaited => match ready!(poll_byte(&mut self.inner, cx))? {
                    TAKEN => Word::Taken,
                    length => Word::Begun(length, Vec::new()),
                },
                Word::Begun(length, code) if code.len() < usize::from(*length) => {
                    code.push(ready!(poll_byte(&mut self.inner, cx))?);
                    continue;
                }
                Word::Begun(_, code) => {
                    // A newer peer may have reasons that are not known here.
                    let known = std::str::from_utf8(code).ok().and_then(Reason::from_code);
                    Word::Refused(known.unwrap_or(Reason::UpstreamReset))
                }
            };
        }
    }
}

/// The next byte. TLS has decrypted it together with its neighbours.
fn poll_byte(inner: &mut Dialled, cx: &mut Context<'_>) -> Poll<io::Result<u8>> {
    let mut byte = [0; 1];
    let mut buf = ReadBuf::new(&mut byte);
    ready!(Pin::new(inner).poll_read(cx, &mut buf))?;
    // Without a word it is gone.
    Poll::Ready(buf.filled().first().copied().ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
}

impl AsyncRead for Told {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_taken(cx))?;
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

writes_through!(Told);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_can_be_said() {
        for reason in Reason::ALL {
            let said = refused(*reason);
            assert_eq!(usize::from(said[0]) + 1, said.len());
            assert!(said[0] != TAKEN && said[1..] == *reason.code().as_bytes(), "{reason:?}");
        }
    }
}
