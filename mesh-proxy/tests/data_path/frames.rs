//! Raw HTTP/2: frames as bytes, well-formed or not.

use std::{net::SocketAddr, time::Duration};

use mesh_testkit::net::PATIENCE;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const GOAWAY: u8 = 7;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) type Field<'a> = (&'a [u8], &'a [u8]);

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A HEADERS frame with all of its fields.
pub(crate) fn headers(stream: u32, end: bool, fields: &[Field<'_>]) -> Vec<u8> {
    let flags = END_HEADERS | if end { END_STREAM } else { 0 };
    frame(HEADERS, flags, stream, &block(fields))
}

/// Fields as literals that are not indexed (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            match text.len() {
                short @ ..127 => out.push(short as u8),
                long => {
                    out.push(127);
                    let mut rest = long - 127;
                    while rest >= 128 {
                        out.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    out.push(rest as u8);
                }
            }
            out.extend_from_slice(text);
        }
    }
    out
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A response, complete.
    Answered,
    /// RST_STREAM with this error.
    Reset(u32),
    /// GOAWAY with this error.
    GoAway(u32),
    /// The connection ended without a word.
    Closed,
}

/// A connection of a client.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// A frame that came: kind, flags, stream, payload.
pub(crate) type Came = (u8, u8, u32, Vec<u8>);

impl Raw {
    /// Connects, and sends the preface and empty settings.
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self::with_settings(to, &[]).await
    }

    pub(crate) async fn with_settings(to: SocketAddr, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(PREFACE).await.unwrap();
        stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// The other end: reads a client's preface and sends settings. None: the client does not speak HTTP/2.
    pub(crate) async fn accepted(mut stream: TcpStream, settings: &[u8]) -> Option<Self> {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.ok()?;
        stream.write_all(&frame(SETTINGS, 0, 0, settings)).await.ok()?;
        (preface == *PREFACE).then_some(Self { stream, buffer: Vec::new() })
    }

    /// The stream of the next request whose head comes; settings are acknowledged on the way. None: the connection ended.
    pub(crate) async fn request(&mut self) -> Option<u32> {
        loop {
            match self.next().await? {
                (SETTINGS, flags, ..) if flags & ACK == 0 => {
                    let _ = self.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await;
                }
                (HEADERS, _, stream, _) => return Some(stream),
                _ => {}
            }
        }
    }

    /// Sends bytes; false when the peer takes no more within `within`.
    pub(crate) async fn send(&mut self, bytes: &[u8], within: Duration) -> bool {
        matches!(timeout(within, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// The next frame. None: the connection ended.
    pub(crate) async fn next(&mut self) -> Option<Came> {
        loop {
            if let Some((head, rest)) = self.buffer.split_at_checked(9) {
                let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
                let (kind, flags) = (head[3], head[4]);
                if let Some(payload) = rest.get(..length) {
                    let payload = payload.to_vec();
                    self.buffer.drain(..9 + length);
                    return Some((kind, flags, stream, payload));
                }
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
            match read.unwrap() {
                Ok(1..) => {}
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// Reads until it is clear what becomes of `stream`; settings are acknowledged on the way.
    pub(crate) async fn end_of(&mut self, stream: u32) -> End {
        let code = |payload: &[u8], at: usize| {
            payload.get(at..at + 4).map_or(0, |code| u32::from_be_bytes(code.try_into().unwrap()))
        };
        loop {
            match self.next().await {
                None => return End::Closed,
                Some((SETTINGS, flags, ..)) if flags & ACK == 0 => {
                    let _ = self.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await;
                }
                Some((RST_STREAM, _, of, payload)) if of == stream => return End::Reset(code(&payload, 0)),
                Some((GOAWAY, _, _, payload)) => return End::GoAway(code(&payload, 4)),
                Some((HEADERS | DATA, flags, of, _)) if of == stream && flags & END_STREAM != 0 => {
                    return End::Answered;
                }
                Some(_) => {}
            }
        }
    }
}
