//! HTTP/1.1: connections to upstreams without a task for each of them, a request's own task writes, reads and hands on;
//! connections of callers in one task each.

mod asked;
mod exchange;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod head;
mod io;
mod request;
mod sending;
mod serve;

pub(crate) use self::{
    asked::{Asked, OnUpgrade},
    exchange::{Failed, exchange},
    framing::{Decoder, Piece},
    head::{Malformed, ResponseHead, switches},
    io::Io,
    sending::Sending,
    serve::{Fault, Life, serve},
};
