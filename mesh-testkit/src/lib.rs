//! Real parts for tests: a throw-away trust domain, applications, a recording relay, a scripted controller.
//!
//! Everything runs on real sockets of the loopback network, and everything stops when its handle is dropped. A helper
//! that cannot do its work panics, for that ends the test that asked for it.
//!
//! *Invariant:* this library knows neither the proxy nor the controller, so that what it claims about them comes from
//! the outside.

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails ends its test")]

pub mod app;
pub mod ca;
pub mod client;
pub mod control;
pub mod net;
pub mod records;
pub mod relay;
pub mod serve;
pub mod tls;
