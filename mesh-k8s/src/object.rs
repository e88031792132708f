//! The kinds that the standalone mesh reads, as they are after [`crate::parse`] has checked each one alone.
//!
//! Each part that can be reported on by itself carries the line that it was read from.

mod cluster;
mod traffic;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mesh_core::{
    addr::AppAddr,
    filter::Filter,
    matching::RequestMatch,
    name::{Host, ObjectRef},
    policy::{DefaultAction, TlsMode},
    protocol::{Protocol, ProxyProtocol},
    settings::{Retry, Share, Timeouts},
};

pub use cluster::{EndpointOfSlice, EndpointSlice, Membership, Pod, PortOfSlice};
pub use traffic::{ExternalService, TargetOfPolicy, TrafficPolicy};

use crate::problem::Place;

/// An object and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The object.
    pub object: Object,
    /// Line of its document's first key.
    pub place: Place,
    /// Who wins when two objects claim the same. [`crate::parse`] tells only what is new from what is a stand-in; a
    /// caller that knows what applied before raises it.
    pub standing: Standing,
}

/// Who wins when two objects claim the same name, address, or Service: the lesser of these, then the lesser place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Standing {
    /// It applied before, as it is.
    Unchanged,
    /// Another version of it applied before.
    Changed,
    /// It never applied.
    #[default]
    New,
    /// It stands for a refused TrafficTarget or Namespace and opens nothing, so that what that was to restrict is
    /// closed until it is mended. Where a good version is known, leave it out.
    StandIn,
}

impl Located {
    /// Names the object.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        self.object.reference()
    }
}

/// An object of a kind that the mesh reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// `v1 Namespace`.
    Namespace(Namespace),
    /// `v1 ServiceAccount`.
    ServiceAccount(ServiceAccount),
    /// `v1 Service`.
    Service(Service),
    /// `meshctl.dev/v1alpha1 Workload`.
    Workload(Workload),
    /// `gateway.networking.k8s.io/v1 HTTPRoute`.
    HttpRoute(HttpRoute),
    /// `gateway.networking.k8s.io/v1 GRPCRoute`.
    GrpcRoute(HttpRoute),
    /// `meshctl.dev/v1alpha1 TrafficPolicy`.
    TrafficPolicy(Box<TrafficPolicy>),
    /// `meshctl.dev/v1alpha1 ExternalService`.
    ExternalService(ExternalService),
    /// `split.smi-spec.io/v1alpha4 TrafficSplit`.
    TrafficSplit(TrafficSplit),
    /// `access.smi-spec.io/v1alpha3 TrafficTarget`.
    TrafficTarget(TrafficTarget),
    /// `specs.smi-spec.io/v1alpha4 HTTPRouteGroup`.
    HttpRouteGroup(HttpRouteGroup),
    /// `specs.smi-spec.io/v1alpha4 TCPRoute`.
    TcpRoute(TcpRoute),
    /// `v1 Pod`; of a Kubernetes cluster only.
    Pod(Pod),
    /// `discovery.k8s.io/v1 EndpointSlice`; of a Kubernetes cluster only.
    EndpointSlice(EndpointSlice),
}

impl Object {
    /// Names the object.
    #[must_use]
    pub fn reference(&self) -> ObjectRef {
        let (kind, name) = match self {
            Self::Namespace(o) => return ObjectRef::new("Namespace", "", &o.name),
            Self::ServiceAccount(o) => ("ServiceAccount", &o.name),
            Self::Service(o) => ("Service", &o.name),
            Self::Workload(o) => ("Workload", &o.name),
            Self::HttpRoute(o) => ("HTTPRoute", &o.name),
            Self::GrpcRoute(o) => ("GRPCRoute", &o.name),
            Self::TrafficPolicy(o) => ("TrafficPolicy", &o.name),
            Self::ExternalService(o) => ("ExternalService", &o.service.name),
            Self::TrafficSplit(o) => ("TrafficSplit", &o.name),
            Self::TrafficTarget(o) => ("TrafficTarget", &o.name),
            Self::HttpRouteGroup(o) => ("HTTPRouteGroup", &o.name),
            Self::TcpRoute(o) => ("TCPRoute", &o.name),
            Self::Pod(o) => ("Pod", &o.name),
            Self::EndpointSlice(o) => ("EndpointSlice", &o.name),
        };
        ObjectRef { kind: kind.into(), namespace: Arc::clone(&name.namespace), name: Arc::clone(&name.name) }
    }
}

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// A value and the line that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// The line, from 1.
    pub line: u32,
}

/// `v1 Namespace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: Arc<str>,
    /// What happens to calls that no rule matches (`meshctl.dev/default-policy`).
    pub default_policy: Option<DefaultAction>,
    /// Whether callers without mesh TLS are let in (`meshctl.dev/mtls`).
    pub mtls: Option<TlsMode>,
    /// Each new pod gets a proxy (the label `meshctl.dev/inject: enabled`).
    pub inject: bool,
}

/// `v1 ServiceAccount`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its name.
    pub name: Name,
}

/// `v1 Service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: Name,
    /// Labels that a Workload of its namespace must have to be an endpoint; empty: it selects nothing.
    pub selector: At<BTreeMap<String, String>>,
    /// Its ports; each number once.
    pub ports: Vec<PortOfService>,
    /// Its virtual addresses.
    pub cluster_ips: Vec<IpAddr>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOfService {
    /// Its name; empty when it is the only one.
    pub name: String,
    /// The number; never 0.
    pub port: u16,
    /// The Workload's port.
    pub target: PortName,
    /// What is spoken there, if declared.
    pub protocol: Protocol,
    /// Its line.
    pub line: u32,
}

/// A Workload's port, by number or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortName {
    /// By number; never 0.
    Number(u16),
    /// By name.
    Name(String),
}

/// `meshctl.dev/v1alpha1 Workload`: one running instance with one proxy beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name.
    pub name: Name,
    /// Its labels, which Services select by.
    pub labels: BTreeMap<String, String>,
    /// Whether callers without mesh TLS are let in; None: as its namespace says.
    pub mtls: Option<TlsMode>,
    /// The ServiceAccount of its namespace that it runs under.
    pub service_account: At<Arc<str>>,
    /// Where peers dial; None: it is a pod that has no address yet.
    pub address: At<Option<IpAddr>>,
    /// Its ports; each number once.
    pub ports: Vec<PortOfWorkload>,
    /// TCP upstreams for which explicit mode opens local listeners; each listen port once.
    pub upstreams: Vec<UpstreamOfWorkload>,
}

/// One port of a Workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortOfWorkload {
    /// Its name; may be empty.
    pub name: String,
    /// The number; never 0.
    pub port: u16,
    /// What the application speaks there, if declared.
    pub protocol: Protocol,
    /// Where the application listens, if not at the original destination address.
    pub app_address: Option<AppAddr>,
    /// Headers of the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// Its line.
    pub line: u32,
}

/// One TCP upstream of a Workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamOfWorkload {
    /// Port on the Workload's address where the application connects.
    pub listen_port: u16,
    /// Where to; the port is always there.
    pub host: Host,
    /// Its line.
    pub line: u32,
}

/// `gateway.networking.k8s.io/v1 HTTPRoute` or `GRPCRoute` with Service parents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRoute {
    /// Its name.
    pub name: Name,
    /// The Services that it is bound to.
    pub parents: Vec<ParentOfRoute>,
    /// Its rules.
    pub rules: Vec<RuleOfRoute>,
}

/// One Service that a route is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentOfRoute {
    /// The Service.
    pub service: Name,
    /// The only port that is meant; None: all ports.
    pub port: Option<u16>,
    /// Its line.
    pub line: u32,
}

/// One rule of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOfRoute {
    /// Conditions of which one must hold; empty: always.
    pub matches: Vec<RequestMatch>,
    /// What is done to matching requests.
    pub filters: Vec<FilterOfRoute>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Which failures are tried again.
    pub retry: Option<Retry>,
    /// Where matching requests go.
    pub backends: Vec<BackendOfRoute>,
    /// Its line.
    pub line: u32,
}

/// One filter of a rule or backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterOfRoute {
    /// What it does.
    pub action: FilterAction,
    /// Its line.
    pub line: u32,
}

/// What a filter does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterAction {
    /// Something that refers to no other object; never [`Filter::Mirror`].
    Own(Filter),
    /// Copies a share of the requests to a port of a Service.
    Mirror {
        /// The Service.
        service: Name,
        /// Its port.
        port: u16,
        /// The share.
        share: Share,
    },
    /// Answers as a TrafficPolicy of the route's namespace says.
    Respond(Arc<str>),
}

/// One weighted backend of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendOfRoute {
    /// The Service.
    pub service: Name,
    /// Its port.
    pub port: u16,
    /// Relative weight.
    pub weight: u32,
    /// What is done to its share of the requests.
    pub filters: Vec<FilterOfRoute>,
    /// Its line.
    pub line: u32,
}

/// `split.smi-spec.io/v1alpha4 TrafficSplit`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficSplit {
    /// Its name.
    pub name: Name,
    /// The root: the Service of its namespace that clients call.
    pub service: At<Arc<str>>,
    /// Where the calls go.
    pub backends: Vec<BackendOfSplit>,
    /// HTTPRouteGroups of its namespace that calls must match to be split; empty: all calls are.
    pub matches: Vec<At<Arc<str>>>,
}

/// One weighted backend of a split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendOfSplit {
    /// The Service, in the split's namespace.
    pub service: Arc<str>,
    /// Relative weight.
    pub weight: u32,
    /// Its line.
    pub line: u32,
}

/// `access.smi-spec.io/v1alpha3 TrafficTarget`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrafficTarget {
    /// Its name.
    pub name: Name,
    /// The ServiceAccount that is called, of the same namespace.
    pub destination: At<Name>,
    /// The ServiceAccounts that may call.
    pub sources: Vec<At<Name>>,
    /// What they may call.
    pub rules: Vec<RuleOfTarget>,
}

/// One rule of a TrafficTarget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleOfTarget {
    /// What kind of object `name` is.
    pub kind: SpecKind,
    /// Name of an object in the TrafficTarget's namespace.
    pub name: Arc<str>,
    /// Names of matches of the HTTPRouteGroup; empty: all.
    pub matches: Vec<At<String>>,
    /// Its line.
    pub line: u32,
}

/// What a rule of a TrafficTarget refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecKind {
    /// An HTTPRouteGroup.
    HttpRouteGroup,
    /// A TCPRoute.
    TcpRoute,
}

/// `specs.smi-spec.io/v1alpha4 HTTPRouteGroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRouteGroup {
    /// Its name.
    pub name: Name,
    /// Its matches by name, each name once.
    pub matches: Vec<(String, RequestMatch)>,
}

/// `specs.smi-spec.io/v1alpha4 TCPRoute`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpRoute {
    /// Its name.
    pub name: Name,
    /// The ports; empty: all.
    pub ports: Vec<u16>,
}
