//! The first bytes of an accepted connection: looked at, and kept to be read again.

use std::{cell::Cell, io, time::Duration};

use bytes::{Buf as _, BytesMut};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use super::{
    DETECT_TIMEOUT, Detected, hello,
    parse::{classify, classify_tls},
};
use crate::net::Prefixed;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// HTTP and TLS.
    Http,
    /// TLS only: the rest is not looked into.
    Tls,
}

/// A connection of which nothing was handed on yet.
#[derive(Debug)]
pub(crate) struct Opening {
    stream: TcpStream,
    seen: BytesMut,
}

impl Opening {
    /// An accepted connection.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, seen: BytesMut::new() }
    }

    /// True when nothing has come.
    pub(crate) fn is_silent(&self) -> bool {
        self.seen.is_empty()
    }

    /// What came so far.
    pub(crate) fn seen(&self) -> &[u8] {
        &self.seen
    }

    /// Forgets the first bytes: they were for the proxy.
    pub(crate) fn skip(&mut self, count: usize) {
        self.seen.advance(count.min(self.seen.len()));
    }

    /// True when what came begins as TLS does.
    pub(crate) fn begins_tls(&self) -> bool {
        self.seen.first() == Some(&hello::HANDSHAKE)
    }

    /// The name that a TLS client asks for (SNI), in lower case.
    pub(crate) fn server_name(&self) -> Option<Box<str>> {
        match hello::parse(&self.seen) {
            hello::Parsed::Hello(hello) => hello.server_name,
            hello::Parsed::More | hello::Parsed::Other => None,
        }
    }

    /// The connection, to be read from its start.
    pub(crate) fn into_stream(self) -> Prefixed {
        Prefixed::new(self.stream, self.seen.freeze())
    }

    /// Reads until it is clear what the connection speaks. A peer that has sent all speaks none of ours. Dropped
    /// half-way, nothing is lost.
    ///
    /// # Errors
    /// When reading fails.
    pub(crate) async fn clear(&mut self, look: Look) -> io::Result<Detected> {
        loop {
            let clear = match look {
                Look::Http => classify(&self.seen),
                Look::Tls => classify_tls(&self.seen),
            };
            match clear {
                Some(detected) => return Ok(detected),
                None if self.more().await? == 0 => return Ok(Detected::Other),
                None => {}
            }
        }
    }

    /// As [`Opening::clear`], but once bytes have come (`begun`), only `unclear` longer. None: they are not clear by
    /// then. What begins as TLS has more time, for it may be a peer's.
    ///
    /// # Errors
    /// When reading fails.
    pub(crate) async fn begun_and_clear(
        &mut self,
        look: Look,
        unclear: Duration,
        begun: &Cell<bool>,
    ) -> io::Result<Option<Detected>> {
        if self.is_silent() && self.more().await? == 0 {
            return Ok(Some(Detected::Other));
        }
        begun.set(true);
        match timeout(if self.begins_tls() { DETECT_TIMEOUT } else { unclear }, self.clear(look)).await {
            Ok(outcome) => outcome.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Reads once; 0: the peer has sent all.
    pub(crate) async fn more(&mut self) -> io::Result<usize> {
        // A connection that is silent needs no buffer.
        self.stream.readable().await?;
        self.seen.reserve(2048);
        self.stream.read_buf(&mut self.seen).await
    }
}
