//! Connections that are opened, used once, and then held idle; at the end each is used once more, to see that it stands.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::Target;
use super::tcp::ECHO;
use crate::gate;
use crate::http1::{head_length, request, status_and_length};
use crate::outcome::Outcome;

/// Exchanges at a time: a proxy's pool need not be larger.
const WAVE: usize = 32;
/// How long one connection and its exchange may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of each body, or sent to and fro.
const BYTES: usize = 64;
/// Bytes of the largest answer that is read.
const MAX_ANSWER: usize = 2048;

/// What is said on each connection.
enum Talk {
    /// This request, which asks for [`BYTES`] bytes.
    Http(String),
    /// Bytes that come back.
    Echo,
}

/// Opens the connections from each address of `from` in turn, waits for the start, uses each again, and reports.
pub(crate) async fn run(target: &Target, from: &[IpAddr], opaque: bool) -> Result<()> {
    let talk = if opaque { Talk::Echo } else { Talk::Http(request(&target.host, BYTES)) };
    let opened = stream::iter(0..target.connections)
        .map(|index| {
            // One address has ports for less than 30,000 connections to one place.
            let source = from.get(index % from.len().max(1)).copied();
            in_time(open(target.to, source, &talk))
        })
        .buffer_unordered(WAVE);
    let connections: Vec<TcpStream> = opened.try_collect().await?;
    gate::wait_for_start()?;
    let start = Instant::now();
    let again = stream::iter(connections)
        .map(|mut stream| async {
            let began = Instant::now();
            let answered = in_time(talk.exchange(&mut stream)).await;
            (stream, answered.map(|()| began.elapsed()))
        })
        .buffer_unordered(WAVE);
    let (mut outcome, mut kept) = (Outcome::default(), Vec::with_capacity(target.connections));
    let mut again = std::pin::pin!(again);
    while let Some((stream, answered)) = again.next().await {
        match answered {
            Ok(latency) => outcome.passed(latency),
            Err(_) => outcome.failed(),
        }
        kept.push(stream);
    }
    gate::report(&outcome.into_json(start.elapsed()))
}

async fn in_time<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(PATIENCE, what).await.context("not answered in time")?
}

async fn open(to: SocketAddr, source: Option<IpAddr>, talk: &Talk) -> Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.context("no socket: is the limit of open files too low?")?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0)).with_context(|| format!("cannot connect from {source}"))?;
    }
    let mut stream = socket.connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    if matches!(talk, Talk::Echo) {
        stream.write_u8(ECHO).await?;
    }
    talk.exchange(&mut stream).await?;
    Ok(stream)
}

impl Talk {
    /// One question and its whole answer; no buffer is kept.
    async fn exchange(&self, stream: &mut TcpStream) -> Result<()> {
        match self {
            Self::Http(request) => {
                stream.write_all(request.as_bytes()).await?;
                read_answer(stream).await
            }
            Self::Echo => {
                let (sent, mut received) = ([b'e'; BYTES], [0; BYTES]);
                stream.write_all(&sent).await?;
                stream.read_exact(&mut received).await?;
                ensure!(received == sent, "other bytes came back");
                Ok(())
            }
        }
    }
}

/// Reads a response to its end.
async fn read_answer(stream: &mut TcpStream) -> Result<()> {
    let (mut buffer, mut filled) = ([0; MAX_ANSWER], 0);
    loop {
        let read = stream.read(buffer.get_mut(filled..).unwrap_or_default()).await?;
        ensure!(read > 0, "closed, or an answer that is too long");
        filled += read;
        let seen = buffer.get(..filled).unwrap_or_default();
        let Some(head) = head_length(seen) else { continue };
        match status_and_length(seen.get(..head).unwrap_or_default()) {
            Some((200, BYTES)) if filled == head + BYTES => return Ok(()),
            Some((200, BYTES)) if filled < head + BYTES => {}
            told => bail!("another answer than expected: {told:?}"),
        }
    }
}
