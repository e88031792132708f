//! `mesh-proxy init` in network namespaces: the kernel has the rules that the text shows, other rules stay as they
//! are, and every skip is proven by connections.
//!
//! Needs root, `ip`, `nft`, `nsenter` and `unshare`. Without root it says that it was left out, and fails in CI.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails ends its test")]

mod cni;
mod namespace;
mod rules;
mod skips;
mod udp;
