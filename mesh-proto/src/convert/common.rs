//! Names and protocols.

use mesh_core::{
    name::{ObjectRef, ServicePort, WorkloadRef, is_dns_label, is_dns_name},
    protocol::Protocol,
};

use super::{At as _, ConvertError, Wire, port, text};
use crate::common::v1 as pb;

impl Wire for ObjectRef {
    type Message = pb::ObjectRef;

    fn to_wire(&self) -> pb::ObjectRef {
        pb::ObjectRef {
            kind: self.kind.as_ref().into(),
            namespace: self.namespace.as_ref().into(),
            name: self.name.as_ref().into(),
        }
    }

    fn from_wire(message: &pb::ObjectRef) -> Result<Self, ConvertError> {
        let named = |value, field| {
            let value = text(value, field)?;
            if value.is_empty() { Err(ConvertError::new(value, "a name")).at(field) } else { Ok(value) }
        };
        let kind = named(&message.kind, "kind")?;
        let name = named(&message.name, "name")?;
        Ok(Self::new(kind, text(&message.namespace, "namespace")?, name))
    }
}

impl Wire for WorkloadRef {
    type Message = pb::WorkloadRef;

    fn to_wire(&self) -> pb::WorkloadRef {
        pb::WorkloadRef { namespace: self.namespace.as_ref().into(), name: self.name.as_ref().into() }
    }

    fn from_wire(message: &pb::WorkloadRef) -> Result<Self, ConvertError> {
        label(&message.namespace, "namespace")?;
        if !is_dns_name(&message.name) {
            return Err(ConvertError::new(&message.name, "a DNS name (RFC 1123)")).at("name");
        }
        Ok(Self::new(&message.namespace, &message.name))
    }
}

impl Wire for ServicePort {
    type Message = pb::ServicePort;

    fn to_wire(&self) -> pb::ServicePort {
        pb::ServicePort {
            namespace: self.namespace.as_ref().into(),
            name: self.name.as_ref().into(),
            port: self.port.into(),
        }
    }

    fn from_wire(message: &pb::ServicePort) -> Result<Self, ConvertError> {
        label(&message.namespace, "namespace")?;
        label(&message.name, "name")?;
        Ok(Self::new(&message.namespace, &message.name, port(message.port, "port")?))
    }
}

impl Wire for Protocol {
    /// A `mesh.common.v1.Protocol`, as protobuf's open enums are held.
    type Message = i32;

    fn to_wire(&self) -> i32 {
        let protocol = match self {
            Self::Undeclared => pb::Protocol::Unspecified,
            Self::Http1 => pb::Protocol::Http1,
            Self::Http2 => pb::Protocol::Http2,
            Self::Grpc => pb::Protocol::Grpc,
            Self::Opaque => pb::Protocol::Opaque,
        };
        protocol.into()
    }

    fn from_wire(message: &i32) -> Result<Self, ConvertError> {
        let known = pb::Protocol::try_from(*message)
            .map_err(|_| ConvertError::new(message, "a number of mesh.common.v1.Protocol"))?;
        Ok(match known {
            pb::Protocol::Unspecified => Self::Undeclared,
            pb::Protocol::Http1 => Self::Http1,
            pb::Protocol::Http2 => Self::Http2,
            pb::Protocol::Grpc => Self::Grpc,
            pb::Protocol::Opaque => Self::Opaque,
        })
    }
}

/// One label of a DNS name.
pub(super) fn label<'a>(value: &'a str, field: &str) -> Result<&'a str, ConvertError> {
    if is_dns_label(value) {
        return Ok(value);
    }
    Err(ConvertError::new(value, "a DNS label (RFC 1123)")).at(field)
}
