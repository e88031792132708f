//! Outlier ejection: an endpoint that fails, by what its calls show, is left out for a while.

use crate::settings::Outlier;

/// What the calls of one endpoint have shown. Times are nanoseconds of a monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Failures in a row.
    consecutive: u32,
    /// Beginning of the interval, and what ended in it.
    began: u64,
    good: u32,
    bad: u32,
    /// How often it was left out lately.
    ejections: u32,
    ejected_until: u64,
}

impl Record {
    /// Counts a call that ended. True: the endpoint is to be left out from now on.
    pub fn count(&mut self, now: u64, failed: bool, settings: &Outlier) -> bool {
        if self.is_ejected(now) {
            // The last calls from before.
            return false;
        }
        self.roll(now, settings);
        if failed {
            self.consecutive = self.consecutive.saturating_add(1);
            self.bad = self.bad.saturating_add(1);
        } else {
            self.consecutive = 0;
            self.good = self.good.saturating_add(1);
        }
        let in_a_row = settings.consecutive.is_some_and(|limit| self.consecutive >= limit.max(1));
        if failed && (in_a_row || self.is_below(settings)) {
            self.eject(now, settings);
            return true;
        }
        false
    }

    /// True while it is left out.
    #[must_use]
    pub fn is_ejected(&self, now: u64) -> bool {
        now < self.ejected_until
    }

    /// When it gets calls again; 0: it was never left out.
    #[must_use]
    pub fn ejected_until(&self) -> u64 {
        self.ejected_until
    }

    /// Begins a new interval when the old one is over. A whole one without ejection forgives an earlier one.
    fn roll(&mut self, now: u64, settings: &Outlier) {
        let length = nanos(settings.interval).max(1);
        let passed = now.saturating_sub(self.began) / length;
        if passed == 0 {
            return;
        }
        // The time for which it was left out forgives nothing.
        let since_return = now.saturating_sub(self.began.max(self.ejected_until)) / length;
        self.ejections = self.ejections.saturating_sub(u32::try_from(since_return).unwrap_or(u32::MAX));
        (self.began, self.good, self.bad) = (now, 0, 0);
    }

    fn is_below(&self, settings: &Outlier) -> bool {
        let all = self.good.saturating_add(self.bad);
        let Some(least) = settings.success_rate else { return false };
        all >= settings.min_requests.max(1)
            && u64::from(self.good) * 1_000_000 < u64::from(least.parts_per_million()) * u64::from(all)
    }

    fn eject(&mut self, now: u64, settings: &Outlier) {
        self.ejections = self.ejections.saturating_add(1);
        let length = nanos(settings.ejection).saturating_mul(u64::from(self.ejections));
        self.ejected_until = now.saturating_add(length.min(nanos(settings.max_ejection)));
        (self.consecutive, self.began, self.good, self.bad) = (0, self.ejected_until, 0, 0);
    }
}

/// How many of `count` endpoints may be left out at a time; one always stays.
#[must_use]
pub fn most_ejected(count: usize, settings: &Outlier) -> usize {
    let share = u128::from(settings.max_ejected.parts_per_million());
    let most = (count as u128 * share).div_ceil(1_000_000);
    usize::try_from(most).unwrap_or(count).min(count.saturating_sub(1))
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
