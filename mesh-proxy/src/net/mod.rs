//! Byte streams: one type for every kind of connection, original destinations, dialling, copying.

pub(crate) mod copy;
pub(crate) mod dial;
pub(crate) mod original;
mod stream;

pub(crate) use self::stream::{Prefixed, Stream};
