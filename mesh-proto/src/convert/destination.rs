//! Where calls go: destinations and endpoints.

use mesh_core::{
    addr::EndpointAddr,
    config::{Destination, Endpoint},
};

use super::{
    At as _, ConvertError, MAX_ENDPOINTS, Wire, each, parsed_or_empty, required, socket_address, text,
    to_list,
};
use crate::discovery::v1::{self as pb, destination::Outcome};

impl Wire for Destination {
    type Message = pb::Destination;

    fn to_wire(&self) -> pb::Destination {
        let outcome = match self {
            Self::Service(routes) => Outcome::Service(routes.to_wire()),
            Self::Passthrough => Outcome::Passthrough(pb::Passthrough {}),
            Self::Unknown(detail) => Outcome::Unknown(pb::UnknownHost { detail: detail.clone() }),
        };
        pb::Destination { outcome: Some(outcome) }
    }

    fn from_wire(message: &pb::Destination) -> Result<Self, ConvertError> {
        Ok(match message.outcome.as_ref().ok_or_else(ConvertError::missing)? {
            Outcome::Service(service) => Self::Service(Wire::from_wire(service).at("service")?),
            Outcome::Passthrough(pb::Passthrough {}) => Self::Passthrough,
            Outcome::Unknown(unknown) => Self::Unknown(text(&unknown.detail, "detail").at("unknown")?.into()),
        })
    }
}

impl Wire for Endpoint {
    type Message = pb::Endpoint;

    fn to_wire(&self) -> pb::Endpoint {
        pb::Endpoint {
            address: self.address.to_string(),
            identity: self.identity.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
            workload: Some(self.workload.to_wire()),
            protocol: self.protocol.to_wire(),
            zone: self.zone.as_ref().into(),
        }
    }

    fn from_wire(message: &pb::Endpoint) -> Result<Self, ConvertError> {
        Ok(Self {
            address: EndpointAddr(socket_address(&message.address, "address")?),
            identity: parsed_or_empty(&message.identity, "identity")?,
            workload: required(message.workload.as_ref(), "workload")?,
            protocol: Wire::from_wire(&message.protocol).at("protocol")?,
            zone: text(&message.zone, "zone")?.into(),
        })
    }
}

impl Wire for Vec<Endpoint> {
    type Message = pb::EndpointSet;

    fn to_wire(&self) -> pb::EndpointSet {
        pb::EndpointSet { endpoints: to_list(self) }
    }

    fn from_wire(message: &pb::EndpointSet) -> Result<Self, ConvertError> {
        each(&message.endpoints, "endpoints", MAX_ENDPOINTS, Endpoint::from_wire)
    }
}
