//! Which kinds the mesh reads, which it skips, and what was probably meant by others.

use mesh_core::name::ObjectRef;

use crate::{
    labels,
    nearest::nearest,
    parse::tree::{Node, Value, shorten},
};

/// A kind that the mesh reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Namespace,
    ServiceAccount,
    Service,
    Workload,
    HttpRoute,
    GrpcRoute,
    TrafficPolicy,
    ExternalService,
    TrafficSplit,
    TrafficTarget,
    HttpRouteGroup,
    TcpRoute,
}

const KINDS: [(Kind, &str, &str); 12] = [
    (Kind::Namespace, "Namespace", "v1"),
    (Kind::ServiceAccount, "ServiceAccount", "v1"),
    (Kind::Service, "Service", "v1"),
    (Kind::Workload, "Workload", labels::API_VERSION),
    (Kind::HttpRoute, "HTTPRoute", "gateway.networking.k8s.io/v1"),
    (Kind::GrpcRoute, "GRPCRoute", "gateway.networking.k8s.io/v1"),
    (Kind::TrafficPolicy, "TrafficPolicy", labels::API_VERSION),
    (Kind::ExternalService, "ExternalService", labels::API_VERSION),
    (Kind::TrafficSplit, "TrafficSplit", "split.smi-spec.io/v1alpha4"),
    (Kind::TrafficTarget, "TrafficTarget", "access.smi-spec.io/v1alpha3"),
    (Kind::HttpRouteGroup, "HTTPRouteGroup", "specs.smi-spec.io/v1alpha4"),
    (Kind::TcpRoute, "TCPRoute", "specs.smi-spec.io/v1alpha4"),
];

/// Kinds of Kubernetes that often stand beside ours, and mean nothing to the mesh.
const SKIPPED: [&str; 42] = [
    "APIService",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "ControllerRevision",
    "CronJob",
    "CSIDriver",
    "CustomResourceDefinition",
    "DaemonSet",
    "Deployment",
    "Endpoints",
    "EndpointSlice",
    "Event",
    "Gateway",
    "GatewayClass",
    "HorizontalPodAutoscaler",
    "Ingress",
    "IngressClass",
    "Job",
    "Kustomization",
    "Lease",
    "LimitRange",
    "MutatingWebhookConfiguration",
    "NetworkPolicy",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodDisruptionBudget",
    "PodTemplate",
    "PriorityClass",
    "ReferenceGrant",
    "ReplicaSet",
    "ReplicationController",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "Secret",
    "StatefulSet",
    "StorageClass",
    "ValidatingWebhookConfiguration",
];

/// API groups in which [`SKIPPED`] kinds are skipped, beside those under `k8s.io`.
const SKIPPED_GROUPS: [&str; 5] = ["", "apps", "autoscaling", "batch", "policy"];

/// What a document is.
pub(crate) enum Recognised {
    /// An object that the mesh reads.
    Known(Kind),
    /// An object that the mesh has nothing to do with.
    Skip,
    /// Something else.
    Wrong {
        field: &'static str,
        line: u32,
        message: String,
        remedy: String,
        /// The kind that was probably meant.
        meant: Option<Kind>,
    },
}

impl Kind {
    /// As in YAML.
    pub(crate) fn as_str(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }

    /// True for kinds whose names are one label of a host name.
    pub(crate) fn is_label(self) -> bool {
        matches!(self, Self::Namespace | Self::Service | Self::ExternalService)
    }

    /// Names an object of this kind.
    pub(crate) fn reference(self, namespace: &str, name: &str) -> ObjectRef {
        let namespace = if self == Self::Namespace { "" } else { namespace };
        let cut = |text: &str| text.chars().take(253).collect::<String>();
        ObjectRef::new(self.as_str(), &cut(namespace), &cut(name))
    }
}

/// The kind of that name.
pub(crate) fn by_kind(name: &str) -> Option<Kind> {
    KINDS.iter().find(|(_, kind, _)| *kind == name).map(|(kind, ..)| *kind)
}

/// Tells what a document is.
pub(crate) fn recognise(node: &Node) -> Recognised {
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("the document is {}, not an object", node.value);
        let remedy = "write an object with apiVersion, kind and metadata".to_owned();
        return Recognised::Wrong { field: "", line: node.line, message, remedy, meant: None };
    }
    let kind = match field(node, "kind", "for example: kind: Service", None) {
        Ok(kind) => kind,
        Err(wrong) => return wrong,
    };
    let known = KINDS.iter().find(|(_, name, _)| *name == kind.1);
    let expected = known.map_or("v1", |(_, _, version)| version);
    let remedy = format!("add \"apiVersion: {expected}\"");
    let version = match field(node, "apiVersion", &remedy, known.map(|k| k.0)) {
        Ok(version) => version,
        Err(wrong) => return wrong,
    };
    if let Some((found, name, wanted)) = known {
        if version.1 == *wanted {
            return Recognised::Known(*found);
        }
        return Recognised::Wrong {
            field: "apiVersion",
            line: version.0,
            message: format!("kind {name} of apiVersion {:?} is not read by the mesh", shorten(version.1)),
            remedy: format!("the mesh reads {name} of apiVersion {wanted:?}"),
            meant: same_group(version.1, wanted).then_some(*found),
        };
    }
    let group = version.1.rsplit_once('/').map_or("", |(group, _)| group);
    if SKIPPED.contains(&kind.1) && (SKIPPED_GROUPS.contains(&group) || group.ends_with("k8s.io")) {
        return Recognised::Skip;
    }
    let meant =
        nearest(kind.1, KINDS.iter().filter(|k| same_group(version.1, k.2)).map(|(_, name, _)| *name));
    let remedy = match meant {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("the mesh reads {}", KINDS.map(|(_, name, _)| name).join(", ")),
    };
    let message = format!("kind {:?} of apiVersion {:?} is unknown", shorten(kind.1), shorten(version.1));
    Recognised::Wrong { field: "kind", line: kind.0, message, remedy, meant: meant.and_then(by_kind) }
}

/// A version of another group is another kind; a misspelt or outdated version is this one.
fn same_group(written: &str, wanted: &str) -> bool {
    let group =
        |version: &str| version.split_once('/').map(|(group, _)| group.to_owned()).unwrap_or_default();
    group(written).is_empty()
        || group(written) == group(wanted)
        || nearest(&group(written), [group(wanted).as_str()]).is_some()
}

fn field<'a>(
    node: &'a Node,
    name: &'static str,
    remedy: &str,
    meant: Option<Kind>,
) -> Result<(u32, &'a str), Recognised> {
    let (line, message) = match node.get(name) {
        Some(Node { line, value: Value::Text(text) }) => return Ok((*line, text)),
        Some(Node { line, value }) => (*line, format!("{value} is not text")),
        None => (node.line, "the field is missing".to_owned()),
    };
    Err(Recognised::Wrong { field: name, line, message, remedy: remedy.to_owned(), meant })
}
