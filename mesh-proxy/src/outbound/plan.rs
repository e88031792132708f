//! What is configured for calls to a Service beyond where they go, and what is counted for it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::{Rc, Weak},
    time::Instant,
};

use mesh_core::{
    filter::Filter,
    name::ServicePort,
    resilience::budget::BudgetState,
    route::{RouteRule, ServiceRoutes},
    settings::{Fault, Retry, RetryBudget, Timeouts},
};

/// Services that are remembered before those that nobody uses are looked for.
const MANY: usize = 256;

/// What is configured for the calls of one rule. Most have none, which is all that they look at.
pub(crate) struct Plan {
    /// Time limits.
    pub timeouts: Timeouts,
    /// Which failures are tried again, besides what never reached the application.
    pub retry: Option<Retry>,
    /// Faults to inject.
    pub fault: Option<Fault>,
    /// The rule, or one of its backends, has filters.
    pub filters: bool,
    /// One of them copies requests.
    pub mirrors: bool,
}

impl Plan {
    /// The plan of a rule; None: nothing is configured.
    pub(crate) fn of(routes: &ServiceRoutes, rule: &RouteRule) -> Option<Self> {
        let calls = &routes.calls;
        let plan = Self {
            timeouts: rule.timeouts.or(calls.timeouts),
            retry: rule.retry.clone().or_else(|| calls.retry.clone()),
            fault: calls.fault.clone(),
            filters: rule.all_filters().next().is_some(),
            mirrors: rule.all_filters().any(|filter| matches!(filter, Filter::Mirror(_))),
        };
        let nothing = plan.timeouts == Timeouts::default()
            && plan.retry.is_none()
            && plan.fault.is_none()
            && !plan.filters;
        (!nothing).then_some(plan)
    }
}

/// What one worker counts for calls to one Service, whatever name they use for it.
pub(crate) struct ServiceState {
    budget: RefCell<BudgetState>,
    epoch: Instant,
}

impl ServiceState {
    /// Counts a request that began at `now`.
    pub(crate) fn request(&self, budget: &RetryBudget, now: Instant) {
        self.budget.borrow_mut().request(budget, now.saturating_duration_since(self.epoch));
    }

    /// Takes a retry out of the budget, if there is one left.
    pub(crate) fn retry(&self, budget: &RetryBudget, workers: usize) -> bool {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        self.budget.borrow_mut().retry(budget, self.epoch.elapsed(), workers)
    }
}

/// All Services that this worker's destinations name.
pub(crate) struct Services {
    known: RefCell<HashMap<ServicePort, Weak<ServiceState>>>,
    epoch: Instant,
    /// Copies of requests that are under way.
    copies: Rc<Cell<usize>>,
}

impl Default for Services {
    fn default() -> Self {
        Self { known: RefCell::default(), epoch: Instant::now(), copies: Rc::default() }
    }
}

impl Services {
    /// How many copies of requests are under way.
    pub(crate) fn copies(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.copies)
    }

    /// The state of a Service, with what was counted already.
    pub(crate) fn get(&self, service: &ServicePort) -> Rc<ServiceState> {
        let mut known = self.known.borrow_mut();
        if let Some(state) = known.get(service).and_then(Weak::upgrade) {
            return state;
        }
        if known.len() >= MANY {
            known.retain(|_, state| state.strong_count() > 0);
        }
        let state = Rc::new(ServiceState { budget: RefCell::default(), epoch: self.epoch });
        known.insert(service.clone(), Rc::downgrade(&state));
        state
    }
}
