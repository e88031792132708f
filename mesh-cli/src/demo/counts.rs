//! What each party of the demo counted: the generator of load, the applications and the sidecars.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metrics::ProxyCounts;

/// What `shop load` prints.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Load {
    /// Requests that ended.
    pub(crate) requests: u64,
    /// Of these: no answer, or a status of 400 or more.
    pub(crate) failed: u64,
    /// By version of the catalog that the page showed.
    pub(crate) versions: BTreeMap<String, u64>,
    /// The first few errors.
    pub(crate) errors: Vec<String>,
    /// Requests a second.
    pub(crate) rate: f64,
    /// Latencies, in microseconds.
    pub(crate) latency_micros: Latency,
}

/// Quantiles, in microseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Latency {
    /// Half of the answers took at most this.
    pub(crate) p50: u64,
    /// 99 of 100 answers took at most this.
    pub(crate) p99: u64,
    /// The slowest answer.
    pub(crate) max: u64,
}

/// What `shop batch` prints.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Batch {
    /// The method that it called.
    pub(crate) call: String,
    /// HTTP status.
    pub(crate) status: u16,
    /// gRPC status.
    pub(crate) grpc_status: Option<String>,
    /// Why the mesh refused.
    pub(crate) mesh_reason: Option<String>,
}

/// What `GET /stats` of a service gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct App {
    /// Requests served, by path and caller.
    pub(crate) served: Vec<Served>,
    /// Calls made.
    pub(crate) made: Vec<Made>,
    /// TCP connections that callers opened.
    pub(crate) connections_accepted: u64,
    /// TCP connections that it opened.
    pub(crate) connections_opened: u64,
}

/// Requests of one caller for one path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Served {
    /// The caller's SPIFFE ID.
    pub(crate) peer: String,
    /// How many.
    pub(crate) count: u64,
}

/// Calls to one other service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Made {
    /// Which service.
    pub(crate) to: String,
    /// How many.
    pub(crate) count: u64,
}

/// What all sidecars and applications counted, by workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Sidecars.
    pub(crate) proxies: BTreeMap<String, ProxyCounts>,
    /// Applications.
    pub(crate) apps: BTreeMap<String, App>,
}

impl App {
    /// Requests served.
    pub(crate) fn total(&self) -> u64 {
        self.served.iter().map(|served| served.count).sum()
    }

    /// Requests served to callers with this service account.
    pub(crate) fn by(&self, account: &str) -> u64 {
        let suffix = format!("/sa/{account}");
        self.served.iter().filter(|served| served.peer.ends_with(&suffix)).map(|served| served.count).sum()
    }

    /// Calls made to one service.
    pub(crate) fn calls(&self, service: &str) -> u64 {
        self.made.iter().filter(|made| made.to == service).map(|made| made.count).sum()
    }

    fn since(&self, earlier: &Self) -> Self {
        let before = earlier.by_peer();
        let served = self
            .by_peer()
            .into_iter()
            .map(|(peer, count)| Served {
                count: count.saturating_sub(before.get(&peer).copied().unwrap_or(0)),
                peer,
            })
            .filter(|served| served.count > 0)
            .collect();
        let made = self
            .made
            .iter()
            .map(|made| Made {
                to: made.to.clone(),
                count: made.count.saturating_sub(earlier.calls(&made.to)),
            })
            .collect();
        Self {
            served,
            made,
            connections_accepted: self.connections_accepted.saturating_sub(earlier.connections_accepted),
            connections_opened: self.connections_opened.saturating_sub(earlier.connections_opened),
        }
    }

    fn by_peer(&self) -> BTreeMap<String, u64> {
        let mut peers = BTreeMap::new();
        for served in &self.served {
            *peers.entry(served.peer.clone()).or_default() += served.count;
        }
        peers
    }
}

impl Counts {
    /// One sidecar's counters; a sidecar that is not there counted nothing.
    pub(crate) fn proxy(&self, workload: &str) -> ProxyCounts {
        self.proxies.get(workload).cloned().unwrap_or_default()
    }

    /// One application's counters; an application that is not there counted nothing.
    pub(crate) fn app(&self, workload: &str) -> App {
        self.apps.get(workload).cloned().unwrap_or_default()
    }

    /// What was counted since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let proxies = self.proxies.iter();
        let apps = self.apps.iter();
        Self {
            proxies: proxies.map(|(name, now)| (name.clone(), now.since(&earlier.proxy(name)))).collect(),
            apps: apps.map(|(name, now)| (name.clone(), now.since(&earlier.app(name)))).collect(),
        }
    }
}
