//! TCP: bytes in one direction, and connections one after the other.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{Exchange, Span, Target, connect, keep_busy, make_all};
use crate::gate;

/// First byte of a connection on which the server sends.
pub(crate) const DOWN: u8 = b'D';
/// First byte of a connection on which the server counts what the client sends.
pub(crate) const UP: u8 = b'U';
/// First byte of a connection on which the server sends back what it gets.
pub(crate) const ECHO: u8 = b'E';
/// Bytes that are written and read at once.
pub(crate) const CHUNK: usize = 64 * 1024;
/// Bytes to and fro on a short connection.
const ECHOED: usize = 64;
/// How long the server may take to tell what it counted.
const PATIENCE: Duration = Duration::from_secs(10);

/// Lets the server send, and reports.
pub(crate) async fn run_down(target: &Target) -> Result<()> {
    let connections = make_all(target, async || greeted(target, DOWN).await).await?;
    gate::wait_for_start()?;
    let span = Span::begin(target);
    let readers = connections.into_iter().map(|mut stream| async move {
        let (mut buffer, mut total) = (vec![0; CHUNK], 0);
        while Instant::now() < span.end {
            let read = stream.read(&mut buffer).await?;
            ensure!(read > 0, "the server stopped");
            total += read as u64;
        }
        Ok((stream, total))
    });
    let (kept, total) = sum(readers.collect()).await?;
    gate::report(&moved(total, span))?;
    drop(kept);
    Ok(())
}

/// Sends to the server, and reports what it counted.
pub(crate) async fn run_up(target: &Target) -> Result<()> {
    let connections = make_all(target, async || greeted(target, UP).await).await?;
    gate::wait_for_start()?;
    let span = Span::begin(target);
    let writers = connections.into_iter().map(|mut stream| async move {
        let chunk = vec![b'x'; CHUNK];
        while Instant::now() < span.end {
            stream.write_all(&chunk).await?;
        }
        stream.shutdown().await?;
        let total = tokio::time::timeout(PATIENCE, stream.read_u64()).await;
        let total = total.context("the server did not tell in time")?.context("the server told nothing")?;
        Ok((stream, total))
    });
    let (kept, total) = sum(writers.collect()).await?;
    gate::report(&moved(total, span))?;
    drop(kept);
    Ok(())
}

/// Opens connections, each with one exchange, and reports.
pub(crate) async fn run_connect(target: &Target) -> Result<()> {
    echo(target).await?;
    keep_busy(target, std::iter::repeat_n(Short(target.clone()), target.connections)).await
}

/// One that opens a connection for each exchange.
#[derive(Clone)]
struct Short(Target);

impl Exchange for Short {
    async fn exchange(&mut self) -> Result<()> {
        echo(&self.0).await
    }

    async fn renewed(&self) -> Result<Self> {
        Ok(self.clone())
    }
}

/// A connection that said what it is for.
async fn greeted(target: &Target, purpose: u8) -> Result<TcpStream> {
    let mut stream = connect(target.to).await?;
    stream.write_u8(purpose).await?;
    Ok(stream)
}

/// A whole short connection.
async fn echo(target: &Target) -> Result<()> {
    let mut stream = connect(target.to).await?;
    let mut sent = [b'e'; ECHOED + 1];
    sent[0] = ECHO;
    stream.write_all(&sent).await?;
    let mut received = [0; ECHOED];
    stream.read_exact(&mut received).await?;
    ensure!(received == sent[1..], "other bytes came back");
    Ok(())
}

/// Runs all transfers to their end, and adds up their bytes.
async fn sum(mut transfers: JoinSet<Result<(TcpStream, u64)>>) -> Result<(Vec<TcpStream>, u64)> {
    let (mut kept, mut total) = (Vec::new(), 0);
    while let Some(done) = transfers.join_next().await {
        let (stream, bytes) = done.context("a transfer died")??;
        kept.push(stream);
        total += bytes;
    }
    Ok((kept, total))
}

fn moved(bytes: u64, span: Span) -> Value {
    json!({"bytes": bytes, "seconds": span.start.elapsed().as_secs_f64(), "failed": 0})
}
