//! Which endpoints of a backend get calls now: all but those that are left out or fail their checks, those of the own
//! zone apart. Worked out anew only when something changed.

use std::rc::Rc;

use mesh_core::{
    balance::{locality::local_share, outlier::most_ejected},
    settings::{BackendSettings, Locality, Share},
};

use super::EndpointState;

/// The endpoints that get calls, by index.
#[derive(Default)]
pub(super) struct Usable {
    /// Those that are preferred: of the own zone, or simply all.
    pub near: Vec<usize>,
    /// The others.
    pub far: Vec<usize>,
    /// How many calls go to `near`.
    pub near_share: Share,
    /// The state of the worker's endpoints that this was made of, and when it ends by itself.
    changes: u64,
    until: u64,
}

impl Usable {
    /// True when nothing can have changed since.
    pub(super) fn is_current(&self, first: &EndpointState) -> bool {
        self.changes == first.shared.changes.get() && (self.until == u64::MAX || first.now() < self.until)
    }

    /// Looks at all endpoints.
    pub(super) fn of(endpoints: &[Rc<EndpointState>], settings: &BackendSettings, own_zone: &str) -> Self {
        let Some(first) = endpoints.first() else { return Self::default() };
        let now = first.now();
        let kept_out = kept_out(endpoints, settings, now);
        let until =
            kept_out.iter().filter_map(|at| endpoints.get(*at)).map(|e| e.record.borrow().ejected_until());
        let mut usable = Self {
            near_share: Share::ALL,
            changes: first.shared.changes.get(),
            until: until.min().unwrap_or(u64::MAX),
            ..Self::default()
        };
        let prefers = settings.locality == Locality::PreferZone && !own_zone.is_empty();
        let mut near_all = 0;
        for (at, endpoint) in endpoints.iter().enumerate() {
            let near = !prefers || &*endpoint.endpoint.zone == own_zone;
            near_all += usize::from(near);
            if (settings.health.is_some() && !endpoint.healthy.get()) || kept_out.contains(&at) {
                continue;
            }
            if near { usable.near.push(at) } else { usable.far.push(at) }
        }
        if prefers {
            usable.near_share = local_share(usable.near.len(), near_all, usable.far.len());
        }
        usable
    }
}

/// Indexes of the endpoints that are left out; where too many would be, those that return first are kept in.
fn kept_out(endpoints: &[Rc<EndpointState>], settings: &BackendSettings, now: u64) -> Vec<usize> {
    let Some(outlier) = &settings.outlier else { return Vec::new() };
    let mut out: Vec<(u64, usize)> = endpoints
        .iter()
        .enumerate()
        .filter(|(_, endpoint)| endpoint.record.borrow().is_ejected(now))
        .map(|(at, endpoint)| (endpoint.record.borrow().ejected_until(), at))
        .collect();
    let most = most_ejected(endpoints.len(), outlier);
    out.sort_unstable();
    out.into_iter().rev().take(most).map(|(_, at)| at).collect()
}
