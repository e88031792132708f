//! Bodies on their way out.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body::{Body, Frame};

use super::{framing::write_chunk_size, head::write_fields, io::Io};

/// Why a body was not sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It did not come to its end, or is not as long as was said.
    Source,
    /// It cannot be written.
    Connection,
}

/// What is still to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Bytes(u64),
    Chunks,
    /// What comes, until the connection ends.
    UntilClose,
    /// All is queued; it must be flushed.
    Queued,
    Nothing,
}

/// A body that is being sent.
pub(crate) struct Sending(Left);

impl Sending {
    /// Writes the fields that say where a body ends and, with them, the end of the head. What `fields` say of it holds.
    /// `chunks`: the other side understands them; without, the end of the connection is the end of a body whose length
    /// is not known.
    pub(super) fn begin(
        out: &mut Vec<u8>,
        fields: &HeaderMap,
        body: &impl Body<Data = Bytes>,
        chunks: bool,
    ) -> Self {
        let length = fields.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let left = match (length, body.size_hint().exact()) {
            (Some(0), _) => Left::Queued,
            (Some(length), _) => Left::Bytes(length),
            (None, _) if body.is_end_stream() => Left::Queued,
            (None, Some(length)) => {
                out.extend_from_slice(format!("content-length: {length}\r\n").as_bytes());
                Left::Bytes(length)
            }
            (None, None) if !chunks => Left::UntilClose,
            (None, None) => {
                if !fields.contains_key(TRANSFER_ENCODING) {
                    out.extend_from_slice(b"transfer-encoding: chunked\r\n");
                }
                Left::Chunks
            }
        };
        out.extend_from_slice(b"\r\n");
        Self(left)
    }

    /// Writes the end of a head behind which nothing comes.
    pub(super) fn nothing(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"\r\n");
        Self(Left::Queued)
    }

    /// True when nothing is left to send.
    pub(crate) fn is_done(&self) -> bool {
        self.0 == Left::Nothing
    }

    /// Sends what there is.
    pub(crate) fn poll<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        body: &mut B,
    ) -> Poll<Result<(), Stopped>> {
        while self.0 != Left::Queued {
            if self.0 == Left::Nothing {
                return Poll::Ready(Ok(()));
            }
            if !io.takes_chunks() {
                ready!(io.poll_flush(cx)).map_err(|_| Stopped::Connection)?;
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.queue(frame, io)?,
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(Stopped::Source)),
                Poll::Ready(None) => self.end(io)?,
                Poll::Pending => {
                    ready!(io.poll_flush(cx)).map_err(|_| Stopped::Connection)?;
                    return Poll::Pending;
                }
            }
        }
        ready!(io.poll_flush(cx)).map_err(|_| Stopped::Connection)?;
        self.0 = Left::Nothing;
        Poll::Ready(Ok(()))
    }

    fn queue(&mut self, frame: Frame<Bytes>, io: &mut Io) -> Result<(), Stopped> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => match self.0 {
                Left::Bytes(left) => {
                    let left = left.checked_sub(data.len() as u64).ok_or(Stopped::Source)?;
                    io.push(data, b"");
                    self.0 = if left == 0 { Left::Queued } else { Left::Bytes(left) };
                }
                Left::Chunks => {
                    write_chunk_size(io.front(), data.len());
                    io.push(data, b"\r\n");
                }
                Left::UntilClose => io.push(data, b""),
                Left::Queued | Left::Nothing => {}
            },
            Err(frame) => {
                if let (Left::Chunks, Ok(trailers)) = (self.0, frame.into_trailers()) {
                    io.front().extend_from_slice(b"0\r\n");
                    write_fields(io.front(), &trailers);
                    io.front().extend_from_slice(b"\r\n");
                    self.0 = Left::Queued;
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, io: &mut Io) -> Result<(), Stopped> {
        match self.0 {
            Left::Bytes(_) => return Err(Stopped::Source),
            Left::Chunks => io.front().extend_from_slice(b"0\r\n\r\n"),
            Left::UntilClose | Left::Queued | Left::Nothing => {}
        }
        self.0 = Left::Queued;
        Ok(())
    }
}
