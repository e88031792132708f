//! Every label and annotation that the mesh reads.

/// On a Namespace (annotation or label): what happens to calls that no rule matches; `allow` (the default),
/// `authenticated`, `deny` or `smi`.
pub const DEFAULT_POLICY: &str = "meshctl.dev/default-policy";

/// On a Namespace or a Workload, which wins (annotation or label): `permissive` (the default) lets callers without mesh
/// TLS in, `strict` refuses them.
pub const MTLS: &str = "meshctl.dev/mtls";

/// On a Namespace or a pod: `enabled` has a proxy put beside each pod. Read on Kubernetes only.
pub const INJECT: &str = "meshctl.dev/inject";

/// On a Workload: the zone that it runs in.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// On an EndpointSlice: the Service that it belongs to.
pub const SERVICE_OF_SLICE: &str = "kubernetes.io/service-name";

/// What the mesh's own names begin with: an unknown one is refused, for it is a spelling mistake.
pub const PREFIX: &str = "meshctl.dev/";

/// All names under [`PREFIX`].
pub const ALL: [&str; 3] = [DEFAULT_POLICY, MTLS, INJECT];

/// API group and version of the mesh's own kinds.
pub const API_VERSION: &str = "meshctl.dev/v1alpha1";

/// API group of the mesh's own kinds.
pub const API_GROUP: &str = "meshctl.dev";
