//! What annotations say of one pod's proxy, and the mesh-wide default where they say nothing.

use std::str::FromStr;

use mesh_core::range::{Cidr, PortRange};

use super::{
    Config, Native, PROXY_UID, Refusals, Resources, Server,
    config::LEVELS,
    quantity, quiet,
    shape::{Pod, annotation},
};
use crate::labels;

/// Most values of one list: every one is a rule that each new connection passes.
const MAX_VALUES: usize = 100;
/// Most ports that can be opaque.
const MAX_OPAQUE: usize = 256;

/// What one pod's proxy is to be.
pub(super) struct Options {
    pub(super) skip_outbound_ports: Vec<PortRange>,
    pub(super) skip_inbound_ports: Vec<PortRange>,
    pub(super) skip_outbound_cidrs: Vec<Cidr>,
    pub(super) skip_uids: Vec<u32>,
    pub(super) log_level: String,
    pub(super) resources: Resources,
    /// It is an init container that goes on.
    pub(super) native: bool,
    /// It waits at most so many seconds, until nobody calls the pod, before a container is told to end.
    pub(super) quiet: Option<u64>,
}

impl Options {
    pub(super) fn read(
        pod: &Pod<'_>,
        config: &Config,
        server: Option<Server>,
        refusals: &mut Refusals,
    ) -> Self {
        let resources = resources(pod, config, refusals);
        let level = pod.annotation(labels::LOG_LEVEL);
        if let Some(text) = level.filter(|level| !LEVELS.contains(level)) {
            refuse(refusals, labels::LOG_LEVEL, text, "error, warn, info, debug or trace");
        }
        if let Some(text) = pod.annotation(labels::OPAQUE_PORTS)
            && let Err(message) = opaque_ports(text)
        {
            refusals.add(annotation(labels::OPAQUE_PORTS), message, "write ports, as in 3306,5000-5010");
        }
        let native = native(pod, config, server, refusals);
        Self {
            quiet: quiet::at_most(pod, native, refusals),
            skip_outbound_ports: list(
                pod,
                labels::SKIP_OUTBOUND_PORTS,
                &config.skip_outbound_ports,
                refusals,
            ),
            skip_inbound_ports: list(pod, labels::SKIP_INBOUND_PORTS, &config.skip_inbound_ports, refusals),
            skip_outbound_cidrs: list(
                pod,
                labels::SKIP_OUTBOUND_CIDRS,
                &config.skip_outbound_cidrs,
                refusals,
            ),
            skip_uids: list::<Uid>(pod, labels::SKIP_UIDS, &[], refusals).iter().map(|uid| uid.0).collect(),
            log_level: level.unwrap_or(&config.log_level).to_owned(),
            native,
            resources,
        }
    }
}

fn native(pod: &Pod<'_>, config: &Config, server: Option<Server>, refusals: &mut Refusals) -> bool {
    let can = server.is_none_or(Server::has_native_sidecars);
    match pod.annotation(labels::NATIVE_SIDECAR) {
        Some("true") if !can => {
            let message = "this cluster has no native sidecars: they came with Kubernetes 1.29";
            refusals.add(annotation(labels::NATIVE_SIDECAR), message, "remove the annotation");
            false
        }
        Some("true") => true,
        Some("false") => false,
        Some(text) => {
            refuse(refusals, labels::NATIVE_SIDECAR, text, "true or false");
            false
        }
        None => match config.native_sidecars {
            Native::Auto => can,
            Native::Always => true,
            Native::Never => false,
        },
    }
}

fn resources(pod: &Pod<'_>, config: &Config, refusals: &mut Refusals) -> Resources {
    let mut resources = config.resources.clone();
    let mut is_whole = true;
    for (name, slot) in [
        (labels::PROXY_CPU_REQUEST, &mut resources.requests.cpu),
        (labels::PROXY_MEMORY_REQUEST, &mut resources.requests.memory),
        (labels::PROXY_CPU_LIMIT, &mut resources.limits.cpu),
        (labels::PROXY_MEMORY_LIMIT, &mut resources.limits.memory),
    ] {
        let Some(text) = pod.annotation(name) else { continue };
        if quantity::parse(text).is_none() {
            refuse(refusals, name, text, "an amount, as in 100m or 64Mi");
            is_whole = false;
        }
        *slot = Some(text.to_owned());
    }
    let (requests, limits) = (&resources.requests, &resources.limits);
    for (name, what, request, limit) in [
        (labels::PROXY_CPU_REQUEST, "CPU", &requests.cpu, &limits.cpu),
        (labels::PROXY_MEMORY_REQUEST, "memory", &requests.memory, &limits.memory),
    ] {
        if let (Some(request), Some(limit), true) = (request, limit, is_whole)
            && quantity::parse(request) > quantity::parse(limit)
        {
            let message =
                format!("the proxy is to be given more {what} ({request}) than it may use ({limit})");
            refusals.add(annotation(name), message, "raise the limit, or lower the request");
        }
    }
    resources
}

/// Reads a list of values with commas between them; what the mesh says if there is none.
fn list<T: FromStr<Err = String> + Clone>(
    pod: &Pod<'_>,
    name: &str,
    default: &[T],
    refusals: &mut Refusals,
) -> Vec<T> {
    let Some(text) = pod.annotation(name) else { return default.to_vec() };
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    if items.len() > MAX_VALUES {
        let message = format!("it has {} values, and at most {MAX_VALUES} are allowed", items.len());
        refusals.add(annotation(name), message, "use ranges and networks");
        return Vec::new();
    }
    let mut values = Vec::new();
    for item in items {
        match item.parse() {
            Ok(value) => values.push(value),
            Err(error) => {
                let message = format!("{item:?}: {error}");
                refusals.add(annotation(name), message, "correct it, with commas between several");
            }
        }
    }
    values
}

/// The ports of a pod that the mesh does not look into.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn opaque_ports(text: &str) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let range: PortRange = item.parse().map_err(|error| format!("{item:?}: {error}"))?;
        ports.extend(range.first..=range.last);
        if ports.len() > MAX_OPAQUE {
            return Err(format!("more than {MAX_OPAQUE} ports"));
        }
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

pub(super) fn refuse(refusals: &mut Refusals, name: &str, text: &str, expected: &str) {
    refusals.add(annotation(name), format!("{text:?} is not known"), format!("write {expected}"));
}

/// A user, but the proxy.
#[derive(Clone, Copy)]
struct Uid(u32);

impl FromStr for Uid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<u32>() {
            Ok(PROXY_UID) => Err("it is the proxy's own user, which passes by in any case".to_owned()),
            Ok(uid) if !text.starts_with('+') => Ok(Self(uid)),
            _ => Err("expected the number of a user".to_owned()),
        }
    }
}
