//! Where bodies end (RFC 9112 section 6): what is read is cut into data, trailers and the end.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::head::{self, Malformed};

/// Most bytes that chunk extensions may take in one body, and longest line of a chunk's size.
const MAX_EXTENSIONS: usize = 16 * 1024;
/// Pieces up to this size are copied, in bytes: the buffer is free to be read into again, which is worth more.
const COPIED: usize = 4 * 1024;
/// Most bytes of a body's trailers.
const MAX_TRAILERS: usize = 16 * 1024;

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none, or it has this many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection; responses only.
    UntilClose,
}

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Data.
    Data(Bytes),
    /// The trailers; they are the end.
    Trailers(HeaderMap),
    /// The end.
    End,
    /// More must be read first.
    More,
}

/// Cuts a body.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// Bytes of chunk extensions so far.
    extensions: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    /// A line with a chunk's size.
    Size,
    /// So many bytes of a chunk's data.
    Chunk(u64),
    /// The line's end behind a chunk's data.
    ChunkEnd,
    Trailers,
    Ended,
}

impl Decoder {
    /// At the beginning of a body.
    pub(crate) fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Ended,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extensions: 0 }
    }

    /// At the end of a body.
    pub(crate) fn ended() -> Self {
        Self::new(Framing::Length(0))
    }

    /// True when all of the body was given out.
    pub(crate) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Bytes that are still to come, where that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Ended => Some(0),
            State::UntilClose | State::Size | State::Chunk(_) | State::ChunkEnd | State::Trailers => None,
        }
    }

    /// Cuts the next piece off what was read.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(crate) fn next(&mut self, read: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self.state {
                State::Ended => return Ok(Piece::End),
                _ if read.is_empty() => return Ok(Piece::More),
                State::UntilClose => return Ok(Piece::Data(piece(read, read.len()))),
                State::Length(left) => {
                    let (data, left) = cut(read, left);
                    self.state = if left == 0 { State::Ended } else { State::Length(left) };
                    return Ok(Piece::Data(data));
                }
                State::Chunk(left) => {
                    let (data, left) = cut(read, left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::Chunk(left) };
                    return Ok(Piece::Data(data));
                }
                State::ChunkEnd => match (read.first(), read.get(1)) {
                    (Some(b'\r'), None) => return Ok(Piece::More),
                    (Some(b'\r'), Some(b'\n')) => {
                        read.advance(2);
                        self.state = State::Size;
                    }
                    _ => return Err(Malformed::Chunk),
                },
                State::Size => {
                    let Some(end) = line_end(read)? else {
                        let too_long = self.extensions + read.len() > MAX_EXTENSIONS;
                        return if too_long { Err(Malformed::TooLarge) } else { Ok(Piece::More) };
                    };
                    let line = read.split_to(end);
                    let (size, extension) = chunk_size(line.get(..end - 2).unwrap_or_default())?;
                    self.extensions += extension;
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(Malformed::TooLarge);
                    }
                    self.state = if size == 0 { State::Trailers } else { State::Chunk(size) };
                }
                State::Trailers => return self.trailers(read),
            }
        }
    }

    fn trailers(&mut self, read: &mut BytesMut) -> Result<Piece, Malformed> {
        if read.starts_with(b"\r\n") {
            read.advance(2);
            self.state = State::Ended;
            return Ok(Piece::End);
        }
        let Some(end) = head::end(read, 0)? else {
            return if read.len() > MAX_TRAILERS { Err(Malformed::TooLarge) } else { Ok(Piece::More) };
        };
        if end > MAX_TRAILERS {
            return Err(Malformed::TooLarge);
        }
        let trailers = head::trailers(&read.split_to(end).freeze())?;
        self.state = State::Ended;
        Ok(Piece::Trailers(trailers))
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// [`Malformed::Ended`] unless that is the body's end.
    pub(crate) fn close(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::UntilClose | State::Ended => {
                self.state = State::Ended;
                Ok(())
            }
            State::Length(_) | State::Size | State::Chunk(_) | State::ChunkEnd | State::Trailers => {
                Err(Malformed::Ended)
            }
        }
    }
}

/// Cuts off at most `most` bytes; with them, how many of these are still missing.
fn cut(read: &mut BytesMut, most: u64) -> (Bytes, u64) {
    let count = usize::try_from(most).unwrap_or(usize::MAX).min(read.len());
    (piece(read, count), most - count as u64)
}

/// Takes `count` bytes off what was read.
fn piece(read: &mut BytesMut, count: usize) -> Bytes {
    if count > COPIED {
        return read.split_to(count).freeze();
    }
    let piece = Bytes::copy_from_slice(read.get(..count).unwrap_or_default());
    read.advance(count);
    piece
}

/// Length of the first line with its end. None: it is not there yet.
fn line_end(read: &[u8]) -> Result<Option<usize>, Malformed> {
    match memchr::memchr(b'\n', read) {
        None => Ok(None),
        Some(at) if at > 0 && read.get(at - 1) == Some(&b'\r') => Ok(Some(at + 1)),
        Some(_) => Err(Malformed::Chunk),
    }
}

/// A chunk's size and the length of what stands behind it.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at(digits);
    let fits = (1..=16).contains(&number.len());
    let number = std::str::from_utf8(number).ok().filter(|_| fits).ok_or(Malformed::Chunk)?;
    let size = u64::from_str_radix(number, 16).map_err(|_| Malformed::Chunk)?;
    // Some pad the size with spaces; an extension begins with a semicolon, and nobody uses one.
    let extension = rest.trim_ascii_start();
    let control = rest.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    match extension.first() {
        None | Some(b';') if !control => Ok((size, rest.len())),
        _ => Err(Malformed::Chunk),
    }
}

/// Writes the line before a chunk's data.
pub(crate) fn write_chunk_size(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for at in (0..digits).rev() {
        out.push(DIGITS[(size >> (4 * at)) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes `bytes` that come in parts of `step`: data, trailers' number, what is left behind the end.
    fn decode(framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, Vec<u8>), Malformed> {
        let (mut decoder, mut read, mut data, mut trailers) =
            (Decoder::new(framing), BytesMut::new(), Vec::new(), 0);
        let mut parts = bytes.chunks(step);
        loop {
            match decoder.next(&mut read)? {
                Piece::Data(piece) => data.extend_from_slice(&piece),
                Piece::Trailers(fields) => trailers = fields.len(),
                Piece::End => {
                    let mut rest = read.to_vec();
                    rest.extend(parts.flatten());
                    return Ok((data, trailers, rest));
                }
                Piece::More => match parts.next() {
                    Some(part) => read.extend_from_slice(part),
                    None => decoder.close()?,
                },
            }
        }
    }

    #[test]
    fn bodies_end_where_they_say() {
        for step in [1, 2, 3, 100] {
            let check = |framing, bytes: &str, data: &str, trailers, rest: &str| {
                let expected = (data.as_bytes().to_vec(), trailers, rest.as_bytes().to_vec());
                assert_eq!(decode(framing, bytes.as_bytes(), step), Ok(expected), "{bytes:?} by {step}");
            };
            check(Framing::Length(3), "abcGET", "abc", 0, "GET");
            check(Framing::Length(0), "GET", "", 0, "GET");
            check(Framing::UntilClose, "abc", "abc", 0, "");
            check(Framing::Chunked, "0\r\n\r\nGET", "", 0, "GET");
            check(
                Framing::Chunked,
                "3\r\nabc\r\n0A;x=\"1\"\r\n0123456789\r\n00\r\n\r\n",
                "abc0123456789",
                0,
                "",
            );
            check(Framing::Chunked, "1 \r\na\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\nGET", "a", 2, "GET");
        }
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        let chunked = |bytes: &str| decode(Framing::Chunked, bytes.as_bytes(), 1000);
        for bytes in [
            "\r\n",
            "x\r\n",
            "-1\r\na",
            "+1\r\na",
            "0x1\r\na",
            "1\na\r\n0\r\n\r\n",
            "1\r\nab\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\na\rX",
            "1;\x01\r\na",
            "1\r;a\r\na",
            "11111111111111111\r\n",
            "1 1\r\na",
            "0\r\nx-a: 1\n\r\n",
            "0\r\n x: 1\r\n\r\n",
            "0\r\nx : 1\r\n\r\n",
        ] {
            let outcome = chunked(bytes);
            assert!(
                matches!(outcome, Err(Malformed::Chunk | Malformed::Field | Malformed::BareLineFeed)),
                "{bytes:?} {outcome:?}"
            );
        }
        for bytes in ["", "1", "1\r\n", "1\r\na", "1\r\na\r\n", "1\r\na\r\n0\r\n", "0\r\nx: 1\r\n"] {
            assert_eq!(chunked(bytes), Err(Malformed::Ended), "{bytes:?}");
        }
        assert_eq!(decode(Framing::Length(2), b"a", 1), Err(Malformed::Ended));
        let endless = format!("1;{}", "a".repeat(MAX_EXTENSIONS));
        assert_eq!(chunked(&endless), Err(Malformed::TooLarge));
        let many = format!("1;{}\r\na\r\n", "a".repeat(1000)).repeat(20);
        assert_eq!(chunked(&many), Err(Malformed::TooLarge));
        let trailers = format!("0\r\nx: {}", "a".repeat(MAX_TRAILERS));
        assert_eq!(chunked(&trailers), Err(Malformed::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..9), step in 1usize..400) {
            let mut bytes = Vec::new();
            for part in &parts {
                write_chunk_size(&mut bytes, part.len());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\nrest");
            prop_assert_eq!(decode(Framing::Chunked, &bytes, step), Ok((parts.concat(), 0, b"rest".to_vec())));
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(prop::sample::select(b"0123af;\r\n x:".to_vec()), 0..60), step in 1usize..9) {
            let _ = decode(Framing::Chunked, &bytes, step);
        }
    }
}
