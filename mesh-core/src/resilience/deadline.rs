//! Deadlines on the wire: how much time is left for a call.

use std::time::Duration;

/// Longest deadline that is looked at; anything later is none.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Reads `grpc-timeout` (gRPC over HTTP/2, "Timeout"): one to eight digits and a unit. None: not a timeout.
#[must_use]
pub fn parse_grpc(value: &str) -> Option<Duration> {
    let at = value.len().checked_sub(1)?;
    let (digits, unit) = (value.get(..at)?, value.get(at..)?);
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let time = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    };
    (time < LONGEST).then_some(time)
}

/// Writes `grpc-timeout` in the finest unit that eight digits can hold, never more than `left`.
#[must_use]
pub fn format_grpc(left: Duration) -> String {
    let units = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (u128::from(left.as_secs()), 'S'),
        (u128::from(left.as_secs() / 60), 'M'),
    ];
    let fits = units.into_iter().find(|(count, _)| *count < 100_000_000);
    match fits {
        Some((count, unit)) => format!("{count}{unit}"),
        None => format!("{}H", (left.as_secs() / 3600).min(99_999_999)),
    }
}

/// Reads the deadline that a peer's proxy sends: milliseconds.
#[must_use]
pub fn parse_mesh(value: &str) -> Option<Duration> {
    let time = Duration::from_millis(value.parse().ok()?);
    (time < LONGEST).then_some(time)
}

/// Writes the deadline for a peer's proxy: whole milliseconds, at least one.
#[must_use]
pub fn format_mesh(left: Duration) -> u64 {
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)
}
