//! Names of the resources that the controller sends to proxies.

use std::{fmt, net::SocketAddr, str::FromStr};

use crate::{
    addr::OrigDst,
    name::{Host, NameError, ServicePort},
};

/// Name of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceName {
    /// Trust anchors: `trust-bundle`.
    TrustBundle,
    /// The proxy's own workload: `workload`.
    Workload,
    /// Where a call goes.
    Destination(DestinationKey),
    /// Endpoints of a Service port: `endpoints/NAMESPACE/NAME:PORT`.
    Endpoints(ServicePort),
}

/// How a call names where it wants to go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DestinationKey {
    /// By host, relative to the caller's namespace (explicit mode): `destination/host/HOST[:PORT]`.
    Host(Host),
    /// By original destination address (transparent mode): `destination/addr/IP:PORT`.
    Addr(OrigDst),
}

impl fmt::Display for DestinationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "destination/host/{host}"),
            Self::Addr(addr) => write!(f, "destination/addr/{addr}"),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrustBundle => f.write_str("trust-bundle"),
            Self::Workload => f.write_str("workload"),
            Self::Destination(key) => key.fmt(f),
            Self::Endpoints(port) => write!(f, "endpoints/{port}"),
        }
    }
}

impl FromStr for ResourceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            None if text == "trust-bundle" => Ok(Self::TrustBundle),
            None if text == "workload" => Ok(Self::Workload),
            Some(("endpoints", rest)) => rest.parse().map(Self::Endpoints),
            Some(("destination", rest)) => match rest.split_once('/') {
                Some(("host", host)) => host.parse().map(|h| Self::Destination(DestinationKey::Host(h))),
                Some(("addr", addr)) => addr
                    .parse::<SocketAddr>()
                    .map(|a| Self::Destination(DestinationKey::Addr(OrigDst(a))))
                    .map_err(|_| NameError::new(text, "destination/addr/IP:PORT")),
                _ => Err(NameError::new(text, "destination/host/… or destination/addr/…")),
            },
            _ => Err(NameError::new(text, "trust-bundle, workload, destination/… or endpoints/…")),
        }
    }
}
