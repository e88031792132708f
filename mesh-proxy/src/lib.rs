//! The sidecar of the mesh: it stands beside one workload and carries its calls.
//!
//! Outbound: accept → where does this go (discovery) → route → balance → mesh TLS to the peer's proxy. Inbound: accept
//! → mesh TLS → who calls → may they → forward to the application. Read in this order: [`app`] wires everything,
//! `control` learns what to do, `worker` does it.
//!
//! *Invariant:* one control thread (identity, discovery, telemetry, admin) and N workers that share no lock on the
//! request path; what they share are watch channels, read-only snapshots and per-worker counters.

mod admin;
pub mod app;
mod backoff;
mod balance;
pub mod captured;
pub mod cni;
pub mod config;
mod control;
pub mod descriptors;
mod detect;
mod drain;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod http;
mod identity;
mod inbound;
pub mod init;
mod life;
mod limits;
pub mod listeners;
pub mod logging;
mod net;
mod notify;
mod outbound;
mod pool;
mod probe;
mod runtime;
mod telemetry;
pub mod tell;
mod tls;
mod upgrade;
mod worker;

pub use app::{Addresses, Proxy, StartError};
pub use config::{Config, Options};
pub use life::{Ask, Signal, WorkerLost, live};
pub use upgrade::{Succession, SuccessionError};
