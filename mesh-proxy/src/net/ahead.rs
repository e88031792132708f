//! A connection under TLS, read in larger pieces than the TLS library asks for: that is a system call for every record,
//! or for several, instead of one for every 4 KiB.

use std::{
    io, mem,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, ReadBuf},
    net::TcpStream,
};

use super::{
    Prefixed, pieces,
    spare::{self, Size},
    writes_through,
};

/// A connection, and what was read of it but not asked for yet.
#[derive(Debug)]
pub(crate) struct Ahead {
    inner: Prefixed<TcpStream>,
    /// Not there while nothing is in it.
    buffer: Vec<u8>,
    start: usize,
    /// The last read filled a smaller buffer.
    bulk: bool,
}

impl Ahead {
    /// Reads ahead of whoever uses `inner`.
    pub(crate) fn new(inner: Prefixed) -> Self {
        Self { inner, buffer: Vec::new(), start: 0, bulk: false }
    }

    /// Reads into a buffer that nothing is in.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let size = if self.bulk { Size::Large } else { Size::Record };
        self.buffer = spare::take(size);
        let outcome = pin!(self.inner.read_buf(&mut self.buffer)).poll(cx);
        match outcome {
            Poll::Ready(Ok(count)) if count > 0 => self.bulk = count >= Size::Record.bytes(),
            _ => spare::put(mem::take(&mut self.buffer)),
        }
        outcome
    }
}

impl AsyncRead for Ahead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() && ready!(self.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        let this = self.get_mut();
        let rest = this.buffer.get(this.start..).unwrap_or_default();
        let count = rest.len().min(buf.remaining());
        pieces::append(rest.get(..count).unwrap_or_default(), |piece| buf.put_slice(piece));
        this.start += count;
        if this.start == this.buffer.len() {
            this.start = 0;
            spare::put(mem::take(&mut this.buffer));
        }
        Poll::Ready(Ok(()))
    }
}

writes_through!(Ahead);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn all_bytes_come_in_their_order_whatever_is_asked_for() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i / 7) as u8).collect();
        let sending = async {
            let mut peer = TcpStream::connect(address).await.unwrap();
            peer.write_all(&sent[10..]).await.unwrap();
        };
        let reading = async {
            let (accepted, _) = listener.accept().await.unwrap();
            let mut ahead = Ahead::new(Prefixed::new(accepted, Bytes::copy_from_slice(&sent[..10])));
            let mut all = Vec::new();
            for asked in [5, 4096, 1, 17_000, 100_000].into_iter().cycle() {
                let mut piece = vec![0; asked];
                let count = ahead.read(&mut piece).await.unwrap();
                if count == 0 {
                    break;
                }
                all.extend_from_slice(&piece[..count]);
            }
            assert_eq!(ahead.buffer.capacity(), 0, "nothing is held when nothing is left");
            all
        };
        let ((), all) = tokio::join!(sending, reading);
        assert!(all == sent, "{} of {} bytes", all.len(), sent.len());
    }
}
