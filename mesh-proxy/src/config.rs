//! Configuration: what was typed ([`Options`]) and what it means ([`Config`]).

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod options;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use mesh_core::{identity::TrustDomain, name::WorkloadRef, ports};

use crate::probe::Probes;

pub use self::options::{Http1Transport, Mode, Options};

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
    /// How long what a process carries may go on after another one took over.
    pub(crate) retire_timeout: Duration,
    /// How long a call waits for its destination's first answer.
    pub(crate) discovery_wait: Duration,
    pub(crate) head_timeout: Duration,
    pub(crate) body_idle: Duration,
    /// How long a peer may leave unacknowledged what is sent to it.
    pub(crate) peer_timeout: Duration,
    pub(crate) http1_transport: Http1Transport,
    /// Mark of all packets that the proxy sends of itself.
    pub(crate) mark: Option<u32>,
    /// The application's probes.
    pub(crate) probes: Probes,
}

/// One thing that is wrong with the options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// What was typed.
    pub value: String,
    /// What is wanted instead.
    pub expected: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env = self.flag.to_uppercase().replace('-', "_");
        write!(f, "--{} (MESH_{env}): {:?} is not {}", self.flag, self.value, self.expected)
    }
}

/// All that is wrong with the options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The faults; never empty.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

/// Collects faults, so that all are told at once.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, flag: &'static str, value: &str, expected: impl Into<String>) {
        self.0.push(Fault { flag, value: value.to_owned(), expected: expected.into() });
    }

    fn parse<T: FromStr>(&mut self, flag: &'static str, value: &str, expected: &str) -> Option<T> {
        let parsed = value.trim().parse().ok();
        if parsed.is_none() {
            self.add(flag, value, expected);
        }
        parsed
    }

    /// A listening address, or the given default.
    fn address(&mut self, flag: &'static str, value: Option<&String>, default: SocketAddr) -> SocketAddr {
        match value {
            Some(value) => self.parse(flag, value, "an address IP:PORT (port 0: any)").unwrap_or(default),
            None => default,
        }
    }

    fn duration(&mut self, flag: &'static str, value: &str, range: (Duration, Duration)) -> Duration {
        match parse_duration(value) {
            Some(duration) if (range.0..=range.1).contains(&duration) => duration,
            _ => {
                let expected =
                    format!("a duration from {:?} to {:?}, as in 500ms, 30s or 5m", range.0, range.1);
                self.add(flag, value, expected);
                range.0
            }
        }
    }
}

impl Config {
    /// Port of the inbound listener, transparent mode.
    #[must_use]
    pub fn inbound_port(&self) -> u16 {
        self.inbound.first().map_or(ports::INBOUND, SocketAddr::port)
    }

    /// Checks options.
    ///
    /// # Errors
    /// [`ConfigError`] with all faults at once.
    pub fn new(options: &Options) -> Result<Self, ConfigError> {
        let mut faults = Faults::default();
        let workload = faults.parse("workload", &options.workload, "NAMESPACE/NAME");
        let trust_domain =
            faults.parse("trust-domain", &options.trust_domain, "a trust domain, as in cluster.local");
        if !is_host_and_port(&options.controller) {
            faults.add("controller", &options.controller, "HOST:PORT");
        }
        let trust = trust_anchor(options, &mut faults);
        let listen = Listen::new(options, &mut faults);
        if options.workers.is_some_and(|workers| !(1..=64).contains(&workers)) {
            faults.add("workers", &options.workers.unwrap_or_default().to_string(), "a number from 1 to 64");
        }
        let hour = Duration::from_secs(3600);
        let drain_timeout = faults.duration("drain-timeout", &options.drain_timeout, (Duration::ZERO, hour));
        let retire_timeout =
            faults.duration("retire-timeout", &options.retire_timeout, (Duration::ZERO, 24 * hour));
        let discovery_wait = faults.duration(
            "discovery-wait",
            &options.discovery_wait,
            (Duration::ZERO, Duration::from_secs(60)),
        );
        let mark = mark(options, &mut faults);
        let probes = probes(options, &mut faults);
        let head_timeout =
            faults.duration("head-timeout", &options.head_timeout, (Duration::from_millis(100), hour));
        let body_idle = faults.duration("body-idle", &options.body_idle, (Duration::from_millis(100), hour));
        let peer_timeout = faults.duration("peer-timeout", &options.peer_timeout, (Duration::ZERO, hour));
        match (workload, trust_domain, trust) {
            (Some(workload), Some(trust_domain), Some(trust)) if faults.0.is_empty() => Ok(Self {
                workload,
                trust_domain,
                controller: options.controller.clone(),
                mode: options.mode,
                outbound: listen.outbound,
                inbound: listen.inbound,
                admin: listen.admin,
                health: listen.health,
                token_file: options.token_file.clone(),
                trust,
                workers: options.workers.unwrap_or_else(crate::runtime::default_workers),
                access_log: access_log(&options.access_log),
                admin_socket: options.admin_socket.clone(),
                drain_timeout,
                retire_timeout,
                discovery_wait,
                head_timeout,
                body_idle,
                peer_timeout,
                http1_transport: options.http1_transport,
                mark,
                probes,
            }),
            _ => Err(ConfigError { faults: faults.0 }),
        }
    }
}

/// Where the proxy listens.
struct Listen {
    outbound: Vec<SocketAddr>,
    inbound: Vec<SocketAddr>,
    admin: SocketAddr,
    health: SocketAddr,
}

impl Listen {
    fn new(options: &Options, faults: &mut Faults) -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let address: Option<IpAddr> = match &options.address {
            Some(value) => faults.parse("address", value, "an IP address"),
            None => None,
        };
        let own = address.unwrap_or(loopback);
        let explicit = options.mode == Mode::Explicit;
        let public = if explicit { own } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let default_outbound = SocketAddr::new(own, ports::OUTBOUND);
        let mut outbound = vec![faults.address("outbound", options.outbound.as_ref(), default_outbound)];
        if !explicit && options.outbound.is_none() && address.is_none() {
            outbound.push(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), ports::OUTBOUND));
        }
        for address in &outbound {
            if !address.ip().is_loopback() {
                faults.add(
                    "outbound",
                    &address.to_string(),
                    "a loopback address: only the own application may use it",
                );
            }
        }
        let inbound = match (explicit, &options.inbound) {
            (false, None) => vec![
                SocketAddr::new(public, ports::INBOUND),
                SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), ports::INBOUND),
            ],
            (false, value) => {
                vec![faults.address("inbound", value.as_ref(), SocketAddr::new(public, ports::INBOUND))]
            }
            (true, None) => Vec::new(),
            (true, Some(value)) => {
                let expected = "possible in explicit mode: inbound listeners follow the Workload's ports";
                faults.add("inbound", value, expected);
                Vec::new()
            }
        };
        let admin = faults.address("admin", options.admin.as_ref(), SocketAddr::new(own, ports::ADMIN));
        if !admin.ip().is_loopback() {
            faults.add(
                "admin",
                &admin.to_string(),
                "a loopback address: admin shows the proxy's configuration",
            );
        }
        let health =
            faults.address("health", options.health.as_ref(), SocketAddr::new(public, ports::HEALTH));
        Self { outbound, inbound, admin, health }
    }
}

fn trust_anchor(options: &Options, faults: &mut Faults) -> Option<TrustAnchor> {
    match (&options.trust_bundle, &options.trust_pin) {
        (Some(path), None) => Some(TrustAnchor::Bundle(path.clone())),
        (None, Some(pin)) => {
            let parsed = parse_pin(pin);
            if parsed.is_none() {
                faults.add(
                    "trust-pin",
                    pin,
                    "sha256: and 64 hexadecimal digits, the SHA-256 of the mesh's root",
                );
            }
            parsed.map(TrustAnchor::Pin)
        }
        (None, None) => {
            let expected = "given: name the mesh's roots (--trust-bundle FILE) or their fingerprint (--trust-pin sha256:HEX)";
            faults.add("trust-bundle", "", expected);
            None
        }
        (Some(_), Some(pin)) => {
            faults.add("trust-pin", pin, "possible together with --trust-bundle: give one of both");
            None
        }
    }
}

fn mark(options: &Options, faults: &mut Faults) -> Option<u32> {
    let text = options.mark.as_ref()?;
    let mark = crate::init::number(text).filter(|mark| *mark != 0);
    if mark.is_none() {
        faults.add("mark", text, "a number from 1, as in 1337 or 0x539");
    }
    mark
}

fn probes(options: &Options, faults: &mut Faults) -> Probes {
    let text = match &options.probes {
        Some(text) if !text.trim().is_empty() => text,
        _ => return Probes::default(),
    };
    let Some(ip) = &options.pod_ip else {
        faults.add("pod-ip", "", "given: probes must know where to ask (--pod-ip IP)".to_owned());
        return Probes::default();
    };
    let Some(ip) = faults.parse("pod-ip", ip, "an IP address") else { return Probes::default() };
    Probes::parse(text, ip).unwrap_or_else(|error| {
        faults.add("probes", text, format!("what `meshctl inject` writes: {error}"));
        Probes::default()
    })
}

fn parse_pin(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix("sha256:")?;
    if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut pin = [0; 32];
    for (byte, index) in pin.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(hex.get(index..index + 2)?, 16).ok()?;
    }
    Some(pin)
}

fn access_log(value: &str) -> AccessLogTarget {
    match value {
        "" | "off" => AccessLogTarget::Off,
        "stdout" => AccessLogTarget::Stdout,
        path => AccessLogTarget::File(path.into()),
    }
}

fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host_is_good = match bracketed {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok() || mesh_core::name::is_dns_name(host),
    };
    host_is_good && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// A number with a unit: `ms`, `s`, `m` or `h`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => None,
    }
}
