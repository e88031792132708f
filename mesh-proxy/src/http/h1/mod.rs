//! HTTP/1.1 on connections to upstreams, without a task for each of them and without channels to it: a request's own
//! task writes, reads and hands on.

mod exchange;
mod framing;
mod head;
mod io;
mod upload;

pub(crate) use self::{
    exchange::{Failed, exchange},
    framing::{Decoder, Piece},
    head::{Malformed, ResponseHead},
    io::Io,
    upload::Upload,
};
