//! Every label and annotation that the mesh reads.

use crate::nearest::nearest;

/// On a Namespace (annotation or label): what happens to calls that no rule matches; `allow` (the default),
/// `authenticated`, `deny` or `smi`.
pub const DEFAULT_POLICY: &str = "meshctl.dev/default-policy";

/// On a Namespace or a Workload, which wins (annotation or label): `permissive` (the default) lets callers without mesh
/// TLS in, `strict` refuses them.
pub const MTLS: &str = "meshctl.dev/mtls";

/// On a Namespace or a pod: `enabled` has a proxy put beside each pod. Read on Kubernetes only.
pub const INJECT: &str = "meshctl.dev/inject";

/// On a pod: the version of what put its proxy there. Written by the mesh.
pub const INJECTED: &str = "meshctl.dev/injected";
/// On a pod: flags of `mesh-proxy init`, as a JSON list, with which the node writes its firewall rules. Written by the
/// mesh.
pub const INTERCEPTION: &str = "meshctl.dev/interception";
/// On a pod: `added`, where the mesh has named its default container for kubectl. Written by the mesh.
pub const DEFAULT_CONTAINER: &str = "meshctl.dev/default-container";
/// On a pod: ports to which its connections pass by its proxy.
pub const SKIP_OUTBOUND_PORTS: &str = "meshctl.dev/skip-outbound-ports";
/// On a pod: ports of its own that its proxy leaves alone.
pub const SKIP_INBOUND_PORTS: &str = "meshctl.dev/skip-inbound-ports";
/// On a pod: networks to which its connections pass by its proxy.
pub const SKIP_OUTBOUND_CIDRS: &str = "meshctl.dev/skip-outbound-cidrs";
/// On a pod: users whose connections pass by its proxy.
pub const SKIP_UIDS: &str = "meshctl.dev/skip-uids";
/// On a pod: ports of its own that the mesh does not look into.
pub const OPAQUE_PORTS: &str = "meshctl.dev/opaque-ports";
/// On a pod: what its proxy logs.
pub const LOG_LEVEL: &str = "meshctl.dev/log-level";
/// On a pod: CPU that its proxy is given for certain.
pub const PROXY_CPU_REQUEST: &str = "meshctl.dev/proxy-cpu-request";
/// On a pod: most CPU that its proxy may use.
pub const PROXY_CPU_LIMIT: &str = "meshctl.dev/proxy-cpu-limit";
/// On a pod: memory that its proxy is given for certain.
pub const PROXY_MEMORY_REQUEST: &str = "meshctl.dev/proxy-memory-request";
/// On a pod: most memory that its proxy may use.
pub const PROXY_MEMORY_LIMIT: &str = "meshctl.dev/proxy-memory-limit";
/// On a pod: whether its proxy is a native sidecar.
pub const NATIVE_SIDECAR: &str = "meshctl.dev/native-sidecar";
/// On a pod: `disabled` has its containers told to end while they are still called.
pub const WAIT_BEFORE_STOP: &str = "meshctl.dev/wait-before-stop";

/// On a Workload: the zone that it runs in.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// On an EndpointSlice: the Service that it belongs to.
pub const SERVICE_OF_SLICE: &str = "kubernetes.io/service-name";

/// What the mesh's own names begin with: an unknown one is refused where it is written, for it is a spelling mistake.
pub const PREFIX: &str = "meshctl.dev/";

/// All names under [`PREFIX`].
pub const ALL: [&str; 18] = [
    DEFAULT_POLICY,
    MTLS,
    INJECT,
    INJECTED,
    INTERCEPTION,
    DEFAULT_CONTAINER,
    SKIP_OUTBOUND_PORTS,
    SKIP_INBOUND_PORTS,
    SKIP_OUTBOUND_CIDRS,
    SKIP_UIDS,
    OPAQUE_PORTS,
    LOG_LEVEL,
    PROXY_CPU_REQUEST,
    PROXY_CPU_LIMIT,
    PROXY_MEMORY_REQUEST,
    PROXY_MEMORY_LIMIT,
    NATIVE_SIDECAR,
    WAIT_BEFORE_STOP,
];

/// Those that mean something on pods alone, all of them annotations: all but the first three.
pub const OF_PODS: &[&str] = ALL.split_at(3).1;

/// API group and version of the mesh's own kinds.
pub const API_VERSION: &str = "meshctl.dev/v1alpha1";

/// API group of the mesh's own kinds.
pub const API_GROUP: &str = "meshctl.dev";

/// What is wrong with a name under [`PREFIX`] among a pod's `labels` or `annotations`, and what to do about it. None: it
/// means something there.
pub(crate) fn stray_on_pod(field: &str, name: &str) -> Option<(&'static str, String)> {
    let is_option = OF_PODS.contains(&name);
    if matches!(name, INJECT | MTLS) || is_option && field == "annotations" {
        return None;
    }
    Some(if is_option {
        ("it is an annotation, and here a label", "move it to the annotations".to_owned())
    } else if name == DEFAULT_POLICY {
        ("it has no effect on a pod", "put it on the Namespace".to_owned())
    } else {
        let remedy = match nearest(name, ALL) {
            Some(name) => format!("did you mean {name:?}?"),
            None => format!("known: {}", ALL.join(", ")),
        };
        ("the option is unknown", remedy)
    })
}
