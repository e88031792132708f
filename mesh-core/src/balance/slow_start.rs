//! Slow start: a new endpoint gets its full share of calls only after a while, so that cold caches do not meet full load.

use std::time::Duration;

/// The least that a new endpoint gets, so that it warms up at all.
const LEAST: f64 = 0.1;

/// The part of its share, 0.1 to 1, that an endpoint of this age gets.
#[must_use]
pub fn factor(age: Duration, window: Duration) -> f64 {
    if age >= window {
        return 1.0;
    }
    (age.as_secs_f64() / window.as_secs_f64()).max(LEAST)
}
