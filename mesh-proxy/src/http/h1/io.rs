//! A connection, what was read ahead of its use, and what waits to be written.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    mem,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};

use crate::net::{
    Prefixed, Stream,
    spare::{self, Size},
};

/// How much one read takes at first, in bytes.
const READ: usize = 8 * 1024;
/// How much one read takes when the ones before were full, in bytes.
const LARGE_READ: usize = 64 * 1024;
/// How much is read at most of what nobody wants, in bytes.
const PARTING: usize = 256 * 1024;
/// Chunks up to this size are copied behind what is written before them, in bytes: that costs less than a piece more.
const SMALL: usize = 2 * 1024;

/// A connection with its buffers. Both are there only while they are used: most connections are idle.
pub(crate) struct Io {
    stream: Stream,
    /// What came and is not used yet.
    pub read: BytesMut,
    next_read: usize,
    front: Vec<u8>,
    /// How much of `front` is written.
    written: usize,
    chunk: Bytes,
    tail: &'static [u8],
}

impl Io {
    /// A connection of which nothing was read.
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            next_read: READ,
            front: Vec::new(),
            written: 0,
            chunk: Bytes::new(),
            tail: &[],
        }
    }

    /// The bare connection, with what was read of it but not used.
    pub(crate) fn into_stream(self) -> Prefixed<Stream> {
        Prefixed::new(self.stream, self.read.freeze())
    }

    /// True when the peer has neither ended the connection nor said anything without being asked.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        self.read.is_empty()
            && Pin::new(&mut self.stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Reads some more bytes and tells how many; 0: there are no more.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() == 0 {
            self.read = reads::take();
        }
        if self.read.capacity() - self.read.len() < self.next_read {
            self.read.reserve(self.next_read);
        }
        let outcome = pin!(self.stream.read_buf(&mut self.read)).poll(cx);
        match &outcome {
            Poll::Ready(Ok(count)) if *count >= self.next_read => {
                self.next_read = (2 * self.next_read).min(LARGE_READ);
            }
            Poll::Ready(_) => {}
            Poll::Pending => {
                self.next_read = READ;
                self.free();
            }
        }
        outcome
    }

    /// Where heads and the like are written before they are sent.
    pub(crate) fn front(&mut self) -> &mut Vec<u8> {
        if self.front.capacity() == 0 {
            self.front = spare::take(Size::Small);
        }
        &mut self.front
    }

    /// True when nothing waits to be written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.front.is_empty() && self.takes_chunks()
    }

    /// True when another chunk can be queued.
    pub(crate) fn takes_chunks(&self) -> bool {
        self.chunk.is_empty() && self.tail.is_empty()
    }

    /// Queues a chunk, and `tail` behind it. Only when it [takes chunks](Self::takes_chunks).
    pub(crate) fn push(&mut self, chunk: Bytes, tail: &'static [u8]) {
        if chunk.len() <= SMALL {
            let front = self.front();
            front.extend_from_slice(&chunk);
            front.extend_from_slice(tail);
        } else {
            (self.chunk, self.tail) = (chunk, tail);
        }
    }

    /// Writes all that waits.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let no_chunk = self.takes_chunks();
            let front = self.front.get(self.written..).unwrap_or_default();
            let stream = Pin::new(&mut self.stream);
            let outcome = match (front.is_empty(), no_chunk) {
                (true, true) => break,
                (false, true) => stream.poll_write(cx, front),
                (_, false) => {
                    let pieces = [front, &self.chunk, self.tail].map(IoSlice::new);
                    stream.poll_write_vectored(cx, &pieces)
                }
            };
            match ready!(outcome)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.advance(count),
            }
        }
        if self.written > 0 {
            self.written = 0;
            spare::put(mem::take(&mut self.front));
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Writes what waits, and says that this was all; with `unread`, goes on to read for what the peer still says.
    pub(crate) async fn end(&mut self, unread: bool) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await?;
        self.stream.shutdown().await?;
        let mut left = if unread { PARTING } else { 0 };
        while left > 0 {
            self.read.clear();
            match poll_fn(|cx| self.poll_fill(cx)).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        Ok(())
    }

    fn advance(&mut self, mut count: usize) {
        let front = count.min(self.front.len() - self.written);
        self.written += front;
        count -= front;
        let chunk = count.min(self.chunk.len());
        if chunk == self.chunk.len() {
            // Frees it.
            self.chunk = Bytes::new();
        } else {
            self.chunk.advance(chunk);
        }
        self.tail = self.tail.get(count - chunk..).unwrap_or_default();
    }

    /// Gives the reading buffer to others when nothing is in it.
    fn free(&mut self) {
        if self.read.is_empty() && self.read.capacity() > 0 {
            reads::put(mem::take(&mut self.read));
        }
    }

    /// Gives up what is only of use to a busy connection.
    pub(crate) fn rest(&mut self) {
        self.free();
    }
}

/// Buffers to read into that no connection uses at the moment, kept by each thread. What is cut off them is not copied.
mod reads {
    use std::cell::RefCell;

    use bytes::BytesMut;

    use super::READ;

    /// Most that are kept.
    const MOST: usize = 16;

    thread_local! {
        static READS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    }

    /// One of them, or a new one without room.
    pub(super) fn take() -> BytesMut {
        READS.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Keeps one for others, unless it has grown or there are enough.
    pub(super) fn put(buffer: BytesMut) {
        READS.with_borrow_mut(|spare| {
            if spare.len() < MOST && buffer.capacity() <= READ {
                spare.push(buffer);
            }
        });
    }
}
