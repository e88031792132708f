//! The control side of a real proxy against a scripted controller, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bootstrap;
mod discovery;
mod rig;
mod state;
