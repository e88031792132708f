//! The retry budget: retries as a share of the requests, so that they cannot multiply an overload.

use std::time::Duration;

use crate::settings::RetryBudget;

/// Counts of the current interval and the one before. Their sum, the older one weighted by how much of it still lies in
/// the last interval, stands for the last interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetState {
    began: Duration,
    requests: (u32, u32),
    retries: (u32, u32),
}

impl BudgetState {
    /// Counts a request. `now` is the time since any fixed point.
    pub fn request(&mut self, budget: &RetryBudget, now: Duration) {
        self.roll(budget, now);
        self.requests.0 = self.requests.0.saturating_add(1);
    }

    /// Takes a retry out of the budget; false: there is none left. `workers` share what is always allowed.
    #[must_use]
    pub fn retry(&mut self, budget: &RetryBudget, now: Duration, workers: u32) -> bool {
        self.roll(budget, now);
        let interval = budget.interval.as_secs_f64().max(0.001);
        let gone = (now.saturating_sub(self.began).as_secs_f64() / interval).clamp(0.0, 1.0);
        let sum = |(current, before): (u32, u32)| f64::from(current) + f64::from(before) * (1.0 - gone);
        let share = f64::from(budget.share.parts_per_million()) / 1e6;
        let always = f64::from(budget.min_per_second) * interval / f64::from(workers.max(1));
        let allowed = sum(self.requests) * share + always;
        if sum(self.retries) + 1.0 > allowed.max(if budget.min_per_second > 0 { 1.0 } else { 0.0 }) {
            return false;
        }
        self.retries.0 = self.retries.0.saturating_add(1);
        true
    }

    fn roll(&mut self, budget: &RetryBudget, now: Duration) {
        let interval = budget.interval.max(Duration::from_millis(1));
        let age = now.saturating_sub(self.began);
        if age < interval {
            return;
        }
        let recent = age < interval * 2;
        let keep = |(current, _): (u32, u32)| (0, if recent { current } else { 0 });
        self.requests = keep(self.requests);
        self.retries = keep(self.retries);
        self.began = if recent { self.began + interval } else { now };
    }
}
