//! What the demo claims, checked against what everybody counted. Pure.

mod agreement;
#[cfg(test)]
mod tests;

use mesh_core::reason::{GrpcStatus, Reason};
use serde::Serialize;

use super::{
    counts::{Batch, Counts, Load},
    layout::{BATCH, CART, CATALOG_V1, CATALOG_V2, MEMBERS, STOREFRONT},
    metrics::{Edge, sum},
};

/// Fewest requests that the demo must have sent through sidecars.
const MIN_REQUESTS: u64 = 2_000;
/// How far a split may be off its weights, in standard deviations of the binomial distribution.
const SIGMAS: f64 = 5.0;

/// Requests under one split.
#[derive(Clone, Debug, Default)]
pub(crate) struct Phase {
    /// Percent of the requests that version 1 of the catalog is to get.
    pub(crate) percent_v1: u32,
    /// What the generator of load counted.
    pub(crate) load: Load,
    /// What everybody else counted meanwhile.
    pub(crate) counts: Counts,
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    /// Before and after the split was moved.
    pub(crate) phases: Vec<Phase>,
    /// From the first request to the last.
    pub(crate) whole: Counts,
    /// What the batch job was told.
    pub(crate) batch: Batch,
    /// What everybody counted while it ran.
    pub(crate) batch_counts: Counts,
    /// What was still there after all was stopped, and what did not stop as it should.
    pub(crate) left: Vec<String>,
}

/// One claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// Stable name.
    pub(crate) name: &'static str,
    /// Whether it holds.
    pub(crate) holds: bool,
    /// The numbers.
    pub(crate) detail: String,
}

impl Check {
    fn new(name: &'static str, holds: bool, detail: impl Into<String>) -> Self {
        Self { name, holds, detail: detail.into() }
    }
}

/// Checks everything that the demo claims.
pub(crate) fn all(evidence: &Evidence) -> Vec<Check> {
    let mut checks = vec![traffic(&evidence.phases)];
    checks.extend(evidence.phases.iter().map(split));
    checks.extend(agreement::checks(evidence));
    checks.push(callers(&evidence.whole));
    checks.push(secured(&evidence.whole));
    checks.push(denied(evidence));
    checks.push(Check::new(
        "nothing left",
        evidence.left.is_empty(),
        match evidence.left.as_slice() {
            [] => "all processes, listeners and files are gone".to_owned(),
            left => left.join("; "),
        },
    ));
    checks
}

/// Enough requests, and all of them answered.
fn traffic(phases: &[Phase]) -> Check {
    let requests: u64 = phases.iter().map(|phase| phase.load.requests).sum();
    let failed: u64 = phases.iter().map(|phase| phase.load.failed).sum();
    let slowest = phases.iter().map(|phase| phase.load.latency_micros.p99).max().unwrap_or(0);
    let errors: Vec<&str> = phases.iter().flat_map(|phase| &phase.load.errors).map(String::as_str).collect();
    let mut detail = format!("{requests} requests, {failed} failed, p99 {:.1} ms", slowest as f64 / 1000.0);
    if let Some(first) = errors.first() {
        detail = format!("{detail}; the first error: {first}");
    }
    Check::new("traffic", requests >= MIN_REQUESTS && failed == 0, detail)
}

/// The split, as the load, the applications and the caller's sidecar counted it.
fn split(phase: &Phase) -> Check {
    let name = if phase.percent_v1 == 50 { "split 50/50" } else { "split 90/10" };
    let version = |version: &str| phase.load.versions.get(version).copied().unwrap_or(0);
    let app = |workload: &str| phase.counts.app(workload).total();
    let sidecar = phase.counts.proxy(STOREFRONT.name);
    let backend = |backend: &str| {
        sum(&sidecar.requests, |edge| {
            edge.direction == "outbound" && edge.backend == backend && edge.reason.is_empty()
        })
    };
    let seen = [
        ("pages", version("v1"), version("v2")),
        ("apps", app(CATALOG_V1.name), app(CATALOG_V2.name)),
        ("sidecar", backend(CATALOG_V1.name), backend(CATALOG_V2.name)),
    ];
    let holds = seen.iter().all(|&(_, v1, v2)| within(v1, v1 + v2, phase.percent_v1));
    let detail: Vec<String> = seen.iter().map(|(who, v1, v2)| format!("{who} {v1}/{v2}")).collect();
    Check::new(name, holds, detail.join(", "))
}

/// True when `hits` of `all` is at most [`SIGMAS`] standard deviations off `percent`.
fn within(hits: u64, all: u64, percent: u32) -> bool {
    let (share, all) = (f64::from(percent) / 100.0, all as f64);
    let sigma = (all * share * (1.0 - share)).sqrt();
    all > 0.0 && (hits as f64 - all * share).abs() <= SIGMAS * sigma
}

/// Applications were told by their sidecars who called them.
fn callers(whole: &Counts) -> Check {
    let expected = [
        (STOREFRONT.name, "load"),
        (CATALOG_V1.name, STOREFRONT.account),
        (CATALOG_V2.name, STOREFRONT.account),
        (CART.name, STOREFRONT.account),
    ];
    let wrong: Vec<String> = expected
        .into_iter()
        .filter_map(|(workload, caller)| {
            let app = whole.app(workload);
            let (by, total) = (app.by(caller), app.total());
            (by != total || total == 0)
                .then(|| format!("{workload}: {by} of {total} requests came from {caller}"))
        })
        .collect();
    let detail = match wrong.as_slice() {
        [] => "each app was told the SPIFFE ID of its caller with every request".to_owned(),
        wrong => wrong.join("; "),
    };
    Check::new("callers named", wrong.is_empty(), detail)
}

/// Each edge went over mesh TLS, and the sidecars at both its ends say so.
fn secured(whole: &Counts) -> Check {
    let all = |pick: fn(&Edge) -> bool| {
        whole
            .proxies
            .values()
            .flat_map(|proxy| proxy.requests.iter().chain(&proxy.connections))
            .filter(move |(e, _)| pick(e))
    };
    let mut wrong: Vec<String> = all(|edge| !edge.secured)
        .map(|(edge, n)| {
            format!("{} {} -> {}: {n} in plaintext", edge.direction, name(&edge.source), name(&edge.workload))
        })
        .collect();
    let edges = [("load", "storefront"), ("storefront", "catalog-v1"), ("storefront", "catalog-v2")]
        .into_iter()
        .chain([("storefront", "cart"), ("cart", "inventory")]);
    let mut seen = 0;
    for (source, workload) in edges {
        for direction in ["outbound", "inbound"] {
            let found = whole
                .proxies
                .values()
                .flat_map(|proxy| proxy.requests.keys().chain(proxy.connections.keys()))
                .any(|edge| {
                    edge.secured
                        && edge.direction == direction
                        && edge.source == source
                        && edge.workload == workload
                });
            match found {
                true => seen += 1,
                false => wrong.push(format!("{direction} {source} -> {workload}: nobody saw mesh TLS")),
            }
        }
    }
    let detail = match wrong.as_slice() {
        [] => format!("mutual TLS on all 5 edges, seen by {seen} sidecar counters; nothing in plaintext"),
        wrong => wrong.join("; "),
    };
    Check::new("secured", wrong.is_empty(), detail)
}

fn name(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

/// The batch job was refused, by cart's sidecar, for the right reason, and cart itself never heard of it.
fn denied(evidence: &Evidence) -> Check {
    let Evidence { batch, batch_counts, .. } = evidence;
    let code = Reason::AuthzDenied.code();
    let sidecar = batch_counts.proxy(CART.name);
    let from_batch = |edge: &Edge| edge.direction == "inbound" && edge.source == BATCH.account;
    let refused = sum(&sidecar.requests, |edge| from_batch(edge) && edge.reason == code);
    let let_in = sum(&sidecar.requests, |edge| from_batch(edge) && edge.reason.is_empty());
    let reached =
        batch_counts.app(CART.name).by(BATCH.account) + evidence.whole.app(CART.name).by(BATCH.account);
    let grpc = (GrpcStatus::PermissionDenied as u16).to_string();
    let told =
        batch.grpc_status.as_deref() == Some(grpc.as_str()) && batch.mesh_reason.as_deref() == Some(code);
    let detail = format!(
        "batch -> cart: HTTP {}, grpc-status {}, mesh-reason {}; cart's sidecar refused {refused} and let in {let_in}; \
         cart itself saw {reached}",
        batch.status,
        batch.grpc_status.as_deref().unwrap_or("none"),
        batch.mesh_reason.as_deref().unwrap_or("none"),
    );
    Check::new("denied", told && refused == 1 && let_in == 0 && reached == 0, detail)
}

/// True when `MEMBERS` all have a sidecar that gave counters: an empty page would agree with everything.
pub(crate) fn complete(counts: &Counts) -> bool {
    MEMBERS.iter().all(|member| counts.proxies.contains_key(member.name))
}
