//! How long a connection may stay idle, so that it is given up before its server gives it up: a request that meets the
//! server's end on its way is lost. Servers say their limit, or are seen to have one.

use std::time::Duration;

/// How long what was seen of a server is believed; then it is tried once more.
const BELIEVED: Duration = Duration::from_secs(600);
/// Ends that are seen within this time have one cause.
const MOMENT: Duration = Duration::from_secs(1);
/// No limit is taken for shorter than this, whatever is seen.
const SHORTEST: Duration = Duration::from_millis(100);

/// The limit that a server states in `keep-alive: timeout=SECONDS` (RFC 2068 section 19.7.1.1, and what servers do since).
/// None: it states none that can be read.
#[must_use]
pub fn stated(value: &[u8]) -> Option<Duration> {
    let mut parts = value.split(|byte| *byte == b',' || *byte == b';').map(<[u8]>::trim_ascii);
    let seconds = parts.find_map(|part| {
        let (name, number) = part.split_at_checked(part.iter().position(|byte| *byte == b'=')?)?;
        let number = number.get(1..)?.trim_ascii();
        name.trim_ascii().eq_ignore_ascii_case(b"timeout").then_some(number)
    })?;
    let digits = !seconds.is_empty() && seconds.len() <= 9 && seconds.iter().all(u8::is_ascii_digit);
    let seconds: u64 = std::str::from_utf8(seconds).ok().filter(|_| digits)?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// How long a connection is used whose server ends it after `limit`: a fifth less, at least half a second and at most
/// five seconds, for what is on its way meanwhile.
#[must_use]
pub fn within(limit: Duration) -> Duration {
    let less = (limit / 5).clamp(Duration::from_millis(500), Duration::from_secs(5));
    limit.saturating_sub(less).max(limit / 2)
}

/// What is seen of one server's limit. Times are since any fixed moment.
///
/// A server that ends all of its connections at once (it restarts) shows no limit. One that ends them at two moments,
/// each time the one that was idle longest, does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habit {
    /// When an end was seen that one more will confirm, and the limit that it showed.
    first: Option<(Duration, Duration)>,
    /// The limit, and until when it is believed.
    limit: Option<(Duration, Duration)>,
}

impl Habit {
    /// How long connections may be kept at `now`; None: nothing is known.
    #[must_use]
    pub fn keep(&self, now: Duration) -> Option<Duration> {
        let (limit, until) = self.limit?;
        (now < until).then(|| within(limit).max(SHORTEST))
    }

    /// The server was seen at `now` to have ended a connection that had been idle for `idle`; it was still there when it
    /// had been idle for `alive`. `survived` is the longest time for which another connection is idle and still there.
    pub fn ended(&mut self, now: Duration, idle: Duration, alive: Duration, survived: Duration) {
        // Its age was not why it ended.
        if survived >= idle {
            return;
        }
        let shown = alive.max(idle / 2).max(survived);
        match self.first {
            // The same moment: of what ended together, the one that was idle longest counts.
            Some((then, before)) if now.saturating_sub(then) < MOMENT => {
                self.first = Some((then, before.max(shown)));
            }
            Some((then, before)) if now.saturating_sub(then) < BELIEVED => {
                self.first = None;
                self.limit = Some((shown.min(before), now.saturating_add(BELIEVED)));
            }
            _ => self.first = Some((now, shown)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn servers_state_seconds() {
        let check = |value: &str, seconds: Option<u64>| {
            assert_eq!(stated(value.as_bytes()), seconds.map(Duration::from_secs), "{value}");
        };
        check("timeout=5", Some(5));
        check("timeout=5, max=1000", Some(5));
        check("max=100 , Timeout = 15", Some(15));
        check("timeout=0", Some(0));
        for bad in
            ["", "5", "timeout", "timeout=", "timeout=-1", "timeout=1.5", "timeout=9999999999", "max=5"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn connections_are_given_up_before() {
        for (limit, kept) in
            [(0, 0), (400, 200), (1_000, 500), (5_000, 4_000), (15_000, 12_000), (75_000, 70_000)]
        {
            assert_eq!(within(MS(limit)), MS(kept), "{limit} ms");
        }
    }

    #[test]
    fn a_limit_is_seen_by_two_ends() {
        let mut habit = Habit::default();
        habit.ended(MS(10_000), MS(5_500), MS(4_500), MS(2_000));
        assert_eq!(habit.keep(MS(10_000)), None, "one end may be chance");
        habit.ended(MS(13_000), MS(5_800), MS(4_800), Duration::ZERO);
        assert_eq!(habit.keep(MS(13_000)), Some(MS(3_600)), "the shorter counts");
        assert_eq!(habit.keep(MS(13_000) + BELIEVED), None, "not for ever");
        // Too long still: it comes closer.
        habit.ended(MS(20_000), MS(3_000), MS(2_000), Duration::ZERO);
        habit.ended(MS(21_000), MS(3_000), MS(2_000), Duration::ZERO);
        assert_eq!(habit.keep(MS(21_000)), Some(MS(1_500)));
    }

    #[test]
    fn a_restart_is_no_limit() {
        let mut habit = Habit::default();
        for (at, idle) in [(10_000, 100), (10_000, 2_000), (10_400, 900)] {
            habit.ended(MS(at), MS(idle), Duration::ZERO, Duration::ZERO);
        }
        assert_eq!(habit.keep(MS(10_400)), None, "all at once");
        // Younger ones end while an older one stays: that is not their age.
        habit.ended(MS(12_000), MS(500), MS(400), MS(3_000));
        assert_eq!(habit.keep(MS(12_000)), None);
        habit.ended(MS(900_000), MS(500), MS(400), Duration::ZERO);
        assert_eq!(habit.keep(MS(900_000)), None, "the first is long forgotten");
    }
}
