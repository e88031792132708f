//! Copying bytes in both directions until both have ended.
//!
//! Each direction ends on its own: when one side has sent all, the other side's write half is shut down and the
//! opposite direction goes on. Most connections are idle, and hold no buffer then; buffers begin small and grow for bulk.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io, mem,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Sleep, sleep},
};

use super::{
    Lend,
    spare::{self, Size},
};

/// How long nothing may come once one direction has ended: the side that has said all may be gone unnoticed.
const HALF_CLOSED_IDLE: Duration = Duration::from_secs(600);

/// Bytes carried so far; readable while the copy runs.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// From the first stream to the second.
    pub forth: Cell<u64>,
    /// From the second stream to the first.
    pub back: Cell<u64>,
}

impl Counts {
    /// Both ways.
    pub(crate) fn carried(&self) -> u64 {
        self.forth.get() + self.back.get()
    }
}

/// Copies between `a` and `b` until both directions have ended.
///
/// # Errors
/// The first error of either side; the other direction is cut then. `TimedOut`: one direction has ended, and nothing
/// came in the other for ten minutes.
pub(crate) async fn bidirectional<A, B>(a: &mut A, b: &mut B, counts: &Counts) -> io::Result<()>
where
    A: Lend + AsyncWrite,
    B: Lend + AsyncWrite,
{
    copy(a, b, counts, HALF_CLOSED_IDLE).await
}

/// As [`bidirectional`], when `b` has said something already.
///
/// # Errors
/// As [`bidirectional`].
pub(crate) async fn bidirectional_after<A, B>(
    a: &mut A,
    b: &mut B,
    said: Bytes,
    counts: &Counts,
) -> io::Result<()>
where
    A: Lend + AsyncWrite,
    B: Lend + AsyncWrite,
{
    if !said.is_empty() {
        a.write_all(&said).await?;
        counts.back.set(said.len() as u64);
    }
    bidirectional(a, b, counts).await
}

async fn copy<A, B>(a: &mut A, b: &mut B, counts: &Counts, half_closed_idle: Duration) -> io::Result<()>
where
    A: Lend + AsyncWrite,
    B: Lend + AsyncWrite,
{
    let (mut forth, mut back) = (Half::default(), Half::default());
    let mut idle = Idle { limit: half_closed_idle, timer: None, seen: 0 };
    poll_fn(|cx| {
        let one = forth.poll(cx, a, b, &counts.forth)?;
        let other = back.poll(cx, b, a, &counts.back)?;
        match (one.is_ready(), other.is_ready()) {
            (true, true) => Poll::Ready(Ok(())),
            (false, false) => Poll::Pending,
            _ => idle.poll(cx, counts),
        }
    })
    .await
}

/// Limits how long a half-closed connection stays without bytes.
struct Idle {
    limit: Duration,
    /// Begins when one direction has ended, which most connections never see.
    timer: Option<Pin<Box<Sleep>>>,
    /// Bytes when it began.
    seen: u64,
}

impl Idle {
    fn poll(&mut self, cx: &mut Context<'_>, counts: &Counts) -> Poll<io::Result<()>> {
        loop {
            let carried = counts.carried();
            let timer = self.timer.get_or_insert_with(|| {
                self.seen = carried;
                Box::pin(sleep(self.limit))
            });
            ready!(timer.as_mut().poll(cx));
            if carried == self.seen {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer = None;
        }
    }
}

/// One direction.
#[derive(Default)]
struct Half {
    /// What was read; without room while nothing is in it.
    buffer: Vec<u8>,
    start: usize,
    unflushed: bool,
    /// What comes fills small buffers.
    large: bool,
    state: State,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Copying,
    Ending,
    Ended,
}

impl Half {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &Cell<u64>,
    ) -> Poll<io::Result<()>>
    where
        R: Lend,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                    self.buffer = Vec::new();
                }
                State::Copying => {
                    while self.start < self.buffer.len() {
                        let pending = self.buffer.get(self.start..).unwrap_or_default();
                        let written = ready!(poll_some(to, cx, pending, count))?;
                        self.start += written;
                        self.unflushed = true;
                    }
                    let come = match from.poll_lend(cx) {
                        None => self.fill(cx, from)?,
                        Some(Poll::Pending) => Poll::Pending,
                        Some(Poll::Ready(lent)) => {
                            let lent = lent?;
                            if lent.is_empty() {
                                self.state = State::Ending;
                            } else {
                                let written = ready!(poll_some(to, cx, lent, count))?;
                                from.take_lent(written);
                                self.unflushed = true;
                            }
                            Poll::Ready(())
                        }
                    };
                    if come.is_pending() {
                        if self.unflushed {
                            ready!(Pin::new(&mut *to).poll_flush(cx))?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Reads into the empty buffer. Pending: there is nothing to read now.
    fn fill<R: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, from: &mut R) -> io::Result<Poll<()>> {
        let filled = !self.buffer.is_empty() && self.buffer.len() == self.buffer.capacity();
        if !self.large && filled {
            self.large = true;
            spare::put(mem::take(&mut self.buffer));
        }
        if self.buffer.capacity() == 0 {
            self.buffer = spare::take(if self.large { Size::Large } else { Size::Small });
        }
        self.buffer.clear();
        self.start = 0;
        match pin!(from.read_buf(&mut self.buffer)).poll(cx) {
            Poll::Pending => {
                spare::put(mem::take(&mut self.buffer));
                Ok(Poll::Pending)
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(count)) => {
                self.large &= count >= Size::Small.bytes();
                if count == 0 {
                    self.state = State::Ending;
                }
                Ok(Poll::Ready(()))
            }
        }
    }
}

/// Writes some of `bytes`, and counts them.
fn poll_some<W: AsyncWrite + Unpin>(
    to: &mut W,
    cx: &mut Context<'_>,
    bytes: &[u8],
    count: &Cell<u64>,
) -> Poll<io::Result<usize>> {
    let written = ready!(Pin::new(to).poll_write(cx, bytes))?;
    if written == 0 {
        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
    }
    count.set(count.get() + written as u64);
    Poll::Ready(Ok(written))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_answer_comes_after_the_question_has_ended() {
        let (mut client, mut near) = duplex(1000);
        let (mut far, mut server) = duplex(1000);
        let counts = Counts::default();
        let question = vec![7u8; 300_000];
        let client_side = async {
            let (mut read, mut write) = tokio::io::split(&mut client);
            write.write_all(&question).await.unwrap();
            write.shutdown().await.unwrap();
            let mut answer = Vec::new();
            read.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let server_side = async {
            let mut all = Vec::new();
            server.read_to_end(&mut all).await.unwrap();
            server.write_all(b"got it").await.unwrap();
            server.shutdown().await.unwrap();
            all
        };
        let (copied, answer, all) =
            tokio::join!(bidirectional(&mut near, &mut far, &counts), client_side, server_side);
        copied.unwrap();
        assert_eq!((answer.as_slice(), all.len()), (&b"got it"[..], question.len()));
        assert_eq!((counts.forth.get(), counts.back.get()), (300_000, 6));
    }

    #[tokio::test]
    async fn a_vanished_peer_ends_the_copy() {
        let (client, mut near) = duplex(1000);
        let (mut far, server) = duplex(1000);
        let counts = Counts::default();
        drop(client);
        drop(server);
        bidirectional(&mut near, &mut far, &counts).await.unwrap();
    }

    #[tokio::test]
    async fn a_half_closed_connection_is_not_kept_for_ever() {
        let (mut client, mut near) = duplex(1000);
        let (mut far, mut server) = duplex(1000);
        let counts = Counts::default();
        let idle = Duration::from_millis(400);
        client.shutdown().await.unwrap();
        let talk = async {
            // Slow, but alive.
            for _ in 0..3 {
                sleep(idle / 2).await;
                server.write_all(b"still here").await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let began = tokio::time::Instant::now();
        let error = tokio::select! {
            copied = copy(&mut near, &mut far, &counts, idle) => copied.unwrap_err(),
            () = talk => unreachable!(),
        };
        assert_eq!((error.kind(), counts.back.get()), (io::ErrorKind::TimedOut, 30));
        assert!(began.elapsed() > idle * 2, "{:?}", began.elapsed());
    }

    #[test]
    fn an_idle_copy_is_small() {
        assert!(size_of::<Half>() <= 64, "{}", size_of::<Half>());
    }
}
