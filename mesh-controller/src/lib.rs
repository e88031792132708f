//! The mesh's controller: reads resources, issues identities, tells proxies what to do, and says what it sees.
//!
//! ```text
//! source (YAML directory, Kubernetes) ─▶ last good versions ─▶ compile ─▶ publish ─▶ grpc/discovery ──▶ proxies
//!                                                      │                 grpc/identity (ca) ◀─▶ proxies
//! meshctl ◀── view ◀── snapshot, proxies, edges ◀──────┘                 grpc/telemetry ◀── proxies
//! API server ◀── webhook (injection, checks of objects)
//! ```
//! [`app`] wires it together; [`data_dir`] holds what must survive a restart: the certificate authority, the hashes of
//! tokens, and nothing else. In a cluster ([`kubernetes`]) Secrets hold that, as [`home`] says. *Invariants:* a leaf holds
//! nothing of its request but the public key; only `identity.v1` answers callers without a certificate; nobody obtains the
//! controller's own name; what is bad in the source never takes away what was good.

mod app;
mod ca;
mod cli;
mod cni;
mod config;
mod data_dir;
mod edges;
mod gate;
mod grpc;
mod health;
mod home;
mod kubernetes;
mod limit;
mod metrics;
mod publish;
mod source;
mod view;
mod webhook;

pub use app::{Addresses, Controller, StartError};
pub use ca::CaError;
pub use cli::{Cli, Command, RunArgs};
pub use cni::{CniAgentArgs, run as run_cni_agent};
pub use config::{Config, ConfigError, InCluster, Origin};
pub use data_dir::{DataDirError, STATUS_FILE, TRUST_BUNDLE_FILE, VIEW_TOKEN_FILE};
pub use grpc::TlsError;
pub use kubernetes::ClusterError;
pub use source::SourceError;
pub use webhook::WebhookError;
