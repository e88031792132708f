//! What a proxy must know about the workload that it runs beside.

use std::{collections::HashSet, fmt::Debug, hash::Hash};

use mesh_core::{
    addr::AppAddr,
    config::{InboundPort, TrustBundle, Upstream, WorkloadConfig},
    name::Host,
    protocol::{ProxyProtocol, ProxyVersion},
};

use super::{
    At as _, ConvertError, MAX_CERTIFICATE_BYTES, MAX_ROOTS, Wire, calls::unless_default, each, list,
    optional, parsed, parsed_or_empty, port, required, socket_address, text, to_list,
};
use crate::discovery::v1 as pb;

impl Wire for TrustBundle {
    type Message = pb::TrustBundle;

    fn to_wire(&self) -> pb::TrustBundle {
        pb::TrustBundle { trust_domain: self.trust_domain.as_str().into(), roots_der: self.roots.clone() }
    }

    fn from_wire(message: &pb::TrustBundle) -> Result<Self, ConvertError> {
        let roots = each(&message.roots_der, "roots_der", MAX_ROOTS, |root| {
            let length = root.len();
            if length == 0 || length > MAX_CERTIFICATE_BYTES {
                let wanted = format!("a certificate of 1 to {MAX_CERTIFICATE_BYTES} bytes");
                return Err(ConvertError::new(format!("{length} bytes"), wanted));
            }
            Ok(root.clone())
        })?;
        if roots.is_empty() {
            return Err(ConvertError::new("an empty list", "at least one trust anchor")).at("roots_der");
        }
        Ok(Self { trust_domain: parsed(&message.trust_domain, "trust_domain")?, roots })
    }
}

impl Wire for WorkloadConfig {
    type Message = pb::WorkloadConfig;

    fn to_wire(&self) -> pb::WorkloadConfig {
        pb::WorkloadConfig {
            workload: Some(self.workload.to_wire()),
            identity: self.identity.as_str().into(),
            address: self.address.map(|address| address.to_string()).unwrap_or_default(),
            inbound: to_list(&self.inbound),
            upstreams: to_list(&self.upstreams),
            policy: Some(self.policy.to_wire()),
            zone: self.zone.as_ref().into(),
        }
    }

    fn from_wire(message: &pb::WorkloadConfig) -> Result<Self, ConvertError> {
        let inbound: Vec<InboundPort> = list(&message.inbound, "inbound")?;
        distinct(inbound.iter().map(|p| p.port), "inbound", "port")?;
        let upstreams: Vec<Upstream> = list(&message.upstreams, "upstreams")?;
        distinct(upstreams.iter().map(|u| u.listen_port), "upstreams", "listen_port")?;
        Ok(Self {
            workload: required(message.workload.as_ref(), "workload")?,
            identity: parsed(&message.identity, "identity")?,
            address: parsed_or_empty(&message.address, "address")?,
            zone: text(&message.zone, "zone")?.into(),
            inbound,
            upstreams,
            policy: required(message.policy.as_ref(), "policy")?,
        })
    }
}

impl Wire for InboundPort {
    type Message = pb::InboundPort;

    fn to_wire(&self) -> pb::InboundPort {
        pb::InboundPort {
            port: self.port.into(),
            name: self.name.clone(),
            protocol: self.protocol.to_wire(),
            app_address: self.app_address.map(|address| address.to_string()).unwrap_or_default(),
            services: to_list(&self.services),
            limits: unless_default(&self.limits),
            proxy_protocol: unless_default(&self.proxy_protocol),
        }
    }

    fn from_wire(message: &pb::InboundPort) -> Result<Self, ConvertError> {
        let app_address = match message.app_address.as_str() {
            "" => None,
            address => Some(AppAddr(socket_address(address, "app_address")?)),
        };
        Ok(Self {
            port: port(message.port, "port")?,
            name: text(&message.name, "name")?.into(),
            protocol: Wire::from_wire(&message.protocol).at("protocol")?,
            app_address,
            services: list(&message.services, "services")?,
            limits: optional(message.limits.as_ref(), "limits")?.unwrap_or_default(),
            proxy_protocol: optional(message.proxy_protocol.as_ref(), "proxy_protocol")?.unwrap_or_default(),
        })
    }
}

impl Wire for ProxyProtocol {
    type Message = pb::ProxyProtocol;

    fn to_wire(&self) -> pb::ProxyProtocol {
        let send = match self.send {
            None => 0,
            Some(ProxyVersion::V1) => 1,
            Some(ProxyVersion::V2) => 2,
        };
        pb::ProxyProtocol { accept: self.accept, send }
    }

    fn from_wire(message: &pb::ProxyProtocol) -> Result<Self, ConvertError> {
        let send = match message.send {
            0 => None,
            1 => Some(ProxyVersion::V1),
            2 => Some(ProxyVersion::V2),
            other => return Err(ConvertError::new(other.to_string(), "a version, 1 or 2")).at("send"),
        };
        Ok(Self { accept: message.accept, send })
    }
}

impl Wire for Upstream {
    type Message = pb::Upstream;

    fn to_wire(&self) -> pb::Upstream {
        pb::Upstream {
            listen_port: self.listen_port.into(),
            host: self.host.name.as_ref().into(),
            port: self.host.port.unwrap_or_default().into(),
        }
    }

    fn from_wire(message: &pb::Upstream) -> Result<Self, ConvertError> {
        let host: Host = parsed(&message.host, "host")?;
        if host.port.is_some() {
            return Err(ConvertError::new(&message.host, "a host without port")).at("host");
        }
        Ok(Self {
            listen_port: port(message.listen_port, "listen_port")?,
            host: Host { port: Some(port(message.port, "port")?), ..host },
        })
    }
}

fn distinct<T: Copy + Eq + Hash + Debug>(
    values: impl Iterator<Item = T>,
    list: &str,
    field: &str,
) -> Result<(), ConvertError> {
    let mut seen = HashSet::new();
    for (index, value) in values.enumerate() {
        if !seen.insert(value) {
            let error = ConvertError::new(value, "a value that no earlier entry has");
            return Err(error.under(field).under(&format!("{list}[{index}]")));
        }
    }
    Ok(())
}
