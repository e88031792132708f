//! HTTP/2 on connections, without channels between a request and its connection: a request's own task sends, waits and
//! hands on; the connection's task moves frames, those of many requests at once.

mod answer;
mod caller;
mod io;
mod keep;
mod pump;
mod received;
mod serve;

use std::time::Duration;

pub(crate) use self::{
    io::Io,
    keep::KeepAlive,
    pump::{Pump, Stopped},
    received::Received,
    serve::serve,
};

/// Streams of one connection that a caller may have open at a time.
const MAX_STREAMS: u32 = 1024;
/// Flow control window of a stream, in bytes.
pub(crate) const STREAM_WINDOW: u32 = 1024 * 1024;
/// Flow control window of a connection that was accepted, in bytes.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Largest list of header fields in a head, in bytes.
pub(crate) const MAX_HEAD: u32 = 64 * 1024;
/// What may wait to be sent on one connection, in bytes, beyond a piece of each stream.
pub(crate) const MAX_SEND_BUFFER: usize = 1024 * 1024;
/// How long a peer may be silent before it is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may take to answer that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a connection ended that was to go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// HTTP/2 was not kept to, or the peer said that it goes.
    #[error(transparent)]
    Protocol(#[from] h2::Error),
    /// It broke.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Ended {
    /// Nothing was heard of the peer.
    pub(crate) fn silent() -> Self {
        Self::Io(std::io::ErrorKind::TimedOut.into())
    }
}
