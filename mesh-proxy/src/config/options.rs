//! What was typed: flags and their environment twins.

use std::path::PathBuf;

use mesh_core::ports;

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

/// What was typed. Texts are checked by [`super::Config::new`], so that all faults are told at once.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The workload beside which the proxy stands: NAMESPACE/NAME
    #[arg(long, env = "MESH_WORKLOAD")]
    pub workload: String,
    /// Where the controller listens: HOST:PORT
    #[arg(long, env = "MESH_CONTROLLER", default_value = "127.0.0.1:15010")]
    pub controller: String,
    /// How connections come to the proxy
    #[arg(long, env = "MESH_MODE", value_enum, default_value = "transparent")]
    pub mode: Mode,
    /// Explicit mode: the workload's own address, which all listeners take by default
    #[arg(long, env = "MESH_ADDRESS", value_name = "IP")]
    pub address: Option<String>,
    /// Outbound listener, on loopback [default: ADDRESS:15001]
    #[arg(long, env = "MESH_OUTBOUND", value_name = "IP:PORT")]
    pub outbound: Option<String>,
    /// Transparent mode: inbound listener [default: port 15006 of all addresses]
    #[arg(long, env = "MESH_INBOUND", value_name = "IP:PORT")]
    pub inbound: Option<String>,
    /// Admin: live state, read-only, on loopback [default: ADDRESS:15000]
    #[arg(long, env = "MESH_ADMIN", value_name = "IP:PORT")]
    pub admin: Option<String>,
    /// Readiness and metrics [default: port 15020 of ADDRESS, in transparent mode of all addresses]
    #[arg(long, env = "MESH_HEALTH", value_name = "IP:PORT")]
    pub health: Option<String>,
    /// File with the token that proves the service account; read at every use
    #[arg(long, env = "MESH_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the mesh's roots
    #[arg(long, env = "MESH_TRUST_BUNDLE", value_name = "FILE")]
    pub trust_bundle: Option<PathBuf>,
    /// Fingerprint of the mesh's root: sha256:HEX
    #[arg(long, env = "MESH_TRUST_PIN", value_name = "sha256:HEX")]
    pub trust_pin: Option<String>,
    /// Trust domain of the mesh
    #[arg(long, env = "MESH_TRUST_DOMAIN", default_value = ports::DEFAULT_TRUST_DOMAIN)]
    pub trust_domain: String,
    /// Worker threads [default: the CPU quota, rounded up, at most 2]
    #[arg(long, env = "MESH_WORKERS", value_name = "N")]
    pub workers: Option<usize>,
    /// Where requests are logged as JSON lines: off, stdout or a file
    #[arg(long, env = "MESH_ACCESS_LOG", default_value = "off", value_name = "off|stdout|FILE")]
    pub access_log: String,
    /// Unix socket for what changes state (drain, quit, upgrade, log level, access log)
    #[arg(long, env = "MESH_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// How long everything may take after SIGTERM
    #[arg(long, env = "MESH_DRAIN_TIMEOUT", default_value = "30s")]
    pub drain_timeout: String,
    /// How long connections may go on in a process that another one took over from
    #[arg(long, env = "MESH_RETIRE_TIMEOUT", default_value = "10m")]
    pub retire_timeout: String,
    /// How long a call waits for the controller's first answer about its destination
    #[arg(long, env = "MESH_DISCOVERY_WAIT", default_value = "2s")]
    pub discovery_wait: String,
    /// How long the next request's head may take over HTTP/1, idle time included: longer than callers keep connections
    #[arg(long, env = "MESH_HEAD_TIMEOUT", default_value = "90s")]
    pub head_timeout: String,
    /// How long a request's body for an HTTP/1 application may be silent before its response begins
    #[arg(long, env = "MESH_BODY_IDLE", default_value = "60s")]
    pub body_idle: String,
    /// How long a peer on another host may leave unacknowledged, or not take, what is sent to it before its connection ends;
    /// 0s: as long as the kernel tries, about 15 minutes, or for ever if it only takes nothing
    #[arg(long, env = "MESH_PEER_TIMEOUT", default_value = "2m")]
    pub peer_timeout: String,
    /// How HTTP/1 requests travel between proxies
    #[arg(long, env = "MESH_HTTP1_TRANSPORT", value_enum, default_value = "h1")]
    pub http1_transport: Http1Transport,
    /// Transparent mode: mark of the proxy's own packets, for firewall rules (`mesh-proxy init --proxy-mark`); needs NET_ADMIN
    #[arg(long, env = "MESH_MARK", value_name = "MARK")]
    pub mark: Option<String>,
    /// The application's probes, as JSON, by what follows /probe/ on the health port
    #[arg(long, env = "MESH_PROBES", hide_env_values = true, value_name = "JSON")]
    pub probes: Option<String>,
    /// Address at which probes ask the application
    #[arg(long, env = "MESH_POD_IP", value_name = "IP")]
    pub pod_ip: Option<String>,
    /// Transparent mode: end with exit code 76 if no firewall rules lead connections to this proxy
    #[arg(long, env = "MESH_EXPECT_RULES")]
    pub expect_rules: bool,
    /// What is logged to standard error: error, warn, info, debug or trace
    #[arg(long, env = "MESH_LOG", default_value = "info", value_name = "LEVEL")]
    pub log: String,
}

impl Options {
    /// Options with defaults, for a workload (`NAMESPACE/NAME`) and a controller (`HOST:PORT`).
    #[must_use]
    pub fn new(workload: &str, controller: &str, mode: Mode) -> Self {
        Self {
            workload: workload.to_owned(),
            controller: controller.to_owned(),
            mode,
            address: None,
            outbound: None,
            inbound: None,
            admin: None,
            health: None,
            token_file: None,
            trust_bundle: None,
            trust_pin: None,
            trust_domain: ports::DEFAULT_TRUST_DOMAIN.to_owned(),
            workers: None,
            access_log: "off".to_owned(),
            admin_socket: None,
            drain_timeout: "30s".to_owned(),
            retire_timeout: "10m".to_owned(),
            discovery_wait: "2s".to_owned(),
            head_timeout: "90s".to_owned(),
            body_idle: "60s".to_owned(),
            peer_timeout: "2m".to_owned(),
            http1_transport: Http1Transport::H1,
            mark: None,
            probes: None,
            pod_ip: None,
            expect_rules: false,
            log: "info".to_owned(),
        }
    }
}
