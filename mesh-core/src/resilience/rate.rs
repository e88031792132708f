//! Rates of requests, as token buckets that any number of workers share without a lock.
//!
//! A bucket is one number: the time at which it will be full again ("theoretical arrival time" of the generic cell rate
//! algorithm, ITU-T I.371). A bucket that is full is the same as none, which is what makes tables of them easy to bound.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::settings::RateLimit;

/// A rate, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time in which one token comes.
    step: u64,
    /// How far ahead of its time a bucket may be: a burst's tokens.
    ahead: u64,
}

impl Rate {
    /// The rate of a limit.
    #[must_use]
    pub fn of(limit: &RateLimit) -> Self {
        let nanos = u64::try_from(limit.interval.as_nanos()).unwrap_or(u64::MAX);
        let step = (nanos / u64::from(limit.requests.max(1))).max(1);
        Self { step, ahead: step.saturating_mul(u64::from(limit.burst.max(1))) }
    }
}

/// A bucket.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes a token. `now` is in nanoseconds of a monotonic clock that has run for a while (never 0).
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub fn take(&self, rate: Rate, now: u64) -> Result<(), Duration> {
        let next = |full: u64| {
            let full = full.max(now).saturating_add(rate.step);
            (full - now <= rate.ahead).then_some(full)
        };
        match self.0.try_update(Relaxed, Relaxed, next) {
            Ok(_) => Ok(()),
            Err(full) => {
                let wait = full.saturating_add(rate.step).saturating_sub(now).saturating_sub(rate.ahead);
                Err(Duration::from_nanos(wait))
            }
        }
    }
}

/// Places in which a key can be.
const WAYS: usize = 8;
/// Groups of places.
const GROUPS: usize = 1024;

#[derive(Default)]
struct Slot {
    /// Hash of the key; 0: free.
    key: AtomicU64,
    bucket: Bucket,
}

/// A bucket for each key, for 8192 keys at a time: one that comes when all of its places are taken gets the bucket that
/// is nearest to full, emptied as it is. So a flood of keys costs others nothing but a little of their burst.
pub struct Buckets {
    slots: Box<[Slot]>,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { slots: (0..WAYS * GROUPS).map(|_| Slot::default()).collect() }
    }
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").finish_non_exhaustive()
    }
}

impl Buckets {
    /// Takes a token from the bucket of the key that hashes to `key`, by a hash that callers cannot predict.
    ///
    /// # Errors
    /// How long it takes until there is one.
    pub fn take(&self, key: u64, rate: Rate, now: u64) -> Result<(), Duration> {
        let key = key.max(1);
        let group = (key >> 32) as usize % GROUPS * WAYS;
        let slots = self.slots.get(group..group + WAYS).unwrap_or_default();
        let found = slots.iter().find(|slot| slot.key.load(Relaxed) == key);
        let slot = found.or_else(|| {
            // A bucket that is full is as good as free.
            let slot = slots.iter().min_by_key(|slot| slot.bucket.0.load(Relaxed))?;
            slot.key.store(key, Relaxed);
            Some(slot)
        });
        slot.map_or(Ok(()), |slot| slot.bucket.take(rate, now))
    }
}
