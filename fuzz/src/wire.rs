//! Properties of what controllers and proxies send each other.

use mesh_core::{
    config::TrustBundle,
    edge::{Direction, EdgeKey, EdgeTotals},
    name::{ObjectRef, ServicePort, WorkloadRef},
    protocol::Protocol,
    reason::Reason,
    resource::ResourceName,
};
use mesh_proto::convert::{Resource, ResourceBody, Wire};
use prost::Message as _;

/// What is taken is sent as the same; what is refused is refused with a place and a wish.
fn travels<T: Wire<Message: prost::Message + Default> + PartialEq + std::fmt::Debug>(data: &[u8]) {
    let Ok(message) = T::Message::decode(data) else { return };
    match T::from_wire(&message) {
        Ok(value) => {
            let bytes = value.to_wire().encode_to_vec();
            let again = T::Message::decode(&*bytes).ok().map(|message| T::from_wire(&message));
            assert_eq!(again, Some(Ok(value)));
        }
        Err(error) => assert!(!error.path().is_empty() && !error.expected().is_empty(), "{error}"),
    }
}

/// Resources of discovery.
pub(crate) fn resources(data: &[u8]) {
    travels::<Resource>(data);
}

/// Reports of edges.
pub(crate) fn edges(data: &[u8]) {
    travels::<(EdgeKey, EdgeTotals)>(data);
}

/// Resources as the controller makes them of YAML.
pub(crate) fn resource_seeds() -> Vec<Vec<u8>> {
    let mut all: Vec<Resource> =
        super::yaml::seeds().iter().flat_map(|text| super::yaml::compiled(text)).collect();
    if let Ok(trust_domain) = "cluster.local".parse() {
        let bundle = TrustBundle { trust_domain, roots: vec![vec![0x30, 0]] };
        all.push(Resource::new(ResourceName::TrustBundle, ResourceBody::TrustBundle(bundle)));
    }
    all.iter().map(|resource| resource.to_wire().encode_to_vec()).collect()
}

/// A summary with each of its fields.
pub(crate) fn edge_seeds() -> Vec<Vec<u8>> {
    let mut key = EdgeKey::unknown(Direction::Outbound);
    key.source = "spiffe://cluster.local/ns/shop/sa/cart".parse().ok();
    key.service = Some(ServicePort::new("shop", "catalog", 80));
    key.destination_workload = Some(WorkloadRef::new("shop", "catalog-1"));
    key.rule = Some(ObjectRef::new("HTTPRoute", "shop", "catalog"));
    key.protocol = Protocol::Http1;
    let mut totals = EdgeTotals { requests: 3, failures: 1, request_bytes: 300, ..EdgeTotals::default() };
    totals.reasons.insert(Reason::AuthzDenied, 1);
    totals.latency.record(3000);
    vec![(key, totals).to_wire().encode_to_vec()]
}
