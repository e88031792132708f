//! How a sidecar begins and ends: ready when all of it stands, drained in order, asked by signals and commands.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on ends")]

#[path = "../common/mod.rs"]
mod common;
mod ends;
mod load;
mod stage;
mod upgrades;
