//! What comes: records are read ahead, several at a time in bulk, and opened in the buffer that they were read into.

use std::{
    io, mem,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustls::{AlertDescription, ContentType};
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    message::{Message, Messages},
    record::{self, HEADER, Key, RecordError},
    schedule::Schedule,
};
use crate::net::spare::{self, Size};

/// Records in a row that may carry nothing for whoever reads: each costs this side more than the peer.
const IN_VAIN: u8 = 32;

/// The direction from the peer.
pub(super) struct Incoming {
    key: Key,
    /// What was read. Without room while nothing is in it; all of it is initialised otherwise.
    buffer: Vec<u8>,
    /// How far it is filled.
    filled: usize,
    /// What of it was opened and not taken yet.
    plain: Range<usize>,
    /// Where the next record begins.
    next: usize,
    messages: Messages,
    in_vain: u8,
    /// The last read filled a smaller buffer.
    bulk: bool,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Open,
    /// The peer has said that nothing more comes.
    Ended,
    Broken(RecordError),
}

impl Incoming {
    /// `early` came with the end of the handshake.
    pub(super) fn new(key: Key, early: Vec<u8>) -> Self {
        Self {
            key,
            filled: early.len(),
            buffer: early,
            plain: 0..0,
            next: 0,
            messages: Messages::default(),
            in_vain: 0,
            bulk: false,
            state: State::Open,
        }
    }

    /// What was opened and not taken yet.
    pub(super) fn plain(&self) -> &[u8] {
        self.buffer.get(self.plain.clone()).unwrap_or_default()
    }

    /// Takes so many bytes of it.
    pub(super) fn consume(&mut self, count: usize) {
        self.plain.start = (self.plain.start + count).min(self.plain.end);
        if self.plain.is_empty() && self.next == self.filled {
            self.release();
        }
    }

    /// Bytes of memory that it holds for what was read.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    fn release(&mut self) {
        spare::put(mem::take(&mut self.buffer));
        (self.filled, self.plain, self.next) = (0, 0..0, 0);
    }

    /// Opens the next record if all of it has come; false: more has to be read. True without plaintext: that was all.
    /// `asked` becomes true when the peer wants other keys from this side too.
    ///
    /// # Errors
    /// When the connection cannot be used any more; the same again then.
    pub(super) fn advance(&mut self, schedule: &mut Schedule, asked: &mut bool) -> Result<bool, RecordError> {
        loop {
            match self.state {
                State::Broken(error) => return Err(error),
                State::Ended => return Ok(true),
                State::Open if !self.plain.is_empty() => return Ok(true),
                State::Open => {}
            }
            match self.open(schedule, asked) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => self.state = State::Broken(error),
            }
        }
    }

    /// Opens one record. False: it has not come.
    fn open(&mut self, schedule: &mut Schedule, asked: &mut bool) -> Result<bool, RecordError> {
        let come = self.buffer.get_mut(self.next..self.filled).unwrap_or_default();
        let Some(record) = record::length(come)?.and_then(|length| come.get_mut(..length)) else {
            return Ok(false);
        };
        let (kind, length) = self.key.open(record)?;
        let begin = self.next + HEADER;
        self.next += record.len();
        if kind == ContentType::ApplicationData && length > 0 {
            if self.messages.are_begun() {
                return Err(RecordError::Unexpected);
            }
            self.plain = begin..begin + length;
            self.in_vain = 0;
            return Ok(true);
        }
        self.in_vain += 1;
        if self.in_vain > IN_VAIN || (self.messages.are_begun() && kind != ContentType::Handshake) {
            return Err(RecordError::Unexpected);
        }
        let carried = self.buffer.get(begin..begin + length).unwrap_or_default();
        match (kind, carried) {
            (ContentType::ApplicationData, _) => {}
            (ContentType::Alert, [_, alert]) => match AlertDescription::from(*alert) {
                AlertDescription::CloseNotify => self.state = State::Ended,
                AlertDescription::UserCanceled => {}
                alert => return Err(RecordError::Alert(alert)),
            },
            (ContentType::Alert, _) => return Err(RecordError::Decode),
            (ContentType::Handshake, messages) => {
                let key = &mut self.key;
                self.messages.take(messages, |message| match message {
                    Message::Ticket(ticket) => schedule.keep(ticket),
                    Message::KeyUpdate(requested) => {
                        *key = schedule.next_to_open()?;
                        *asked |= requested;
                        Ok(())
                    }
                })?;
            }
            _ => return Err(RecordError::Unexpected),
        }
        if self.next == self.filled {
            self.release();
        }
        Ok(true)
    }

    /// Reads more, when there is no whole record.
    ///
    /// # Errors
    /// What the connection says; `UnexpectedEof`: it ended, and the peer did not say so before.
    pub(super) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.make_room();
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let whole = room.len();
        let mut buf = ReadBuf::new(room);
        let outcome = Pin::new(io).poll_read(cx, &mut buf);
        let count = buf.filled().len();
        if self.filled + count == 0 {
            self.release();
        }
        ready!(outcome)?;
        if count == 0 {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection ended without TLS's close_notify",
            )));
        }
        self.filled += count;
        self.bulk = count == whole || count > Size::Record.bytes();
        Poll::Ready(Ok(()))
    }

    /// Room for the rest of a record, at least.
    fn make_room(&mut self) {
        let size = if self.bulk { Size::Records } else { Size::Record };
        if self.buffer.is_empty() {
            self.buffer = spare::whole(size);
        } else if self.buffer.len() < size.bytes() {
            let mut larger = spare::whole(size);
            let rest = self.buffer.get(self.next..self.filled).unwrap_or_default();
            if let Some(begin) = larger.get_mut(..rest.len()) {
                begin.copy_from_slice(rest);
            }
            self.filled = rest.len();
            self.next = 0;
            spare::put(mem::replace(&mut self.buffer, larger));
        } else if self.next > 0 {
            self.buffer.copy_within(self.next..self.filled, 0);
            self.filled -= self.next;
            self.next = 0;
        }
        self.plain = 0..0;
    }
}
