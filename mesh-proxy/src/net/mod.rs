//! Byte streams: one type for every kind of connection, original destinations, dialling, copying.

mod ahead;
pub(crate) mod copy;
pub(crate) mod dial;
pub(crate) mod original;
pub(crate) mod overtime;
pub(crate) mod own;
pub(crate) mod pieces;
pub(crate) mod spare;
mod stream;
mod tether;

use std::time::Duration;

use socket2::TcpKeepalive;

pub(crate) use self::{
    ahead::Ahead,
    stream::{Dialled, Prefixed, Stream},
    tether::{Tether, is_cut},
};

/// A peer whose host is gone is noticed within two minutes, however idle the connection is.
pub(crate) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(15))
        .with_retries(4)
}
