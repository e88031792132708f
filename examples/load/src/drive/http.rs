//! A closed loop of HTTP/1.1: each connection sends its next request when the last was answered.

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Span, Target, connect, make_all};
use crate::gate;
use crate::http1::{MAX_HEAD, head_length, request, status_and_length};
use crate::outcome::Outcome;

/// Bytes that are read at once of a body.
const CHUNK: usize = 64 * 1024;

struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

/// Runs the loop and reports.
pub(crate) async fn run(target: &Target, bytes: usize) -> Result<()> {
    let request: &'static str = Box::leak(request(&target.host, bytes).into_boxed_str());
    let connections = make_all(target, async || {
        let mut connection =
            Connection { stream: connect(target.to).await?, buffer: BytesMut::with_capacity(CHUNK) };
        connection.exchange(request, bytes).await?;
        Ok(connection)
    });
    let connections = connections.await?;
    gate::wait_for_start()?;
    let span = Span::begin(target);
    let mut clients: JoinSet<_> = connections
        .into_iter()
        .map(|mut connection| async move {
            let mut outcome = Outcome::default();
            while Instant::now() < span.end {
                let start = Instant::now();
                match connection.exchange(request, bytes).await {
                    Ok(()) => outcome.passed(start.elapsed()),
                    Err(_) => {
                        outcome.failed();
                        break;
                    }
                }
            }
            (connection, outcome)
        })
        .collect();
    let (mut outcome, mut kept) = (Outcome::default(), Vec::new());
    while let Some(done) = clients.join_next().await {
        let (connection, seen) = done.context("a client died")?;
        kept.push(connection);
        outcome.add(seen);
    }
    gate::report(&outcome.into_json(span.start.elapsed()))
}

impl Connection {
    /// One request and its whole answer.
    async fn exchange(&mut self, request: &str, bytes: usize) -> Result<()> {
        self.stream.write_all(request.as_bytes()).await?;
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

    async fn read(&mut self) -> Result<()> {
        self.buffer.reserve(CHUNK);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("closed in the middle of an answer");
        }
        Ok(())
    }
}
