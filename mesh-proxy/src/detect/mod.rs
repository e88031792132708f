//! What a connection speaks, from its first bytes.

mod parse;

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

pub(crate) use self::parse::{Detected, PREFACE, classify};

/// How long a connection may take to say what it speaks.
pub(crate) const DETECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads from `stream` until it is clear what it speaks. The bytes come back, to be read again by whoever serves.
/// `None`: nothing decisive came in time.
///
/// # Errors
/// When reading fails or the peer closes before it has sent anything.
pub(crate) async fn detect(
    stream: &mut TcpStream,
    within: Duration,
) -> io::Result<(Option<Detected>, Bytes)> {
    let mut buffer = BytesMut::new();
    let detected = match timeout(within, read_until_clear(stream, &mut buffer)).await {
        Ok(outcome) => Some(outcome?),
        Err(_) => None,
    };
    Ok((detected, buffer.freeze()))
}

async fn read_until_clear(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Detected> {
    loop {
        buffer.reserve(2048);
        if stream.read_buf(buffer).await? == 0 {
            return match buffer.is_empty() {
                true => Err(io::ErrorKind::UnexpectedEof.into()),
                false => Ok(Detected::Other),
            };
        }
        if let Some(detected) = classify(buffer) {
            return Ok(detected);
        }
    }
}
