//! Configuration: what was typed ([`Options`]) and what it means ([`Config`]).

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use mesh_core::{identity::TrustDomain, name::WorkloadRef};

/// How connections come to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// The application names the proxy: HTTP by Host, TCP by declared upstream ports. Needs no privilege.
    Explicit,
    /// A firewall redirects the application's connections.
    Transparent,
}

/// How HTTP/1 requests travel between proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Http1Transport {
    /// As HTTP/1.1, one request at a time per connection.
    #[value(name = "h1")]
    H1,
    /// Multiplexed over HTTP/2.
    #[value(name = "h1h2")]
    H1OverH2,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AccessLogTarget {
    /// Nowhere, until switched on through the admin socket (then standard output).
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// What the controller's first certificate is verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TrustAnchor {
    /// PEM file with the mesh's roots; read at every use.
    Bundle(PathBuf),
    /// SHA-256 of a root within the chain that the controller sends.
    Pin([u8; 32]),
}

/// What was typed.
#[derive(Clone, Debug)]
pub struct Options {}

/// Validated configuration of one proxy.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) workload: WorkloadRef,
    pub(crate) trust_domain: TrustDomain,
    /// Host and port of the controller.
    pub(crate) controller: String,
    pub(crate) mode: Mode,
    pub(crate) outbound: Vec<SocketAddr>,
    /// Transparent mode only.
    pub(crate) inbound: Vec<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) trust: TrustAnchor,
    pub(crate) workers: usize,
    pub(crate) access_log: AccessLogTarget,
    pub(crate) admin_socket: Option<PathBuf>,
    /// How long a drain may take.
    pub(crate) drain_timeout: Duration,
    /// How long a call waits for its destination's first answer.
    pub(crate) discovery_wait: Duration,
    pub(crate) http1_transport: Http1Transport,
}
