//! A closed loop of HTTP/1.1: each connection sends its next request when the last was answered.

use anyhow::{Result, bail, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Exchange, Target, connect, keep_busy, make_all};
use crate::http1::{MAX_HEAD, head_length, request, status_and_length};

/// Bytes that are read at once of a body.
const CHUNK: usize = 64 * 1024;

struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    target: Target,
    request: &'static str,
    /// Bytes of each body.
    bytes: usize,
}

/// Runs the loop and reports.
pub(crate) async fn run(target: &Target, bytes: usize) -> Result<()> {
    let request: &'static str = Box::leak(request(&target.host, bytes).into_boxed_str());
    let connections = make_all(target, async || {
        let mut connection = Connection::open(target.clone(), request, bytes).await?;
        connection.exchange().await?;
        Ok(connection)
    });
    keep_busy(target, connections.await?).await
}

impl Connection {
    async fn open(target: Target, request: &'static str, bytes: usize) -> Result<Self> {
        let stream = connect(target.to).await?;
        Ok(Self { stream, buffer: BytesMut::with_capacity(CHUNK), target, request, bytes })
    }

    async fn read(&mut self) -> Result<()> {
        self.buffer.reserve(CHUNK);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("closed in the middle of an answer");
        }
        Ok(())
    }
}

impl Exchange for Connection {
    async fn renewed(&self) -> Result<Self> {
        Self::open(self.target.clone(), self.request, self.bytes).await
    }

    /// One request and its whole answer.
    async fn exchange(&mut self) -> Result<()> {
        let bytes = self.bytes;
        self.stream.write_all(self.request.as_bytes()).await?;
        let head = loop {
            if let Some(head) = head_length(&self.buffer) {
                break head;
            }
            ensure!(self.buffer.len() <= MAX_HEAD + CHUNK, "an answer's head is too large");
            self.read().await?;
        };
        let told = status_and_length(self.buffer.get(..head).unwrap_or_default());
        ensure!(told == Some((200, bytes)), "an answer with a wrong head");
        self.buffer.advance(head);
        let mut left = bytes;
        loop {
            let here = left.min(self.buffer.len());
            self.buffer.advance(here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.buffer.clear();
            self.read().await?;
        }
    }
}
