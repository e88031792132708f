//! How calls to a Service are carried: what a TrafficPolicy (and a route's own timeouts and retries) asks for.
//! Plain data; what is done with it stands beside the state machines.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use crate::name::ObjectRef;

/// A share of calls, in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// All calls.
    pub const ALL: Self = Self(1_000_000);

    /// `numerator` of `denominator`; more than all counts as all, a denominator of 0 as none.
    #[must_use]
    pub fn of(numerator: u32, denominator: u32) -> Self {
        let parts = (u64::from(numerator) * 1_000_000).checked_div(u64::from(denominator)).unwrap_or(0);
        Self(u32::try_from(parts).unwrap_or(u32::MAX).min(Self::ALL.0))
    }

    /// In parts per million, 0 to 1,000,000.
    #[must_use]
    pub fn parts_per_million(self) -> u32 {
        self.0
    }

    /// True for this share of all values of `random`, which is uniform over all of u64.
    #[must_use]
    pub fn takes(self, random: u64) -> bool {
        ((u128::from(random) * 1_000_000) >> 64) < u128::from(self.0)
    }
}

/// The longest duration that can be asked for (GEP-2257: at most five digits of hours). Where a limit is switched off,
/// this takes its place.
pub const MAX_DURATION: Duration = Duration::from_secs(99_999 * 3600);

/// What holds for every call to a Service, whichever backend takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallSettings {
    /// The TrafficPolicy that says so; None: the defaults.
    pub object: Option<ObjectRef>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Which failures are tried again; None: only what provably never reached the application.
    pub retry: Option<Retry>,
    /// How many retries there may be.
    pub budget: RetryBudget,
    /// Faults that are injected.
    pub fault: Option<Fault>,
}

/// Time limits; None: the proxy's default, which for all but `connect` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// For the connection to an endpoint, its TLS handshake included.
    pub connect: Option<Duration>,
    /// From the request's head to the end of the response, retries included (Gateway API `timeouts.request`).
    pub request: Option<Duration>,
    /// For each try, until the response's head (Gateway API `timeouts.backendRequest`).
    pub per_try: Option<Duration>,
    /// Without a byte either way.
    pub idle: Option<Duration>,
    /// Longest life of a stream, an opaque connection or an upgraded one.
    pub stream: Option<Duration>,
}

impl Timeouts {
    /// These limits, and those of `other` where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            connect: self.connect.or(other.connect),
            request: self.request.or(other.request),
            per_try: self.per_try.or(other.per_try),
            idle: self.idle.or(other.idle),
            stream: self.stream.or(other.stream),
        }
    }
}

/// Which failures are tried again, beyond requests that provably never reached the application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first; 0 to [`Retry::MAX_RETRIES`].
    pub retries: u32,
    /// Conditions, of which one must hold.
    pub on: Vec<RetryOn>,
    /// True: also requests whose method is not idempotent (RFC 9110 section 9.2.2).
    pub non_idempotent: bool,
    /// Wait before the first retry; it doubles, up to `max_backoff`, with jitter.
    pub backoff: Option<Duration>,
    /// Longest wait between two tries.
    pub max_backoff: Option<Duration>,
}

impl Retry {
    /// Most retries of one request.
    pub const MAX_RETRIES: u32 = 10;
}

/// A failure that may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RetryOn {
    /// No connection to the endpoint.
    ConnectFailure,
    /// The connection or stream broke before the response's head.
    Reset,
    /// The try took longer than its limit.
    Timeout,
    /// This status of the response, 400 to 599.
    Status(u16),
    /// Any status of 500 to 599.
    ServerError,
    /// This status of a gRPC response without messages (grpc/doc/statuscodes.md), 1 to 16.
    Grpc(u8),
}

/// How many retries there may be, so that retries cannot multiply an overload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries as a share of the requests of the last `interval`.
    pub share: Share,
    /// Retries per second that are always allowed.
    pub min_per_second: u32,
    /// What is looked back on.
    pub interval: Duration,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { share: Share::of(20, 100), min_per_second: 10, interval: Duration::from_secs(10) }
    }
}

/// Faults that are injected into calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// A delay before the call is sent, for a share of the calls.
    pub delay: Option<(Share, Duration)>,
    /// An answer in place of the call, for a share of the calls.
    pub abort: Option<(Share, Abort)>,
}

/// How a call is aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// With this HTTP status, 400 to 599; gRPC callers get the status that it maps to.
    Http(u16),
    /// With this gRPC status, 1 to 16; other callers get HTTP 503.
    Grpc(u8),
}

/// How calls are spread over the endpoints of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendSettings {
    /// The TrafficPolicy that says so; None: the defaults.
    pub object: Option<ObjectRef>,
    /// Which endpoint takes a call.
    pub balance: Balance,
    /// Time over which a new endpoint's share of calls grows to its full size; None: at once.
    pub slow_start: Option<Duration>,
    /// Whether endpoints nearby are preferred.
    pub locality: Locality,
    /// What one proxy may have in use at a time.
    pub breaker: Breaker,
    /// Endpoints that fail are left out for a while; None: never.
    pub outlier: Option<Outlier>,
    /// Endpoints are asked whether they work; None: never.
    pub health: Option<HealthCheck>,
}

/// Which endpoint takes a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// The better of two at random, by latency and requests in flight.
    #[default]
    PeakEwma,
    /// The better of two at random, by requests in flight.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any.
    Random,
    /// By a key of the call, on a ring of hashes.
    RingHash(HashKey),
    /// By a key of the call, on a Maglev table (Eisenbud et al. 2016).
    Maglev(HashKey),
}

/// What a call is hashed by. A call without the key goes to a random endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The value of this header field.
    Header(HeaderName),
    /// The value of a cookie of this name.
    Cookie {
        /// Its name.
        name: Arc<str>,
        /// The proxy sets the cookie where it is missing, with this life; zero: for the session.
        ttl: Option<Duration>,
        /// Its path; empty: none.
        path: Arc<str>,
    },
    /// The caller's IP address.
    SourceIp,
}

impl HashKey {
    /// True for what may be the name of a cookie (RFC 6265 section 4.1.1: a token).
    #[must_use]
    pub fn is_cookie_name(text: &str) -> bool {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !text.is_empty() && text.bytes().all(token)
    }

    /// True for what may be the path of a cookie that is to have one.
    #[must_use]
    pub fn is_cookie_path(text: &str) -> bool {
        text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b';')
    }
}

/// Whether endpoints nearby are preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Locality {
    /// All endpoints are equal.
    #[default]
    Ignore,
    /// Those of the proxy's own zone, as long as enough of them are healthy; then the others (Kubernetes
    /// `trafficDistribution: PreferSameZone`).
    PreferZone,
}

/// What one proxy may have in use at a time towards one Service; None: no limit but the proxy's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// Connections.
    pub connections: Option<u32>,
    /// Requests that wait for a connection.
    pub pending: Option<u32>,
    /// Requests in flight.
    pub requests: Option<u32>,
}

/// When an endpoint is left out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Failures in a row (5xx made by the application or its proxy, resets, timeouts, no connection); None: not counted.
    pub consecutive: Option<u32>,
    /// Least share of successes in an interval; None: not looked at.
    pub success_rate: Option<Share>,
    /// Calls in an interval below which the success rate of an endpoint says nothing.
    pub min_requests: u32,
    /// Length of an interval.
    pub interval: Duration,
    /// How long an endpoint is left out the first time; each further time adds as much, up to `max_ejection`.
    pub ejection: Duration,
    /// Longest time that an endpoint is left out.
    pub max_ejection: Duration,
    /// Most endpoints that are left out at a time; one is always kept.
    pub max_ejected: Share,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive: Some(5),
            success_rate: None,
            min_requests: 20,
            interval: Duration::from_secs(10),
            ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: Share::of(50, 100),
        }
    }
}

/// How endpoints are asked whether they work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub kind: HealthKind,
    /// Time between two checks of an endpoint.
    pub interval: Duration,
    /// Longest time for an answer.
    pub timeout: Duration,
    /// Failures in a row after which an endpoint gets no more calls.
    pub unhealthy: u32,
    /// Successes in a row after which it gets calls again.
    pub healthy: u32,
}

impl HealthCheck {
    /// Most failures or successes in a row.
    pub const MAX_IN_A_ROW: u32 = 100;
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// Whether a connection (with mesh TLS where the endpoint has an identity) can be made.
    Tcp,
    /// Whether `GET` of this path is answered with a status of 200 to 399.
    Http(Arc<str>),
    /// `grpc.health.v1.Health/Check` of this service; empty: of the whole server.
    Grpc(Arc<str>),
}

/// What a workload's proxy lets in at a time, besides policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InboundLimits {
    /// Rates; each must hold.
    pub rates: Vec<RateLimit>,
    /// Requests at a time, adapted to what the application can bear; None: not limited.
    pub concurrency: Option<AdaptiveConcurrency>,
}

impl InboundLimits {
    /// Most rates of one port.
    pub const MAX_RATES: usize = 64;
}

/// A local rate limit (token bucket). What exceeds it gets 429 with `Retry-After`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The object that asks for it.
    pub object: ObjectRef,
    /// What is counted together.
    pub per: RateKey,
    /// Requests in an interval, at least 1.
    pub requests: u32,
    /// Length of an interval.
    pub interval: Duration,
    /// Requests that may come at once, at least 1.
    pub burst: u32,
}

/// What a rate limit counts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    /// All requests to the port.
    Total,
    /// Requests of one caller, by its SPIFFE ID; callers without one count as one.
    Identity,
    /// Requests with the same value of this header field; requests without it are not limited.
    Header(HeaderName),
}

/// A limit of requests in flight that follows the application's latency (gradient).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptiveConcurrency {
    /// The object that asks for it.
    pub object: ObjectRef,
    /// Smallest limit, at least 1.
    pub min: u32,
    /// Largest limit.
    pub max: u32,
}
