//! Traffic: what both sides of each call reported becomes one record a call. Pure.
//!
//! A call between two proxies is reported twice: by the caller's (outbound) and by the callee's (inbound). The caller's
//! report counts, for it knows the route and the latency that the application saw; the callee's confirms that the call
//! was secured and adds the reasons that only it knows. Calls from outside the mesh, and calls whose caller's proxy does
//! not report, are counted by the callee's report. *Invariant:* no call is counted twice.

mod stats;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use mesh_core::{
    edge::{Direction, EdgeKey, EdgeTotals},
    identity::SpiffeId,
    name::{ServicePort, WorkloadRef},
    protocol::Protocol,
};

pub(crate) use stats::{Numbers, Stats};

/// One edge, as one proxy counted it.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The proxy that reports.
    pub(crate) reporter: WorkloadRef,
    /// Which edge.
    pub(crate) key: EdgeKey,
    /// What happened there.
    pub(crate) totals: EdgeTotals,
    /// Time in which it happened, in milliseconds.
    pub(crate) covered_millis: u64,
}

/// Who says that a call was encrypted and that both ends proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Secured {
    /// Both proxies.
    Both,
    /// The caller's; the callee's has not reported yet.
    Caller,
    /// The callee's; the caller's has not reported.
    Callee,
    /// Nobody: plaintext.
    No,
    /// No peer was reached, so that there was nothing to secure.
    Unreached,
}

impl Secured {
    /// True when at least one side saw mesh TLS and none saw plaintext.
    pub(crate) fn is_secured(self) -> bool {
        matches!(self, Self::Both | Self::Caller | Self::Callee)
    }

    /// Name in tables and documents.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Both => "yes",
            Self::Caller => "caller",
            Self::Callee => "callee",
            Self::No => "no",
            Self::Unreached => "-",
        }
    }
}

/// Calls of one kind from one identity to one workload.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    /// The caller; None: without identity, so from outside the mesh.
    pub(crate) source: Option<SpiffeId>,
    /// The callee; None: without identity, or none was reached.
    pub(crate) destination: Option<SpiffeId>,
    /// The Service port that was called.
    pub(crate) service: Option<ServicePort>,
    /// The Service port that the route chose.
    pub(crate) backend: Option<ServicePort>,
    /// The workload that served.
    pub(crate) workload: Option<WorkloadRef>,
    /// What was spoken.
    pub(crate) protocol: Protocol,
    /// Who says that it was secured.
    pub(crate) secured: Secured,
    /// What was counted.
    pub(crate) stats: Stats,
}

/// What tells one flow from another, on one side: the reporting proxy and the rule do not.
type FlowKey = (
    Option<SpiffeId>,
    Option<SpiffeId>,
    Option<ServicePort>,
    Option<ServicePort>,
    Option<WorkloadRef>,
    Protocol,
    bool,
);

/// Brings both sides' reports together: one flow for each, each call counted once.
pub(crate) fn flows(reports: &[Report]) -> Vec<Flow> {
    flows_where(reports, |_| true)
}

/// As [`flows`], of reports that leave some out. Where `whole` is false of a callee's flow, other callers than those
/// that are reported have a share in it: it then confirms that calls were secured, but its counts are not used.
pub(crate) fn flows_where(reports: &[Report], whole: impl Fn(&Flow) -> bool) -> Vec<Flow> {
    let mut flows = side(reports, Direction::Outbound);
    let callers = flows.len();
    for callee in side(reports, Direction::Inbound) {
        let seen = flows.get_mut(..callers).unwrap_or_default();
        if !confirm(seen, &callee, whole(&callee)) {
            flows.push(callee);
        }
    }
    flows
}

/// One side's reports, those without any activity left out.
fn side(reports: &[Report], direction: Direction) -> Vec<Flow> {
    let mut merged: BTreeMap<FlowKey, Stats> = BTreeMap::new();
    for report in reports.iter().filter(|report| report.key.direction == direction) {
        let stats = Stats::of(&report.totals, report.covered_millis, report.key.secured);
        if stats.is_idle() {
            continue;
        }
        let key = &report.key;
        let merged_key = (
            key.source.clone(),
            key.destination.clone(),
            key.service.clone(),
            key.backend.clone(),
            key.destination_workload.clone(),
            key.protocol,
            key.secured,
        );
        merged.entry(merged_key).or_default().add(&stats);
    }
    let flow =
        |((source, destination, service, backend, workload, protocol, secured), stats): (FlowKey, Stats)| {
            let reached = destination.is_some() || workload.is_some();
            // Nothing was reached when the proxy itself ended every call.
            let unreached = !reached && stats.requests > 0 && stats.refused() >= stats.requests;
            let secured = match (direction, secured) {
                (Direction::Outbound, true) => Secured::Caller,
                (Direction::Inbound, true) => Secured::Callee,
                (Direction::Outbound, false) if unreached => Secured::Unreached,
                (_, false) => Secured::No,
            };
            Flow { source, destination, service, backend, workload, protocol, secured, stats }
        };
    merged.into_iter().map(flow).collect()
}

/// Looks for the callers' flows that hold the same calls as `callee`, and notes what the callee says there; its counts
/// only when it is `whole`, so when it holds no other calls.
/// False when there are none: then the callee's report is the only one.
fn confirm(callers: &mut [Flow], callee: &Flow, whole: bool) -> bool {
    if callee.source.is_none() {
        return false;
    }
    let mut same: Vec<&mut Flow> = callers.iter_mut().filter(|caller| caller.is_same_call(callee)).collect();
    for caller in &mut same {
        match (caller.secured, callee.secured.is_secured()) {
            (Secured::Caller, true) => caller.secured = Secured::Both,
            (Secured::Caller | Secured::Both, false) => caller.secured = Secured::No,
            _ => {}
        }
    }
    // Several routes may lead to one workload: what the callee knows goes to the one it most likely belongs to.
    let likely = |caller: &&mut Flow| {
        let service = callee.service.is_some();
        let by_backend = service && caller.backend == callee.service;
        let by_service = service && caller.service == callee.service;
        (by_backend, by_service, caller.protocol == callee.protocol, caller.stats.requests)
    };
    match same.into_iter().max_by_key(likely) {
        Some(caller) => {
            if whole {
                caller.stats.confirm(&callee.stats);
            }
            true
        }
        None => false,
    }
}

impl Flow {
    /// True when the callee's flow `callee` may hold the calls of this caller's flow.
    fn is_same_call(&self, callee: &Self) -> bool {
        let peer = match (&self.workload, &callee.workload) {
            (Some(a), Some(b)) => a == b,
            _ => self.destination.is_some() && self.destination == callee.destination,
        };
        self.source == callee.source && peer
    }
}

/// Adds up flows by whatever `keys` says they count for; a flow counts once for each different key.
pub(crate) fn group<K: Ord>(flows: &[Flow], keys: impl Fn(&Flow) -> Vec<K>) -> BTreeMap<K, Stats> {
    let mut groups: BTreeMap<K, Stats> = BTreeMap::new();
    for flow in flows {
        let mut keys = keys(flow);
        keys.sort();
        keys.dedup();
        for key in keys {
            groups.entry(key).or_default().add(&flow.stats);
        }
    }
    groups
}
