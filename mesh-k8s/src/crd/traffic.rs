//! TrafficPolicy.

use mesh_core::{
    filter::Respond,
    settings::{HealthCheck, Retry},
};

use super::{
    mesh::limit,
    schema::{Schema, choice, duration, flag, integer, label, list, long_text, object, percent, port, text},
};

/// Largest counts, as the reader has them.
const MAX_REQUESTS: u32 = 1_000_000_000;
const MAX_COUNT: u32 = 1_000_000;

/// Names of gRPC statuses.
const GRPC_CODES: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub(super) fn policy() -> Schema {
    let target = object([
        (
            "group",
            choice(&["", "core", "meshctl.dev"])
                .about("Empty for a Service, meshctl.dev for an ExternalService."),
        ),
        ("kind", choice(&["Service", "ExternalService"])),
        ("name", label()),
        ("port", port().about("One of its ports; default: all.")),
    ]);
    object([
        (
            "targetRef",
            target.required(&["name"]).about("Calls to which Service, of the policy's own namespace."),
        ),
        ("directResponse", respond()),
        ("timeouts", timeouts()),
        ("retry", retry()),
        ("retryBudget", budget()),
        ("faults", faults()),
        ("loadBalancing", load_balancing()),
        ("circuitBreaker", breaker()),
        ("outlierDetection", outlier()),
        ("healthCheck", health()),
        ("rateLimits", list(rate(), 16).about("How much each server takes.")),
        (
            "adaptiveConcurrency",
            object([("min", integer(1, MAX_REQUESTS)), ("max", integer(1, MAX_REQUESTS))])
                .about("Bounds of a limit of concurrent requests that follows the latency that is seen."),
        ),
    ])
    .one_of(&["targetRef", "directResponse"])
    .about("How calls to one Service are carried, or an answer for routes that name the policy.")
}

fn respond() -> Schema {
    object([
        ("status", integer(200, 599)),
        ("body", long_text(Respond::MAX_BODY)),
        ("contentType", text().about("The media type of the body.")),
    ])
    .required(&["status"])
    .about("What routes answer that name this policy as a filter.")
}

fn timeouts() -> Schema {
    object([
        ("connect", duration().about("Longest time to connect.")),
        ("request", limit("Longest time for a request and its answer, with all retries.")),
        ("backendRequest", limit("Longest time for one try.")),
        ("idle", limit("Longest time without a byte.")),
        ("stream", limit("Longest life of a stream or an opaque connection.")),
    ])
}

fn retry() -> Schema {
    object([
        ("attempts", integer(0, Retry::MAX_RETRIES).about("Most retries; default 1.")),
        ("conditions", conditions().about("What is tried again.")),
        ("on", conditions().about("The older name of conditions; it needs quotes.")),
        ("codes", list(integer(400, 599), 200).about("Statuses that are tried again.")),
        ("grpcCodes", list(choice(&GRPC_CODES), 16).about("gRPC statuses that are tried again.")),
        ("nonIdempotent", flag().about("Also requests that are not safe to repeat, such as POST.")),
        ("backoff", duration().about("Wait before the first retry.")),
        ("maxBackoff", duration()),
    ])
}

fn conditions() -> Schema {
    list(choice(&["ConnectFailure", "Reset", "Timeout", "ServerError"]), 4)
}

fn budget() -> Schema {
    object([
        ("percent", percent().about("Most retries, as a share of requests.")),
        ("minPerSecond", integer(0, MAX_COUNT).about("Retries that are always allowed.")),
        ("interval", duration()),
    ])
}

fn faults() -> Schema {
    object([
        (
            "delay",
            object([("percent", percent()), ("duration", duration())]).required(&["percent", "duration"]),
        ),
        (
            "abort",
            object([
                ("percent", percent()),
                ("status", integer(400, 599)),
                ("grpcStatus", choice(&GRPC_CODES)),
            ])
            .required(&["percent"])
            .one_of(&["status", "grpcStatus"]),
        ),
    ])
    .about("Mistakes that are made on purpose, to see what callers make of them.")
}

fn load_balancing() -> Schema {
    let cookie = object([("name", text()), ("ttl", duration()), ("path", text())]);
    let key = object([
        ("header", text().about("The name of a header.")),
        ("cookie", cookie.required(&["name"])),
        ("sourceIP", flag()),
    ]);
    let algorithms = ["PeakEWMA", "LeastRequest", "RoundRobin", "Random", "RingHash", "Maglev"];
    object([
        ("algorithm", choice(&algorithms).about("Default: PeakEWMA.")),
        ("hashOn", key.one_of(&["header", "cookie", "sourceIP"])),
        ("slowStart", duration().about("How long a new endpoint takes to get its full share.")),
        ("locality", choice(&["Ignore", "PreferSameZone"])),
    ])
    .rule(
        "has(self.hashOn) == (has(self.algorithm) && self.algorithm in ['RingHash', 'Maglev'])",
        "hashOn goes with algorithm RingHash or Maglev, and only with these",
    )
}

fn breaker() -> Schema {
    object([
        ("maxConnections", integer(1, MAX_COUNT)),
        ("maxPendingRequests", integer(0, MAX_COUNT)),
        ("maxRequests", integer(1, MAX_COUNT)),
    ])
}

fn outlier() -> Schema {
    object([
        ("consecutiveFailures", integer(0, 1000).about("0: not counted.")),
        ("minSuccessPercent", percent()),
        ("minRequests", integer(0, MAX_COUNT)),
        ("interval", duration()),
        ("ejectionTime", duration()),
        ("maxEjectionTime", duration()),
        ("maxEjectedPercent", percent()),
    ])
}

fn health() -> Schema {
    object([
        ("tcp", object([])),
        ("http", object([("path", text())]).required(&["path"])),
        ("grpc", object([("service", text())])),
        ("interval", duration()),
        ("timeout", duration()),
        ("unhealthyThreshold", integer(1, HealthCheck::MAX_IN_A_ROW)),
        ("healthyThreshold", integer(1, HealthCheck::MAX_IN_A_ROW)),
    ])
    .one_of(&["tcp", "http", "grpc"])
}

fn rate() -> Schema {
    object([
        ("per", choice(&["Total", "Identity", "Header"]).about("Default: Total.")),
        ("header", text().about("The header, for per: Header.")),
        ("requests", integer(1, MAX_REQUESTS)),
        ("interval", duration()),
        ("burst", integer(1, MAX_REQUESTS).about("Default: requests.")),
    ])
    .required(&["requests", "interval"])
    .rule(
        "has(self.header) == (has(self.per) && self.per == 'Header')",
        "header goes with per: Header, and only with that",
    )
}
