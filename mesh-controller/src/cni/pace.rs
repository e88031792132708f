//! How often something is done again where others undo it: nobody is fought at full speed, nor without a word.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The network's configuration is not written again sooner.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest pause, after many times.
const LONGEST: Duration = Duration::from_secs(30);
/// After that long without a change, it is as if there never was one.
const CALM: Duration = Duration::from_secs(120);
/// More times in a row are a fight: a network that starts writes its configuration a few times.
const FIGHT: u32 = 5;
/// Within this time, deletions are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Most deletions in it.
const DELETIONS: usize = 30;

/// When the network's configuration was put right.
#[derive(Debug, Default)]
pub(super) struct Writes {
    last: Option<Instant>,
    in_a_row: u32,
}

impl Writes {
    /// True if it may be written now.
    pub(super) fn may(&self, now: Instant) -> bool {
        let pause = PAUSE.saturating_mul(1 << self.in_a_row.saturating_sub(1).min(5)).min(LONGEST);
        self.last.is_none_or(|last| now.duration_since(last) >= pause)
    }

    /// It was written.
    pub(super) fn note(&mut self, now: Instant) {
        self.in_a_row = if self.is_calm(now) { 1 } else { self.in_a_row.saturating_add(1) };
        self.last = Some(now);
    }

    /// True while another program undoes it again and again.
    pub(super) fn is_fight(&self, now: Instant) -> bool {
        self.in_a_row > FIGHT && !self.is_calm(now)
    }

    fn is_calm(&self, now: Instant) -> bool {
        self.last.is_none_or(|last| now.duration_since(last) >= CALM)
    }
}

/// When pods were deleted.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    recent: VecDeque<Instant>,
}

impl Deletions {
    /// True if another one may be deleted. Where the runtime never asks (`was_asked`), since it reads another directory, new
    /// pods would be as the old ones: then one a minute.
    pub(super) fn may(&mut self, was_asked: bool, now: Instant) -> bool {
        self.recent.retain(|at| now.duration_since(*at) < WINDOW);
        self.recent.len() < if was_asked { DELETIONS } else { 1 }
    }

    /// One was deleted.
    pub(super) fn note(&mut self, now: Instant) {
        self.recent.push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_becomes_slow_and_is_noticed() {
        let start = Instant::now();
        let mut writes = Writes::default();
        let mut told = Vec::new();
        // Somebody undoes it at once, always.
        for second in 0..300 {
            let now = start + Duration::from_secs(second);
            if writes.may(now) {
                writes.note(now);
                told.push((second, writes.is_fight(now)));
            }
        }
        let expected = [(0, false), (1, false), (3, false), (7, false), (15, false), (31, true), (61, true)];
        assert_eq!(told[..7], expected);
        assert_eq!(told.len(), 14, "{told:?}");
        // It stops.
        let last = start + Duration::from_secs(271);
        assert!(writes.is_fight(last + Duration::from_secs(100)));
        assert!(!writes.is_fight(last + CALM));
        writes.note(last + CALM);
        assert!(writes.may(last + CALM + PAUSE), "the pauses begin anew");
    }

    #[test]
    fn deletions_are_limited_always() {
        let start = Instant::now();
        let mut deletions = Deletions::default();
        let mut count = |was_asked: bool, seconds: std::ops::Range<u64>| {
            let times = seconds.map(|second| start + Duration::from_secs(second));
            let done = times.filter(|now| {
                let may = deletions.may(was_asked, *now);
                if may {
                    deletions.note(*now);
                }
                may
            });
            done.count()
        };
        assert_eq!(count(false, 0..120), 2);
        assert_eq!(count(true, 200..260), 30);
        assert_eq!(count(true, 260..320), 30);
    }
}
