//! Reads probes as they were declared.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use mesh_core::ports;
use serde::{Deserialize, de::IgnoredAny};

use super::{Kind, Probe, http::Get};

/// Most probes of one pod.
const MAX: usize = 256;
/// Longest time for a hook: kubelet gives up when the pod's time to end is over.
const HOOK: Duration = Duration::from_secs(3600);
/// Longest time for a probe.
const MAX_WITHIN: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Declared {
    #[serde(default)]
    port: u16,
    quiet_seconds: Option<u64>,
    timeout_seconds: Option<u64>,
    #[serde(default)]
    hook: bool,
    http_get: Option<HttpGet>,
    tcp_socket: Option<IgnoredAny>,
    grpc: Option<Grpc>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HttpGet {
    #[serde(default)]
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) scheme: Option<String>,
    #[serde(default)]
    pub(super) http_headers: Option<Vec<Header>>,
}

#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) name: String,
    #[serde(default)]
    pub(super) value: String,
}

#[derive(Deserialize)]
struct Grpc {
    #[serde(default)]
    service: Option<String>,
}

pub(super) fn read(json: &str, ip: IpAddr) -> Result<HashMap<String, Probe>, String> {
    let all: BTreeMap<String, Declared> = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if all.len() > MAX {
        return Err(format!("it has {} probes, and at most {MAX} are taken", all.len()));
    }
    Ok(all.into_iter().map(|(key, declared)| (key, probe(declared, ip))).collect())
}

fn probe(declared: Declared, ip: IpAddr) -> Probe {
    let address = SocketAddr::new(ip, declared.port);
    let seconds = declared.timeout_seconds.unwrap_or(1).max(1);
    let is_hook = declared.hook || declared.quiet_seconds.is_some();
    let within = if is_hook { HOOK } else { Duration::from_secs(seconds).min(MAX_WITHIN) };
    if let Some(seconds) = declared.quiet_seconds {
        let kind = Ok(Kind::Quiet(Duration::from_secs(seconds)));
        return Probe { address, within, is_hook, kind };
    }
    let kind = match (declared.http_get, declared.tcp_socket, declared.grpc) {
        // Whoever asks the proxy for a probe must not be led in a circle.
        _ if is_own(declared.port) => Err(format!("port {} is the proxy's own", declared.port)),
        (Some(get), None, None) => Get::new(&get).map(Kind::Http),
        (None, Some(_), None) => Ok(Kind::Tcp),
        (None, None, Some(grpc)) => Ok(Kind::Grpc(grpc.service.unwrap_or_default())),
        _ => Err("the probe is none of httpGet, tcpSocket and grpc".to_owned()),
    };
    Probe { address, within, is_hook, kind }
}

/// True for ports of the proxy.
pub(super) fn is_own(port: u16) -> bool {
    port == 0 || port == ports::HEALTH || ports::OWN.contains(&port)
}
