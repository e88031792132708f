//! Properties of the wire format: what is sent is what arrives, and what is broken is refused without a panic.

#![expect(clippy::panic, reason = "in a test, failing is the purpose")]

mod strategies;

use std::fmt::Debug;

use mesh_core::{
    config::{Destination, Endpoint, TrustBundle, WorkloadConfig},
    edge::{EdgeKey, EdgeTotals},
    filter::Filter,
    histogram::Histogram,
    matching::RequestMatch,
    name::{ObjectRef, ServicePort, WorkloadRef},
    policy::PolicySet,
    protocol::Protocol,
    route::ServiceRoutes,
    settings::{BackendSettings, CallSettings, InboundLimits},
};
use mesh_proto::{
    convert::{Resource, ResourceBody, Wire},
    version_of,
};
use proptest::{
    collection::vec,
    prelude::*,
    strategy::Strategy,
    test_runner::{TestCaseError, TestRunner},
};
use prost::Message;

/// Core, wire, bytes, wire, core: nothing changes on the way; and damaged bytes are refused or read, never a panic.
fn travels<T>(strategy: impl Strategy<Value = T>)
where
    T: Wire<Message: Message + Debug + Default + PartialEq> + PartialEq + Debug,
{
    let damage = vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let cut = any::<prop::sample::Index>();
    let outcome = TestRunner::default().run(&(strategy, damage, cut), |(value, damage, cut)| {
        let mut bytes = value.to_wire().encode_to_vec();
        let arrived = T::Message::decode(bytes.as_slice()).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(&arrived, &value.to_wire());
        match T::from_wire(&arrived) {
            Ok(read) => prop_assert_eq!(read, value),
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        if let Ok(message) = T::Message::decode(bytes.as_slice())
            && let Err(error) = T::from_wire(&message)
        {
            prop_assert!(!error.path().is_empty() && !error.expected().is_empty(), "{}", error);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn names_travel() {
    travels::<ObjectRef>(strategies::object());
    travels::<WorkloadRef>(strategies::workload());
    travels::<ServicePort>(strategies::service_port());
}

#[test]
fn protocols_travel() {
    travels::<Protocol>(strategies::protocol());
}

#[test]
fn conditions_travel() {
    travels::<RequestMatch>(strategies::request_match());
}

#[test]
fn policies_travel() {
    travels::<PolicySet>(strategies::policy());
}

#[test]
fn settings_travel() {
    travels::<CallSettings>(strategies::calls());
    travels::<BackendSettings>(strategies::backend_settings());
    travels::<InboundLimits>(strategies::limits());
    travels::<Filter>(strategies::filter());
}

#[test]
fn routes_travel() {
    travels::<ServiceRoutes>(strategies::routes());
}

#[test]
fn bundles_travel() {
    travels::<TrustBundle>(strategies::bundle());
}

#[test]
fn workloads_travel() {
    travels::<WorkloadConfig>(strategies::workload_config());
}

#[test]
fn destinations_travel() {
    travels::<Destination>(strategies::destination());
}

#[test]
fn endpoints_travel() {
    travels::<Vec<Endpoint>>(vec(strategies::endpoint(), 0..5));
}

#[test]
fn histograms_travel() {
    travels::<Histogram>(strategies::histogram());
}

#[test]
fn edges_travel() {
    travels::<EdgeKey>(strategies::edge_key());
    travels::<(EdgeKey, EdgeTotals)>((strategies::edge_key(), strategies::edge_totals()));
}

#[test]
fn resources_travel() {
    travels::<Resource>(strategies::resource());
}

proptest! {
    /// Equal content, equal version; any other content, another one.
    #[test]
    fn versions_follow_the_content(one in strategies::resource(), other in strategies::resource()) {
        prop_assert_eq!(&Resource::new(one.name.clone(), one.body.clone()).version, &one.version);
        prop_assert_eq!(one.version == other.version, one == other);
        prop_assert_eq!(version_of(&one.to_wire()), version_of(&one.to_wire()));
    }

    /// A body under the name of another kind is refused.
    #[test]
    fn kinds_are_not_confused(one in strategies::resource(), other in strategies::resource()) {
        let mixed = Resource { body: other.body.clone(), ..one.clone() };
        let kind = |body: &ResourceBody| std::mem::discriminant(body);
        prop_assert_eq!(Resource::from_wire(&mixed.to_wire()).is_ok(), kind(&one.body) == kind(&other.body));
    }

    /// Bytes from nowhere.
    #[test]
    fn noise_is_no_resource(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(message) = mesh_proto::discovery::v1::Resource::decode(bytes.as_slice()) {
            prop_assert!(Resource::from_wire(&message).is_err());
        }
    }
}
