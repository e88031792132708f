//! What goes: sealed into a buffer of the thread, which is given back when the connection has taken it.

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{AlertDescription, ContentType};
use tokio::io::AsyncWrite;

use super::{
    message::KEY_UPDATE,
    record::{Key, MOST_PLAIN, OVERHEAD, RecordError},
    schedule::Schedule,
};
use crate::net::{
    pieces,
    spare::{self, Size},
};

/// Records that are sealed for one call.
const RECORDS: usize = 4;
/// The level of an alert; what it says ends the connection either way (RFC 8446 section 6).
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// The direction to the peer.
pub(super) struct Outgoing {
    pub(super) key: Key,
    /// After so many records the key is changed.
    pub(super) limit: u64,
    /// Records that the connection has not taken. Without room while there are none.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The peer asked for another key.
    pub(super) asked: bool,
    /// The last word was said.
    closed: bool,
}

impl Outgoing {
    /// `limit`: after so many records the key is changed.
    pub(super) fn new(key: Key, limit: u64) -> Self {
        Self { key, limit, buffer: Vec::new(), start: 0, end: 0, asked: false, closed: false }
    }

    /// Bytes of memory that it holds for what is under way.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Hands on what was sealed.
    pub(super) fn poll_drain<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.start < self.end {
            let pending = self.buffer.get(self.start..self.end).unwrap_or_default();
            let written = ready!(Pin::new(&mut *io).poll_write(cx, pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start += written;
        }
        if self.end > 0 {
            spare::put(mem::take(&mut self.buffer));
            (self.start, self.end) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }

    /// Seals some of `bufs` and hands on what the connection takes: how many bytes were sealed.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        schedule: &mut Schedule,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(io, cx))?;
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.asked || self.key.used() >= self.limit {
            self.seal(ContentType::Handshake, &KEY_UPDATE)?;
            self.key = schedule.next_to_seal()?;
            self.asked = false;
            ready!(self.poll_drain(io, cx))?;
        }
        let mut all = bufs.iter().map(|buf| &**buf).filter(|buf| !buf.is_empty());
        let Some(first) = all.next() else { return Poll::Ready(Ok(0)) };
        let count = if first.len() >= MOST_PLAIN || all.next().is_none() {
            let count = first.len().min(RECORDS * MOST_PLAIN);
            self.seal(ContentType::ApplicationData, first.get(..count).unwrap_or_default())?;
            count
        } else {
            self.seal_together(bufs)?
        };
        // Sealed is sealed; what the connection does not take now goes before whatever is written next.
        let _ = self.poll_drain(io, cx)?;
        Poll::Ready(Ok(count))
    }

    /// Seals several small buffers as one record.
    fn seal_together(&mut self, bufs: &[IoSlice<'_>]) -> Result<usize, RecordError> {
        let total = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(MOST_PLAIN);
        let mut together = spare::take(Size::Medium);
        for buf in bufs {
            let count = buf.len().min(MOST_PLAIN - together.len());
            pieces::append(buf.get(..count).unwrap_or_default(), |piece| together.extend_from_slice(piece));
        }
        let sealed = self.seal(ContentType::ApplicationData, &together);
        spare::put(together);
        sealed.map(|()| total)
    }

    /// Seals `plain` behind what is pending, in as many records as it takes.
    fn seal(&mut self, kind: ContentType, plain: &[u8]) -> Result<(), RecordError> {
        if self.buffer.is_empty() {
            let records = plain.len().div_ceil(MOST_PLAIN).max(1);
            self.buffer = spare::whole(Size::of_records(plain.len() + records * OVERHEAD));
        }
        for part in plain.chunks(MOST_PLAIN) {
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            self.end += self.key.seal(kind, part, room)?;
        }
        Ok(())
    }

    /// Says the last word, behind whatever is pending.
    pub(super) fn poll_close<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
        alert: AlertDescription,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(io, cx))?;
        if !self.closed {
            let level = if alert == AlertDescription::CloseNotify { WARNING } else { FATAL };
            self.seal(ContentType::Alert, &[level, alert.into()])?;
            self.closed = true;
        }
        self.poll_drain(io, cx)
    }
}
