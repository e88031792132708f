//! A connection under HTTP/2, shared by the library that speaks it and the task that drives it.
//!
//! *Invariant:* what the library writes is gathered and goes out when the driver flushes, after the library has nothing
//! more to say: the library flushes after each larger frame, which would be a TLS record and a system call each.
//!
//! What passes is watched: what the library refuses by itself is counted, and a peer that floods the connection with
//! frames that bring nothing is cut off.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Instant,
};

use mesh_core::reason::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Ended;
use crate::{
    detect::PREFACE,
    http::frames::{Budget, Scanner, complaint, refusal},
    net::{
        Stream, pieces,
        spare::{self, Size},
    },
    telemetry::Refusals,
};

/// What is gathered before it is written, in bytes.
const GATHER: usize = Size::Medium.bytes();
/// Pieces of this size are written from where they are once something has to be written, in bytes.
const LARGE: usize = 4 * 1024;

/// A handle of a connection; clones are the same connection.
#[derive(Clone)]
pub(crate) struct Io(Rc<Shared>);

struct Shared {
    wire: RefCell<Wire>,
    /// Something came since this was last asked.
    heard: Cell<bool>,
    /// There is nothing to read, and who waits for more is known.
    dry: Cell<bool>,
}

struct Wire {
    stream: Stream,
    /// What waits to be written, and how much of it is.
    out: Vec<u8>,
    written: usize,
    /// Something was written since the stream was last flushed.
    dirty: bool,
    from: Scanner,
    to: Scanner,
    budget: Budget,
    /// The newest stream whose head was taken to be sent; None: the peer called.
    opened: Option<Rc<Cell<u32>>>,
    /// Where what is refused is counted.
    refusals: Refusals,
}

impl Io {
    /// A connection on which a peer calls; its preface was not read yet.
    pub(super) fn accepted(stream: Stream, refusals: Refusals) -> Self {
        Self::new(stream, None, refusals)
    }

    /// A connection on which this side calls. `opened` is from then on the newest stream of whose head the peer may have
    /// got something.
    pub(crate) fn dialled(stream: Stream, refusals: Refusals, opened: &Rc<Cell<u32>>) -> Self {
        Self::new(stream, Some(Rc::clone(opened)), refusals)
    }

    fn new(stream: Stream, opened: Option<Rc<Cell<u32>>>, refusals: Refusals) -> Self {
        let (preface, none) = (Scanner::after(PREFACE.len() as u32), Scanner::default());
        let (from, to) = if opened.is_some() { (none, preface) } else { (preface, none) };
        let budget = Budget::new(Instant::now());
        let (out, written, dirty) = (Vec::new(), 0, false);
        let wire = Wire { stream, out, written, dirty, from, to, budget, opened, refusals };
        Self(Rc::new(Shared { wire: RefCell::new(wire), heard: Cell::new(false), dry: Cell::new(false) }))
    }

    /// Whether something came since this was last asked.
    pub(super) fn heard(&self) -> bool {
        self.0.heard.replace(false)
    }

    /// Begins a turn of the driver, which polls the library as often as it wants: what is not there to be read at first is
    /// not looked for again.
    pub(crate) fn begin_turn(&self) {
        self.0.dry.set(false);
    }

    /// Writes what was gathered, after the library was polled and waits for more. Ready only when that fails.
    pub(crate) fn poll_flush_behind<T>(&self, cx: &mut Context<'_>) -> Poll<Result<T, Ended>> {
        match self.0.wire.borrow_mut().poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Wire {
    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut spent, budget) = (false, &mut self.budget);
        self.from.scan(bytes, |frame| spent |= !budget.came(frame, Instant::now));
        if !spent {
            return Ok(());
        }
        self.refusals.count(Reason::LimitExceeded);
        Err(io::Error::other("too many frames that bring nothing"))
    }

    /// Notes what is sent.
    fn goes(&mut self, bytes: &[u8]) {
        let Self { to, budget, opened, refusals, .. } = self;
        to.scan(bytes, |frame| {
            budget.sent(frame);
            let refused = match opened {
                Some(opened) => {
                    opened.set(frame.head_of().unwrap_or_default().max(opened.get()));
                    complaint(frame)
                }
                None => refusal(frame),
            };
            if let Some(reason) = refused {
                refusals.count(reason);
            }
        });
    }

    /// Takes as much of `bufs` as it can and tells how much.
    fn poll_take(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        loop {
            if self.out.len() + length <= GATHER {
                if self.out.capacity() == 0 {
                    self.out = spare::take(Size::Medium);
                }
                for buf in bufs {
                    pieces::append(buf, |piece| self.out.extend_from_slice(piece));
                    self.goes(buf);
                }
                return Poll::Ready(Ok(length));
            }
            if length >= LARGE {
                return self.poll_write_through(cx, bufs);
            }
            ready!(self.poll_write_out(cx))?;
        }
    }

    /// Writes what waits and `bufs` in one go.
    fn poll_write_through(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let waiting = self.out.get(self.written..).unwrap_or_default();
            let before = waiting.len();
            let mut all = [IoSlice::new(&[]); 4];
            let pieces = [IoSlice::new(waiting)].into_iter().chain(bufs.iter().copied());
            let pieces = pieces.filter(|piece| !piece.is_empty());
            let used = all.iter_mut().zip(pieces).map(|(place, piece)| *place = piece).count();
            let pieces = all.get(..used).unwrap_or_default();
            self.dirty = true;
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, pieces));
            if let (Err(_), Some(opened)) = (&written, &self.opened) {
                // Nobody knows how much of it was.
                opened.set(u32::MAX);
            }
            let count = written?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count.min(before));
            let mut left = count.saturating_sub(before);
            if left == 0 {
                continue;
            }
            let taken = left;
            for buf in bufs {
                let part = buf.get(..buf.len().min(left)).unwrap_or_default();
                self.goes(part);
                left -= part.len();
            }
            return Poll::Ready(Ok(taken));
        }
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            self.dirty = true;
            let waiting = self.out.get(self.written..).unwrap_or_default();
            match ready!(Pin::new(&mut self.stream).poll_write(cx, waiting))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, count: usize) {
        self.written += count;
        if self.written >= self.out.len() {
            self.written = 0;
            spare::put(std::mem::take(&mut self.out));
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write_out(cx))?;
        if self.dirty {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.0.dry.get() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let mut wire = self.0.wire.borrow_mut();
        let Poll::Ready(outcome) = Pin::new(&mut wire.stream).poll_read(cx, buf) else {
            self.0.dry.set(true);
            return Poll::Pending;
        };
        outcome?;
        self.0.heard.set(true);
        Poll::Ready(wire.came(buf.filled().get(before..).unwrap_or_default()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.wire.borrow_mut().poll_take(cx, &[IoSlice::new(buf)])
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The driver does.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.wire.borrow_mut();
        ready!(wire.poll_flush(cx))?;
        Pin::new(&mut wire.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // The library has two pieces at most: what it encoded, and the rest of a frame.
        let bufs = bufs.get(..bufs.len().min(3)).unwrap_or_default();
        self.0.wire.borrow_mut().poll_take(cx, bufs)
    }
}
