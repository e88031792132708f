//! Single HTTP/1.1 requests, to see whether something stands and what it answers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Status of `GET path` at `address`.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<u16> {
    status(address, &address.to_string(), "GET", path)
}

/// Status of one request on a connection of its own.
pub(crate) fn status(address: SocketAddr, host: &str, method: &str, path: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).context("closed without an answer")?;
    parse(&start).with_context(|| format!("`{}` begins no answer", String::from_utf8_lossy(&start)))
}

/// The status of a response that begins with `start`.
fn parse(start: &[u8]) -> Option<u16> {
    std::str::from_utf8(start).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read() {
        assert_eq!(parse(b"HTTP/1.1 403"), Some(403));
        assert_eq!(parse(b"HTTP/2 abcde"), None);
    }
}
