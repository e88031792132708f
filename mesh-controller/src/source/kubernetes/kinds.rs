//! Which kinds are followed.

use kube::core::{ApiResource, GroupVersionKind};

/// A kind of objects.
#[derive(Debug)]
pub(super) struct Followed {
    /// Its name.
    pub(super) kind: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    /// Only metadata is asked for.
    pub(super) is_metadata: bool,
    /// It may be missing: its CRD is not installed.
    pub(super) is_optional: bool,
    /// Its objects' uids, and when they were made, mean something.
    pub(super) has_uid: bool,
    /// Its objects are told how they stand.
    pub(super) has_status: bool,
    /// Which objects, by their labels.
    pub(super) labels: Option<&'static str>,
    /// Which objects, by their fields.
    pub(super) fields: Option<&'static str>,
}

const MESH: &str = "meshctl.dev";
const GATEWAY: &str = "gateway.networking.k8s.io";

/// All kinds that `mesh_k8s` reads.
pub(super) const KINDS: [Followed; 14] = [
    Followed { is_metadata: true, ..built_in("Namespace", "", "namespaces") },
    Followed { is_metadata: true, ..built_in("ServiceAccount", "", "serviceaccounts") },
    built_in("Service", "", "services"),
    // Those that have ended keep an address that others may have by now.
    Followed {
        has_uid: true,
        fields: Some("status.phase!=Succeeded,status.phase!=Failed"),
        ..built_in("Pod", "", "pods")
    },
    Followed {
        labels: Some(mesh_k8s::labels::SERVICE_OF_SLICE),
        ..built_in("EndpointSlice", "discovery.k8s.io", "endpointslices")
    },
    told("Workload", MESH, "v1alpha1", "workloads"),
    told("TrafficPolicy", MESH, "v1alpha1", "trafficpolicies"),
    told("ExternalService", MESH, "v1alpha1", "externalservices"),
    optional("HTTPRoute", GATEWAY, "v1", "httproutes"),
    optional("GRPCRoute", GATEWAY, "v1", "grpcroutes"),
    told("TrafficSplit", "split.smi-spec.io", "v1alpha4", "trafficsplits"),
    told("TrafficTarget", "access.smi-spec.io", "v1alpha3", "traffictargets"),
    told("HTTPRouteGroup", "specs.smi-spec.io", "v1alpha4", "httproutegroups"),
    told("TCPRoute", "specs.smi-spec.io", "v1alpha4", "tcproutes"),
];

const fn built_in(kind: &'static str, group: &'static str, plural: &'static str) -> Followed {
    Followed {
        kind,
        group,
        version: "v1",
        plural,
        is_metadata: false,
        is_optional: false,
        has_uid: false,
        has_status: false,
        labels: None,
        fields: None,
    }
}

const fn optional(
    kind: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
) -> Followed {
    Followed { version, is_optional: true, ..built_in(kind, group, plural) }
}

const fn told(
    kind: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
) -> Followed {
    Followed { has_status: true, ..optional(kind, group, version, plural) }
}

impl Followed {
    /// Where the API server has it.
    pub(super) fn resource(&self) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, self.version, self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }
}
