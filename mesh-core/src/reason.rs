//! Why the mesh did what it did: one closed set of stable codes.
//!
//! A response that a proxy made carries `mesh-reason: CODE`; metrics, logs and `meshctl` use the same codes.

use http::StatusCode;

/// Header of responses that a proxy made: the reason's code alone.
pub const REASON_HEADER: &str = "mesh-reason";
/// Header that tells an application who calls it: the caller's SPIFFE ID. Set by inbound, forgeries are stripped.
pub const CLIENT_ID_HEADER: &str = "mesh-client-id";
/// Header between proxies: milliseconds until the caller gives up. Never reaches an application.
pub const TIMEOUT_HEADER: &str = "mesh-timeout";
/// Header between proxies, of a response that a proxy made: the application never saw the request, which may be sent
/// elsewhere. Believed over mesh TLS only, and stripped from what applications say.
pub const UNPROCESSED_HEADER: &str = "mesh-unprocessed";
/// Prefix of all headers that belong to the mesh; from applications and strangers they are stripped.
pub const HEADER_PREFIX: &str = "mesh-";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $grpc:ident, $hint:literal;)+) => {
        /// Why the mesh refused, ended or could not serve a call.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// All reasons, in the order of their index.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable code.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// Status of the HTTP response that a proxy makes.
            #[must_use]
            pub fn http_status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// Status of the gRPC response that a proxy makes.
            #[must_use]
            pub fn grpc_status(self) -> GrpcStatus {
                match self { $(Self::$name => GrpcStatus::$grpc,)+ }
            }

            /// What the reader can do about it.
            #[must_use]
            pub fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)+ }
            }
        }
    };
}

reasons! {
    /// Policy does not let this caller do this.
    AuthzDenied = "AUTHZ_DENIED", FORBIDDEN, PermissionDenied,
        "allow the caller with a TrafficTarget for the destination's service account";
    /// The caller has no mesh identity and the destination wants one.
    TlsRequired = "TLS_REQUIRED", FORBIDDEN, Unauthenticated,
        "put a proxy beside the caller, or set meshctl.dev/mtls: permissive on the destination's namespace";
    /// The peer's certificate names another identity than the one expected.
    IdentityMismatch = "IDENTITY_MISMATCH", BAD_GATEWAY, Unavailable,
        "the address is held by another workload: check the Workload's address and service account";
    /// The TLS handshake with the peer failed.
    TlsHandshakeFailed = "TLS_HANDSHAKE_FAILED", BAD_GATEWAY, Unavailable,
        "check certificates and clocks on both sides with meshctl check";
    /// The controller could not be asked about the destination.
    DiscoveryUnavailable = "DISCOVERY_UNAVAILABLE", SERVICE_UNAVAILABLE, Unavailable,
        "is mesh-controller running and reachable? See meshctl check";
    /// The host names nothing that the mesh knows.
    UnknownDestination = "UNKNOWN_DESTINATION", NOT_FOUND, Unimplemented,
        "check the host name and port; a Service is reached as svc, svc.ns or svc.ns.svc.cluster.local";
    /// Routes exist for the Service and none matches the request.
    RouteNotMatched = "ROUTE_NOT_MATCHED", NOT_FOUND, Unimplemented,
        "add a rule that matches the request, or one without conditions, to the Service's routes";
    /// The chosen backend does not exist, or all weights are 0.
    BackendInvalid = "BACKEND_INVALID", INTERNAL_SERVER_ERROR, Unavailable,
        "the route names a Service or port that does not exist, or its weights sum to 0";
    /// The chosen Service has no endpoint that takes traffic.
    NoHealthyEndpoint = "NO_HEALTHY_ENDPOINT", SERVICE_UNAVAILABLE, Unavailable,
        "does the Service's selector match a running Workload with that port?";
    /// The endpoint did not answer in time while connecting.
    UpstreamConnectTimeout = "UPSTREAM_CONNECT_TIMEOUT", GATEWAY_TIMEOUT, Unavailable,
        "is the endpoint's host up and reachable?";
    /// The endpoint refused the connection.
    UpstreamConnectFailed = "UPSTREAM_CONNECT_FAILED", BAD_GATEWAY, Unavailable,
        "is the endpoint's proxy running?";
    /// The application beside the proxy does not take connections.
    AppUnavailable = "APP_UNAVAILABLE", BAD_GATEWAY, Unavailable,
        "is the application running, and does it listen on the declared port or appAddress?";
    /// The upstream broke the connection before the response was complete.
    UpstreamReset = "UPSTREAM_RESET", BAD_GATEWAY, Unavailable,
        "the application closed the connection: see its log";
    /// The upstream's bytes are not the protocol that was declared.
    UpstreamProtocolError = "UPSTREAM_PROTOCOL_ERROR", BAD_GATEWAY, Internal,
        "does the port speak what its appProtocol says?";
    /// The caller went away before the response was complete.
    ClientDisconnected = "CLIENT_DISCONNECTED", BAD_REQUEST, Cancelled,
        "the caller closed the connection or cancelled the request";
    /// The request is malformed or ambiguous.
    BadRequest = "BAD_REQUEST", BAD_REQUEST, InvalidArgument,
        "the request does not follow RFC 9110/9112/9113";
    /// The request's head or body took too long to come, and no response had begun.
    RequestStalled = "REQUEST_STALLED", REQUEST_TIMEOUT, Cancelled,
        "the caller began a request and went silent: see its log, or raise --head-timeout or --body-idle";
    /// The connection does not begin with a PROXY protocol header, or with a malformed one.
    ProxyHeaderInvalid = "PROXY_HEADER_INVALID", BAD_REQUEST, InvalidArgument,
        "the port declares proxyProtocol: accept: let the load balancer send that header, or take the option away";
    /// The path can be read in more than one way and a rule matches on paths.
    PathAmbiguous = "PATH_AMBIGUOUS", BAD_REQUEST, InvalidArgument,
        "send the path without encoded slashes, backslashes or NUL";
    /// Something in the request is larger than allowed.
    LimitExceeded = "LIMIT_EXCEEDED", REQUEST_HEADER_FIELDS_TOO_LARGE, ResourceExhausted,
        "send smaller headers, or fewer of them";
    /// Too many connections.
    TooManyConnections = "TOO_MANY_CONNECTIONS", SERVICE_UNAVAILABLE, ResourceExhausted,
        "raise the proxy's connection limit, or use fewer connections";
    /// The request would come back to the proxy that sends it.
    LoopDetected = "LOOP_DETECTED", LOOP_DETECTED, Unavailable,
        "the destination is a port of the mesh itself";
    /// The proxy is shutting down.
    ShuttingDown = "SHUTTING_DOWN", SERVICE_UNAVAILABLE, Unavailable,
        "try again: another endpoint will answer";
    /// The peer's certificate expired, or its root was withdrawn, while the connection stood.
    PeerNotTrusted = "PEER_NOT_TRUSTED", BAD_GATEWAY, Unavailable,
        "connections are made anew; if this repeats, check that the peer's proxy reaches the controller and renews its certificate";
    /// The time for the request was over before its response was complete.
    RequestTimeout = "REQUEST_TIMEOUT", GATEWAY_TIMEOUT, DeadlineExceeded,
        "the callee is slow, or the timeout of the route, TrafficPolicy or caller is too short";
    /// As many connections, waiting requests or requests as allowed are under way to the Service.
    CircuitOpen = "CIRCUIT_OPEN", SERVICE_UNAVAILABLE, Unavailable,
        "the Service is slow or the limits of its TrafficPolicy are too low";
    /// The callee takes no more requests at this rate.
    RateLimited = "RATE_LIMITED", TOO_MANY_REQUESTS, ResourceExhausted,
        "wait as long as Retry-After says, or raise the rate limit of the callee's TrafficPolicy";
    /// The callee has as many requests in flight as it can bear.
    Overloaded = "OVERLOADED", SERVICE_UNAVAILABLE, Unavailable,
        "add workloads to the Service; its TrafficPolicy bounds what one takes at a time";
    /// Nothing was sent either way for as long as the route or TrafficPolicy allows.
    IdleTimeout = "IDLE_TIMEOUT", GATEWAY_TIMEOUT, Unavailable,
        "connect again; let the application send something from time to time, or raise the idle timeout";
    /// A TrafficPolicy injects this fault.
    FaultInjected = "FAULT_INJECTED", SERVICE_UNAVAILABLE, Unavailable,
        "remove the fault from the Service's TrafficPolicy when the experiment is over";
    /// The request asks for what this proxy does not do.
    Unsupported = "UNSUPPORTED", NOT_IMPLEMENTED, Unimplemented,
        "send CONNECT over HTTP/1.1, to a port that speaks HTTP/1";
}

impl Reason {
    /// Number of this reason, dense from 0: an index for per-reason counters.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Reads a code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.code() == code)
    }
}

/// Status codes of gRPC (grpc/doc/statuscodes.md), those that the mesh uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GrpcStatus {
    /// The caller cancelled.
    Cancelled = 1,
    /// The request is malformed.
    InvalidArgument = 3,
    /// The deadline is over.
    DeadlineExceeded = 4,
    /// The caller may not do this.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// Nothing serves this.
    Unimplemented = 12,
    /// A fault of the server.
    Internal = 13,
    /// Not available now.
    Unavailable = 14,
    /// The caller did not say who it is.
    Unauthenticated = 16,
}
