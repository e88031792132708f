//! As much of gRPC as both ends need: messages with their length before them. A message of the client begins with the
//! number of bytes that it wants back.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Path of calls with one message each way.
pub(crate) const UNARY: &str = "/bench.Load/Unary";
/// Path of calls with any number of messages each way, each of which is answered.
pub(crate) const STREAM: &str = "/bench.Load/Stream";
/// Path of a call that no policy lets pass.
pub(crate) const UNKNOWN: &str = "/bench.Other/Unary";
/// Bytes of each message of the client.
pub(crate) const QUESTION: usize = 64;
/// Bytes before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Bytes of the largest message that is taken.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A message of the client that asks for `bytes` bytes.
pub(crate) fn question(bytes: u32) -> Bytes {
    let mut message = framed(QUESTION);
    message.put_u32(bytes);
    message.resize(PREFIX + QUESTION, b'q');
    message.freeze()
}

/// A message of `bytes` bytes.
pub(crate) fn answer(bytes: usize) -> Bytes {
    let mut message = framed(bytes);
    message.resize(PREFIX + bytes, b'a');
    message.freeze()
}

/// The number of bytes that a message of the client asks for.
pub(crate) fn wanted_bytes(message: &[u8]) -> Option<usize> {
    let bytes: [u8; 4] = message.get(..4)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok().filter(|wanted| *wanted <= MAX_MESSAGE)
}

fn framed(bytes: usize) -> BytesMut {
    let mut message = BytesMut::with_capacity(PREFIX + bytes);
    message.put_u8(0);
    message.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
    message
}

/// Takes messages out of the DATA frames that they came in.
#[derive(Default)]
pub(crate) struct Messages {
    buffer: BytesMut,
}

impl Messages {
    /// Takes what a frame brought.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next whole message, without its prefix.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let length: [u8; 4] = self.buffer.get(1..PREFIX)?.try_into().ok()?;
        let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
        if self.buffer.len() < PREFIX + length {
            return None;
        }
        self.buffer.advance(PREFIX);
        Some(self.buffer.split_to(length).freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let sent = [question(100), answer(3)].concat();
        let mut messages = Messages::default();
        let mut found = Vec::new();
        for chunk in sent.chunks(7) {
            messages.push(chunk);
            while let Some(message) = messages.next() {
                found.push(message);
            }
        }
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].len(), wanted_bytes(&found[0])), (QUESTION, Some(100)));
        assert_eq!(&*found[1], b"aaa");
        assert_eq!(wanted_bytes(b"123"), None);
    }
}
