//! Resources: named, versioned contents of the discovery stream.

use mesh_core::{
    config::{Destination, Endpoint, TrustBundle, WorkloadConfig},
    resource::ResourceName,
};

use super::{At as _, ConvertError, Wire, parsed, text};
use crate::discovery::v1::{self as pb, resource::Body};

/// One resource: name, version, content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name; the kind of the content follows from it.
    pub name: ResourceName,
    /// Hash of the content.
    pub version: String,
    /// The content.
    pub body: ResourceBody,
}

/// Content of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResourceBody {
    /// Of `trust-bundle`.
    TrustBundle(TrustBundle),
    /// Of `workload`.
    Workload(WorkloadConfig),
    /// Of `destination/…`.
    Destination(Destination),
    /// Of `endpoints/…`.
    Endpoints(Vec<Endpoint>),
}

impl Resource {
    /// A resource whose version is the hash of its name and content.
    #[must_use]
    pub fn new(name: ResourceName, body: ResourceBody) -> Self {
        let unversioned = Self { name, version: String::new(), body };
        let version = crate::version_of(&unversioned.to_wire());
        Self { version, ..unversioned }
    }
}

impl ResourceBody {
    fn fits(&self, name: &ResourceName) -> bool {
        matches!(
            (self, name),
            (Self::TrustBundle(_), ResourceName::TrustBundle)
                | (Self::Workload(_), ResourceName::Workload)
                | (Self::Destination(_), ResourceName::Destination(_))
                | (Self::Endpoints(_), ResourceName::Endpoints(_))
        )
    }
}

impl Wire for Resource {
    type Message = pb::Resource;

    fn to_wire(&self) -> pb::Resource {
        let body = match &self.body {
            ResourceBody::TrustBundle(bundle) => Body::TrustBundle(bundle.to_wire()),
            ResourceBody::Workload(workload) => Body::Workload(workload.to_wire()),
            ResourceBody::Destination(destination) => Body::Destination(destination.to_wire()),
            ResourceBody::Endpoints(endpoints) => Body::Endpoints(endpoints.to_wire()),
        };
        pb::Resource { name: self.name.to_string(), version: self.version.clone(), body: Some(body) }
    }

    fn from_wire(message: &pb::Resource) -> Result<Self, ConvertError> {
        let name: ResourceName = parsed(&message.name, "name")?;
        let version = text(&message.version, "version")?;
        if version.is_empty() {
            return Err(ConvertError::new(version, "a version")).at("version");
        }
        let body = match message.body.as_ref().ok_or_else(ConvertError::missing).at("body")? {
            Body::TrustBundle(bundle) => {
                ResourceBody::TrustBundle(Wire::from_wire(bundle).at("trust_bundle")?)
            }
            Body::Workload(workload) => ResourceBody::Workload(Wire::from_wire(workload).at("workload")?),
            Body::Destination(destination) => {
                ResourceBody::Destination(Wire::from_wire(destination).at("destination")?)
            }
            Body::Endpoints(endpoints) => {
                ResourceBody::Endpoints(Wire::from_wire(endpoints).at("endpoints")?)
            }
        };
        if !body.fits(&name) {
            return Err(ConvertError::new(&message.name, "a body of the kind that the name says")).at("body");
        }
        Ok(Self { name, version: version.into(), body })
    }
}
