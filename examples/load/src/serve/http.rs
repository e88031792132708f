//! HTTP/1.1: `GET /bytes/N` is answered by N bytes.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::http1::{MAX_HEAD, head_length, wanted_bytes};

/// Bytes of the largest body that is given.
const MAX_BODY: usize = 16 * 1024 * 1024;
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

/// Responses that were asked for before, whole.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<HashMap<usize, Bytes>>>);

impl Answers {
    fn get(&self, bytes: usize) -> Bytes {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(bytes).or_insert_with(|| make(bytes)).clone()
    }
}

fn make(bytes: usize) -> Bytes {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {bytes}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + bytes, b'x');
    answer.into()
}

/// Answers requests without bodies until the client closes.
pub(super) async fn serve(mut stream: TcpStream, answers: Answers) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(4096);
    loop {
        let Some(length) = head_length(&buffer) else {
            if buffer.len() > MAX_HEAD {
                return Err(ErrorKind::InvalidData.into());
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            continue;
        };
        match wanted_bytes(&buffer).filter(|bytes| *bytes <= MAX_BODY) {
            Some(bytes) => stream.write_all(&answers.get(bytes)).await?,
            None => stream.write_all(NOT_FOUND).await?,
        }
        buffer.advance(length);
    }
}
