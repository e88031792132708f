//! Token buckets, for what callers may do only so often. The clock is a parameter.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Most callers that are held apart.
const MAX_CALLERS: usize = 65_536;
/// How often those are forgotten that have not asked for a while.
const TIDY_UP: Duration = Duration::from_secs(1);
/// How often a line of the log may come that strangers cause, per second.
const LINES: f64 = 0.1;

/// Allows `burst` at once and `per_second` in the long run.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    burst: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(burst: u32, per_second: f64, now: Instant) -> Self {
        Self { burst: f64::from(burst), per_second, left: f64::from(burst), at: now }
    }

    /// Takes one; false when it is empty.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let has = self.left >= 1.0;
        if has {
            self.left -= 1.0;
        }
        has
    }

    /// Takes `count`, going into debt if need be, and says how long the debtor must wait.
    pub(crate) fn charge(&mut self, count: usize, now: Instant) -> Duration {
        self.refill(now);
        self.left -= count as f64;
        Duration::from_secs_f64((-self.left).max(0.0) / self.per_second)
    }

    /// True when it is as good as new.
    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= self.burst
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.left = (self.left + gained).min(self.burst);
        self.at = now;
    }
}

/// A bucket for each caller. One that is full again is forgotten: it is as good as a new one.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    burst: u32,
    per_second: f64,
    held: HashMap<K, Bucket>,
    tidied: Option<Instant>,
}

impl<K: Eq + Hash> Buckets<K> {
    /// Allows each caller `burst` at once and `per_second` in the long run.
    pub(crate) fn new(burst: u32, per_second: f64) -> Self {
        Self { burst, per_second, held: HashMap::new(), tidied: None }
    }

    /// Takes one of a caller's; false when it has none left, or there are too many callers.
    pub(crate) fn take(&mut self, caller: K, now: Instant) -> bool {
        if self.tidied.is_none_or(|at| now.saturating_duration_since(at) >= TIDY_UP) {
            self.tidied = Some(now);
            self.held.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.held.len() >= MAX_CALLERS && !self.held.contains_key(&caller) {
            return false;
        }
        let (burst, per_second) = (self.burst, self.per_second);
        self.held.entry(caller).or_insert_with(|| Bucket::new(burst, per_second, now)).take(now)
    }
}

/// Keeps strangers from filling the log.
pub(crate) struct Rarely(Mutex<Bucket>);

impl Default for Rarely {
    fn default() -> Self {
        Self(Mutex::new(Bucket::new(1, LINES, Instant::now())))
    }
}

impl Rarely {
    /// True now and then.
    pub(crate) fn is_due(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_then_trickles() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, 2.0, start);
        assert_eq!((0..5).filter(|_| bucket.take(start)).count(), 3);
        assert!(!bucket.take(start + Duration::from_millis(400)));
        assert!(bucket.take(start + Duration::from_millis(600)));
        let later = start + Duration::from_secs(60);
        assert_eq!(bucket.charge(3, later), Duration::ZERO);
        assert_eq!(bucket.charge(4, later), Duration::from_secs(2));
    }

    #[test]
    fn callers_have_buckets_of_their_own_which_do_not_pile_up() {
        let start = Instant::now();
        let mut buckets = Buckets::new(2, 1.0);
        let mut taken =
            |caller: usize, millis: u64| buckets.take(caller, start + Duration::from_millis(millis));
        assert_eq!([taken(1, 0), taken(1, 0), taken(1, 0), taken(2, 0)], [true, true, false, true]);
        // Caller 1 owes one second still.
        assert_eq!([taken(1, 1000), taken(1, 1000)], [true, false]);
        assert_eq!(buckets.held.len(), 1, "caller 2 is as good as new");

        let later = start + Duration::from_secs(60);
        assert!((0..MAX_CALLERS).all(|caller| buckets.take(caller, later)));
        assert!(!buckets.take(MAX_CALLERS, later), "too many at once");
        assert!(buckets.take(0, later), "those who are held go on");
        assert!(buckets.take(MAX_CALLERS, later + Duration::from_secs(2)));
    }
}
