//! Exact counts of what a service served and called, to be compared with what its sidecar counted.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use http::HeaderMap;
use mesh_core::reason::CLIENT_ID_HEADER;
use serde::Serialize;

/// Most pairs of path and peer that are told apart; the rest is counted together.
const MAX_SERVED: usize = 256;
/// Name of a caller that did not say who it is.
const UNKNOWN_PEER: &str = "";

/// Counts of one process.
#[derive(Default)]
pub(crate) struct Stats(Mutex<Counts>);

#[derive(Clone, Default)]
struct Counts {
    served: BTreeMap<(String, String), u64>,
    made: BTreeMap<String, Made>,
    accepted: u64,
    opened: u64,
}

#[derive(Clone, Copy, Default)]
struct Made {
    count: u64,
    failed: u64,
}

/// The counts at one moment, as `GET /stats` gives them.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Snapshot {
    /// Requests served, by path and caller.
    pub(crate) served: Vec<Served>,
    /// Calls made, by callee.
    pub(crate) made: Vec<CallsMade>,
    /// TCP connections that callers opened, where the service counts them.
    pub(crate) connections_accepted: u64,
    /// TCP connections that the service opened, where it counts them.
    pub(crate) connections_opened: u64,
}

/// Requests of one caller for one path.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Served {
    /// The path, with names of things replaced by a word.
    pub(crate) path: String,
    /// SPIFFE ID of the caller, as its own sidecar said; empty: nobody said.
    pub(crate) peer: String,
    /// How many.
    pub(crate) count: u64,
}

/// Calls to one other service.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct CallsMade {
    /// Name of the service called.
    pub(crate) to: String,
    /// How many.
    pub(crate) count: u64,
    /// Of these: those that did not succeed.
    pub(crate) failed: u64,
}

impl Stats {
    /// Counts a request for `path` (a pattern, not what the caller wrote) by `peer`.
    pub(crate) fn served(&self, path: &str, peer: &str) {
        self.with(|counts| {
            let key = (path.to_owned(), peer.to_owned());
            let room = counts.served.len() < MAX_SERVED || counts.served.contains_key(&key);
            let key = if room { key } else { ("other".to_owned(), "other".to_owned()) };
            *counts.served.entry(key).or_default() += 1;
        });
    }

    /// Counts a call to `service` that ended.
    pub(crate) fn called(&self, service: &str, ok: bool) {
        self.with(|counts| {
            let made = counts.made.entry(service.to_owned()).or_default();
            made.count += 1;
            made.failed += u64::from(!ok);
        });
    }

    /// Counts a TCP connection that a caller opened.
    pub(crate) fn accepted(&self) {
        self.with(|counts| counts.accepted += 1);
    }

    /// Counts a TCP connection that this service opened.
    pub(crate) fn opened(&self) {
        self.with(|counts| counts.opened += 1);
    }

    /// The counts now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let counts = self.with(|counts| counts.clone());
        Snapshot {
            served: counts
                .served
                .into_iter()
                .map(|((path, peer), count)| Served { path, peer, count })
                .collect(),
            made: counts
                .made
                .into_iter()
                .map(|(to, made)| CallsMade { to, count: made.count, failed: made.failed })
                .collect(),
            connections_accepted: counts.accepted,
            connections_opened: counts.opened,
        }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Counts) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The caller, as the sidecar in front of the service named it.
pub(crate) fn peer(headers: &HeaderMap) -> &str {
    headers.get(CLIENT_ID_HEADER).and_then(|value| value.to_str().ok()).unwrap_or(UNKNOWN_PEER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_path_and_peer() {
        let stats = Stats::default();
        stats.served("/", "a");
        stats.served("/", "b");
        stats.served("/", "a");
        stats.called("cart", true);
        stats.called("cart", false);
        let counts: Vec<_> = stats.snapshot().served.into_iter().map(|s| (s.path, s.peer, s.count)).collect();
        assert_eq!(counts, [("/".into(), "a".into(), 2), ("/".into(), "b".into(), 1)]);
        assert_eq!(stats.snapshot().made, [CallsMade { to: "cart".into(), count: 2, failed: 1 }]);
    }

    #[test]
    fn callers_cannot_make_it_grow_without_bound() {
        let stats = Stats::default();
        for i in 0..2 * MAX_SERVED {
            stats.served("/", &i.to_string());
        }
        let served = stats.snapshot().served;
        assert!(served.len() <= MAX_SERVED + 1);
        assert_eq!(served.iter().map(|s| s.count).sum::<u64>(), 2 * MAX_SERVED as u64);
    }
}
