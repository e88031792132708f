//! The two ends of the bench: a server with a fixed answer, and a closed loop of clients.
//!
//! One thread a connection, blocking: simple, and the same for everything that is compared.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

/// Bytes of each response's body.
const BODY: usize = 1024;
/// Bytes of the largest head that is read.
const MAX_HEAD: usize = 16 * 1024;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that answers every request with 1 KiB.
pub(crate) struct Upstream {
    address: SocketAddr,
}

impl Upstream {
    /// Starts serving, until the process ends.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.9.0.10:0").context("cannot listen for the bench's upstream")?;
        let address = listener.local_addr().context("cannot tell the upstream's address")?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that breaks is the client's business: it counts the failure.
                std::thread::spawn(move || serve(stream));
            }
        });
        Ok(Self { address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Answers requests without a body until the client closes.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut response =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n");
    response.extend(std::iter::repeat_n('x', BODY));
    let mut buffer = Vec::with_capacity(MAX_HEAD);
    while let Some(head) = read_head(&mut stream, &mut buffer)? {
        stream.write_all(response.as_bytes())?;
        buffer.drain(..head);
    }
    Ok(())
}

/// Reads until `buffer` begins with a whole head and returns the head's length; `None` at a clean end.
fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    let mut searched = 0;
    loop {
        if let Some(at) = find(&buffer[searched..], b"\r\n\r\n") {
            return Ok(Some(searched + at + 4));
        }
        searched = buffer.len().saturating_sub(3);
        if buffer.len() > MAX_HEAD {
            return Err(ErrorKind::InvalidData.into());
        }
        if read_some(stream, buffer)? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
    }
}

fn read_some(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut chunk = [0; 4096];
    let read = stream.read(&mut chunk)?;
    buffer.extend_from_slice(&chunk[..read]);
    Ok(read)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// What the clients saw.
pub(crate) struct Load {
    /// Of each request that got its 200 and its whole body, in ascending order.
    latencies: Vec<Duration>,
    /// Requests that got anything else.
    pub(crate) failed: usize,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

impl Load {
    /// Answered requests.
    pub(crate) fn requests(&self) -> usize {
        self.latencies.len()
    }

    /// The latency that a share of `quantile` (0 to 1) of the requests did not exceed.
    pub(crate) fn latency(&self, quantile: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * quantile).round() as usize;
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// Keeps `connections` busy for `time`, each with one request after the other.
pub(crate) fn run(entry: SocketAddr, host: &str, connections: usize, time: Duration) -> Result<Load> {
    let start = Instant::now();
    let deadline = start + time;
    let results: Vec<Result<(Vec<Duration>, usize)>> = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..connections).map(|_| scope.spawn(|| one_client(entry, host, deadline))).collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| Err(anyhow!("a client died"))))
            .collect()
    });
    let mut load = Load { latencies: Vec::new(), failed: 0, took: start.elapsed() };
    for result in results {
        let (latencies, failed) = result?;
        load.latencies.extend(latencies);
        load.failed += failed;
    }
    load.latencies.sort_unstable();
    Ok(load)
}

/// One connection's latencies and failures; gives up its connection at the first failure.
fn one_client(entry: SocketAddr, host: &str, deadline: Instant) -> Result<(Vec<Duration>, usize)> {
    let mut stream = connect(entry)?;
    let mut buffer = Vec::with_capacity(MAX_HEAD);
    let mut latencies = Vec::new();
    while Instant::now() < deadline {
        let start = Instant::now();
        match exchange(&mut stream, &mut buffer, host, "GET") {
            Ok((200, BODY)) => latencies.push(start.elapsed()),
            _ => return Ok((latencies, 1)),
        }
    }
    Ok((latencies, 0))
}

/// Status of one request on a connection of its own.
pub(crate) fn status(entry: SocketAddr, host: &str, method: &str) -> Result<u16> {
    let mut stream = connect(entry)?;
    let (status, _) = exchange(&mut stream, &mut Vec::new(), host, method)?;
    Ok(status)
}

/// Status of `GET path` at `address`.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<u16> {
    let mut stream = connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut buffer = Vec::new();
    let head = read_head(&mut stream, &mut buffer)?.context("closed without an answer")?;
    parse_status(&String::from_utf8_lossy(&buffer[..head]))
}

fn connect(entry: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(entry).with_context(|| format!("cannot connect to {entry}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends one request and reads its answer: status and length of the body.
fn exchange(stream: &mut TcpStream, buffer: &mut Vec<u8>, host: &str, method: &str) -> Result<(u16, usize)> {
    let request = format!("{method} /bench HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let head = read_head(stream, buffer)?.context("closed without an answer")?;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let status = parse_status(&text)?;
    let length = text.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length: usize = length.context("an answer without content-length")?.trim().parse()?;
    while buffer.len() < head + length {
        if read_some(stream, buffer)? == 0 {
            bail!("closed in the middle of an answer");
        }
    }
    buffer.drain(..head + length);
    Ok((status, length))
}

fn parse_status(head: &str) -> Result<u16> {
    let status = head.split(' ').nth(1).context("an answer without a status")?;
    status.parse().with_context(|| format!("`{status}` is no status"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_is_answered() {
        let upstream = Upstream::start().expect("an upstream");
        let load = run(upstream.address(), "x", 3, Duration::from_millis(100)).expect("a load");
        assert!(load.requests() >= 3 && load.failed == 0, "{} {}", load.requests(), load.failed);
        assert!(load.latency(0.5) > Duration::ZERO && load.latency(0.5) <= load.latency(0.99));
        assert_eq!(status(upstream.address(), "x", "POST").expect("an answer"), 200);
    }

    #[test]
    fn counts_what_fails() {
        let listener = TcpListener::bind("127.9.0.11:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = read_head(&mut stream, &mut Vec::new());
                let _ = stream.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n");
            }
        });
        let load = run(address, "x", 2, Duration::from_millis(50)).expect("a load");
        assert_eq!((load.requests(), load.failed), (0, 2));
    }
}
