//! The wire format of the mesh: generated protobuf types and gRPC services, and the one place that converts between
//! them and the domain of `mesh-core` (see [`convert`]).
//!
//! *Invariant:* what [`convert::Wire::from_wire`] returns is valid; nothing behind it checks the same thing again.

pub mod convert;

use std::fmt::Write as _;

macro_rules! package {
    ($(#[$doc:meta])* $name:ident, $package:literal) => {
        $(#[$doc])*
        pub mod $name {
            /// First version of the package.
            #[allow(
                missing_docs,
                unreachable_pub,
                unused_qualifications,
                elided_lifetimes_in_paths,
                rustdoc::all,
                clippy::all,
                clippy::pedantic,
                clippy::nursery,
                clippy::restriction,
                reason = "generated code"
            )]
            pub mod v1 {
                tonic::include_proto!($package);
            }
        }
    };
}

package! {
    /// Messages that more than one package uses.
    common, "mesh.common.v1"
}
package! {
    /// How a proxy proves what it is and gets its certificate.
    identity, "mesh.identity.v1"
}
package! {
    /// What a proxy needs to know, on demand and as versioned deltas.
    discovery, "mesh.discovery.v1"
}
package! {
    /// What proxies report.
    telemetry, "mesh.telemetry.v1"
}
package! {
    /// What people's tools read.
    view, "mesh.view.v1"
}

/// Version of a content: hash of its encoded form (FNV-1a, 64 bit), in hexadecimal. Equal messages have equal versions
/// in every process and on every machine, as long as the message has no map fields.
#[must_use]
pub fn version_of(message: &impl prost::Message) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash =
        message.encode_to_vec().iter().fold(OFFSET, |h, byte| (h ^ u64::from(*byte)).wrapping_mul(PRIME));
    let mut text = String::with_capacity(16);
    let _ = write!(text, "{hash:016x}");
    text
}

#[cfg(test)]
mod tests {
    use super::{common::v1::WorkloadRef, version_of};

    #[test]
    fn version_is_that_of_the_content() {
        let cart = WorkloadRef { namespace: "shop".into(), name: "cart".into() };
        let job = WorkloadRef { namespace: "shop".into(), name: "job".into() };
        assert_eq!(version_of(&cart), version_of(&cart.clone()));
        assert_ne!(version_of(&cart), version_of(&job));
        // The published offset basis of FNV-1a: the hash of nothing.
        assert_eq!(version_of(&WorkloadRef::default()), "cbf29ce484222325");
    }
}
