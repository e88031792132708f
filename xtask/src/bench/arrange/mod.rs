//! What is compared: each arrangement is a way from the load's client to its application.

mod bare;
pub(crate) mod certificates;
mod envoy;
mod haproxy;
pub(crate) mod mesh;
mod nginx;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::client::Application;
use super::peers::Peers;
use super::process::Process;

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1 all the way.
    Http1,
    /// HTTP/1.1 outside, HTTP/2 between the proxies.
    Http1OverHttp2,
    /// gRPC, so HTTP/2 all the way.
    Grpc,
    /// Bytes.
    Tcp,
}

/// Where one protocol enters, and which processes carry it.
pub(crate) struct Way {
    protocol: Protocol,
    /// Where the client connects to.
    pub(crate) entry: SocketAddr,
    /// Host that it asks for.
    pub(crate) host: &'static str,
    /// Indexes into the arrangement's processes: the client's side, the server's side.
    proxies: Vec<usize>,
}

impl Way {
    /// `proxies` are indexes into the arrangement's processes: the client's side, the server's side.
    pub(crate) fn new(protocol: Protocol, entry: SocketAddr, host: &'static str, proxies: &[usize]) -> Self {
        Self { protocol, entry, host, proxies: proxies.to_vec() }
    }
}

/// One of the things that are compared.
pub(crate) struct Arrangement {
    /// Its name in reports.
    pub(crate) name: &'static str,
    processes: Vec<Process>,
    ways: Vec<Way>,
    /// True if it decides each request by caller, method and path.
    pub(crate) authorises: bool,
}

impl Arrangement {
    /// How it carries a protocol; None: it does not.
    pub(crate) fn way(&self, protocol: Protocol) -> Option<&Way> {
        self.ways.iter().find(|way| way.protocol == protocol)
    }

    /// True if there are two proxies on the way.
    pub(crate) fn is_pair(&self, protocol: Protocol) -> bool {
        self.way(protocol).is_some_and(|way| way.proxies.len() == 2)
    }

    /// CPU time of each process on the way since it started.
    pub(crate) fn cpu(&self, way: &Way) -> Result<Vec<Duration>> {
        self.each(way, Process::cpu)
    }

    /// Bytes that each process on the way holds.
    pub(crate) fn resident(&self, way: &Way) -> Result<Vec<u64>> {
        self.each(way, Process::resident)
    }

    /// Files and sockets that each process on the way has open.
    pub(crate) fn descriptors(&self, way: &Way) -> Result<Vec<usize>> {
        self.each(way, Process::descriptors)
    }

    fn each<T>(&self, way: &Way, of: impl Fn(&Process) -> Result<T>) -> Result<Vec<T>> {
        way.proxies.iter().filter_map(|index| self.processes.get(*index)).map(of).collect()
    }
}

/// Where what is needed stands.
pub(crate) struct Places {
    /// The folder that cargo builds into.
    pub(crate) target: PathBuf,
    /// The profile that our proxies are built with.
    pub(crate) profile: &'static str,
    /// The profile that all else is built with.
    pub(crate) others: &'static str,
    /// For what the bench writes, empty at its start.
    pub(crate) folder: PathBuf,
}

/// All arrangements that can be had here, ours first.
pub(crate) struct Arrangements {
    pub(crate) all: Vec<Arrangement>,
    /// Ends after what depends on it.
    _controller: Process,
}

/// Starts those whose name `wanted` takes, and waits until requests pass through them.
pub(crate) fn start(
    places: &Places,
    application: &Application,
    peers: &Peers,
    wanted: impl Fn(&str) -> bool,
) -> Result<Arrangements> {
    let folder = &places.folder;
    certificates::make(folder)?;
    let (controller, mesh) = mesh::start(places, application)?;
    let mut all = vec![mesh];
    if wanted(bare::NAME) {
        all.push(bare::start(places, application)?);
    }
    if let Some(program) = peers.envoy.as_ref().filter(|_| wanted(envoy::NAME)) {
        all.push(envoy::start(program, folder, application)?);
    }
    if let Some(program) = peers.haproxy.as_ref().filter(|_| wanted(haproxy::NAME)) {
        all.push(haproxy::start(program, folder, application)?);
    }
    if let Some(program) = peers.nginx.as_ref().filter(|_| wanted(nginx::NAME)) {
        all.push(nginx::start(program, folder)?);
    }
    if wanted("direct") {
        all.push(direct(application));
    }
    Ok(Arrangements { all, _controller: controller })
}

/// Straight to the application.
fn direct(application: &Application) -> Arrangement {
    let ways = vec![
        Way::new(Protocol::Http1, application.http, "direct", &[]),
        Way::new(Protocol::Grpc, application.grpc, "direct", &[]),
        Way::new(Protocol::Tcp, application.tcp, "direct", &[]),
    ];
    Arrangement { name: "direct", processes: Vec::new(), ways, authorises: false }
}

/// Two proxies at `client` and `server` that are configured from files, all on the same ports. `start` starts the side with
/// this name.
fn pair(
    name: &'static str,
    client: &str,
    server: &str,
    start: impl Fn(&str) -> Result<Process>,
) -> Result<Arrangement> {
    let mut inbound = start("inbound")?;
    wait_for_ports(&mut inbound, server, &[15006, 15007, 15008])?;
    let mut outbound = start("outbound")?;
    wait_for_ports(&mut outbound, client, &[15001, 15002, 15003, 15004])?;
    let way = |protocol, port| Ok(Way::new(protocol, socket(client, port)?, "server", &[0, 1]));
    let ways: Result<_> = [
        way(Protocol::Http1, 15001),
        way(Protocol::Http1OverHttp2, 15002),
        way(Protocol::Grpc, 15003),
        way(Protocol::Tcp, 15004),
    ]
    .into_iter()
    .collect();
    Ok(Arrangement { name, processes: vec![outbound, inbound], ways: ways?, authorises: true })
}

/// Writes `text` as `name` in the folder, with what stands for the folder and the application filled in.
fn write(folder: &Path, name: &str, text: &str, application: Option<&Application>) -> Result<PathBuf> {
    let mut text = text.replace("FOLDER", &folder.to_string_lossy());
    if let Some(application) = application {
        let addresses = [("HTTP", application.http), ("GRPC", application.grpc), ("TCP", application.tcp)];
        for (what, address) in addresses {
            text = text.replace(&format!("UPSTREAM_{what}_PORT"), &address.port().to_string());
            text = text.replace(&format!("UPSTREAM_{what}"), &address.to_string());
        }
        text = text.replace("UPSTREAM_IP", &application.http.ip().to_string());
    }
    let file = folder.join(name);
    std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// Waits until something accepts on each port of `ip`.
pub(crate) fn wait_for_ports(process: &mut Process, ip: &str, ports: &[u16]) -> Result<()> {
    for port in ports {
        let address = socket(ip, *port)?;
        let accepts = || std::net::TcpStream::connect(address).is_ok();
        process.wait_until(&format!("listening on {address}"), accepts)?;
    }
    Ok(())
}

pub(crate) fn socket(ip: &str, port: u16) -> Result<SocketAddr> {
    match ip.parse::<IpAddr>() {
        Ok(ip) => Ok(SocketAddr::new(ip, port)),
        Err(error) => bail!("`{ip}` is no address: {error}"),
    }
}
