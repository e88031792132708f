//! Which destinations are asked for: bounded, rate-limited, ended when idle.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use mesh_core::resource::DestinationKey;
use tokio::sync::watch;

use super::{DestinationState, SubscribeError};

/// Most subscriptions at a time.
pub(super) const MAX: usize = 4096;
/// New subscriptions per second, in the long run: a port scan must cost nothing.
const RATE: f64 = 100.0;
/// New subscriptions at once.
const BURST: f64 = 500.0;
/// Without a user for so long, a subscription ends.
const IDLE: Duration = Duration::from_secs(300);

/// All subscriptions.
pub(super) struct Subscriptions {
    entries: HashMap<DestinationKey, Entry>,
    tokens: f64,
    filled: Instant,
}

struct Entry {
    state: watch::Sender<DestinationState>,
    /// Since when nobody has used it.
    idle_since: Option<Instant>,
}

/// What asking for a destination led to.
pub(super) struct Joined {
    /// The state, now and later.
    pub receiver: watch::Receiver<DestinationState>,
    /// It is new: the controller must be asked.
    pub new: bool,
    /// One that had to make room.
    pub evicted: Option<DestinationKey>,
}

impl Subscriptions {
    /// None yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { entries: HashMap::new(), tokens: BURST, filled: now }
    }

    /// Joins or opens one.
    pub(super) fn join(&mut self, key: &DestinationKey, now: Instant) -> Result<Joined, SubscribeError> {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.idle_since = None;
            return Ok(Joined { receiver: entry.state.subscribe(), new: false, evicted: None });
        }
        let filled = now.saturating_duration_since(self.filled).as_secs_f64() * RATE;
        self.tokens = (self.tokens + filled).min(BURST);
        self.filled = now;
        if self.tokens < 1.0 {
            return Err(SubscribeError::Limit);
        }
        let evicted = if self.entries.len() >= MAX { Some(self.evict()?) } else { None };
        self.tokens -= 1.0;
        let (state, receiver) = watch::channel(DestinationState::Pending);
        self.entries.insert(key.clone(), Entry { state, idle_since: None });
        Ok(Joined { receiver, new: true, evicted })
    }

    /// Ends the one that nobody has used for longest; one whose end of use was not yet noticed counts as newest.
    fn evict(&mut self) -> Result<DestinationKey, SubscribeError> {
        let unused = self.entries.iter().filter(|(_, entry)| entry.state.receiver_count() == 0);
        let oldest = unused.min_by_key(|(_, entry)| (entry.idle_since.is_none(), entry.idle_since));
        let key = oldest.map(|(key, _)| key.clone()).ok_or(SubscribeError::Limit)?;
        self.entries.remove(&key);
        Ok(key)
    }

    /// Ends those that have been idle for long; returns them.
    pub(super) fn sweep(&mut self, now: Instant) -> Vec<DestinationKey> {
        let mut ended = Vec::new();
        self.entries.retain(|key, entry| {
            if entry.state.receiver_count() > 0 {
                entry.idle_since = None;
                return true;
            }
            let since = *entry.idle_since.get_or_insert(now);
            let keep = now.saturating_duration_since(since) < IDLE;
            if !keep {
                ended.push(key.clone());
            }
            keep
        });
        ended
    }

    /// Publishes a new state of one, if it is subscribed.
    pub(super) fn publish(&self, key: &DestinationKey, state: DestinationState) {
        if let Some(entry) = self.entries.get(key) {
            entry.state.send_replace(state);
        }
    }

    /// Whether one is subscribed.
    pub(super) fn contains(&self, key: &DestinationKey) -> bool {
        self.entries.contains_key(key)
    }

    /// All keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &DestinationKey> {
        self.entries.keys()
    }

    /// Keys without an answer.
    pub(super) fn pending(&self) -> impl Iterator<Item = &DestinationKey> {
        let pending = |entry: &Entry| matches!(*entry.state.borrow(), DestinationState::Pending);
        self.entries.iter().filter(move |(_, entry)| pending(entry)).map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: usize) -> DestinationKey {
        DestinationKey::Host(format!("svc-{index}").parse().unwrap())
    }

    #[test]
    fn a_scan_is_limited_and_what_is_known_is_not() {
        let start = Instant::now();
        let mut subscriptions = Subscriptions::new(start);
        let opened = (0..1000).filter(|i| subscriptions.join(&key(*i), start).is_ok()).count();
        assert_eq!(opened, BURST as usize);
        assert!(!subscriptions.join(&key(0), start).unwrap().new);
        let later = start + Duration::from_secs(1);
        let opened = (1000..2000).filter(|i| subscriptions.join(&key(*i), later).is_ok()).count();
        assert_eq!(opened, RATE as usize);
    }

    #[test]
    fn idle_ones_end_and_used_ones_stay() {
        let start = Instant::now();
        let mut subscriptions = Subscriptions::new(start);
        let used = subscriptions.join(&key(0), start).unwrap().receiver;
        drop(subscriptions.join(&key(1), start).unwrap());
        assert_eq!(subscriptions.sweep(start), []);
        assert_eq!(subscriptions.sweep(start + IDLE / 2), []);
        assert_eq!(subscriptions.sweep(start + IDLE), [key(1)]);
        assert!(subscriptions.contains(&key(0)));
        drop(used);
    }

    #[test]
    fn at_the_limit_an_unused_one_makes_room() {
        let mut now = Instant::now();
        let mut subscriptions = Subscriptions::new(now);
        let mut kept = Vec::new();
        for index in 0..MAX {
            now += Duration::from_millis(20);
            let joined = subscriptions.join(&key(index), now).unwrap();
            if index != 7 {
                kept.push(joined.receiver);
            }
        }
        now += Duration::from_secs(1);
        let joined = subscriptions.join(&key(MAX), now).unwrap();
        assert_eq!(joined.evicted, Some(key(7)));
        kept.push(joined.receiver);
        assert_eq!(subscriptions.join(&key(MAX + 1), now).err(), Some(SubscribeError::Limit));
    }
}
