//! Times, rates, shares and sizes, as people read and type them.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Longest window of the view API.
pub(crate) const MAX_WINDOW: Duration = Duration::from_secs(600);

/// Reads a time such as `500ms`, `30s`, `5m` or `1h`.
///
/// # Errors
/// When it is none, or 0.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("must be longer than 0".into()),
        duration => Ok(duration),
    }
}

/// Reads a window: as [`parse_duration`], at most [`MAX_WINDOW`]; 0 is everything.
///
/// # Errors
/// When it is no time, or too long.
pub(crate) fn parse_window(text: &str) -> Result<Duration, String> {
    let window = if text == "0" { Duration::ZERO } else { parse(text)? };
    if window > MAX_WINDOW {
        return Err("at most 10m is kept; 0 for everything since the proxies' start".into());
    }
    Ok(window)
}

fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("expected a number and ms, s, m or h, as in 30s".into()),
    };
    let number: u64 =
        number.parse().map_err(|_| "expected a number and ms, s, m or h, as in 30s".to_owned())?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

/// A latency in microseconds: `0.4ms`, `8.1ms`, `120ms`, `1.5s`, `34s`.
pub(crate) fn latency(micros: u64) -> String {
    let millis = micros as f64 / 1000.0;
    match millis {
        m if m > 0.0 && m < 0.05 => "<0.1ms".into(),
        m if m < 9.95 => format!("{m:.1}ms"),
        m if m < 999.5 => format!("{m:.0}ms"),
        m if m < 9_950.0 => format!("{:.1}s", m / 1000.0),
        m => format!("{:.0}s", m / 1000.0),
    }
}

/// A rate per second: `0`, `0.3`, `12.5`, `450`, `12.3k`.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".into(),
        r if r < 0.05 => "<0.1".into(),
        r if r < 99.95 => format!("{r:.1}"),
        r if r < 9_999.5 => format!("{r:.0}"),
        r => format!("{:.1}k", r / 1000.0),
    }
}

/// A share in percent, rounded down: `100%` is said only when it is all.
pub(crate) fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return String::new();
    }
    if part >= whole {
        return "100%".into();
    }
    let tenths = u128::from(part) * 1000 / u128::from(whole);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// A size: `512B`, `1.5KiB`, `20MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// A span of time with its two largest units: `0s`, `45s`, `3m12s`, `2h5m`, `12d3h`.
pub(crate) fn span(seconds: u64) -> String {
    let two = |large: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ if seconds / 86_400 >= 100 => format!("{}d", seconds / 86_400),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A point in time in seconds since the Unix epoch, as RFC 3339 in UTC; None when no calendar has it.
pub(crate) fn timestamp(unix_seconds: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(unix_seconds).ok()?.format(&Rfc3339).ok()
}

/// "1 proxy", "3 proxies": a count with its noun.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies() {
        let check = |micros, expected: &str| assert_eq!(latency(micros), expected);
        check(0, "0.0ms");
        check(7, "<0.1ms");
        check(449, "0.4ms");
        check(9_949, "9.9ms");
        check(9_951, "10ms");
        check(120_400, "120ms");
        check(999_600, "1.0s");
        check(134_000_000, "134s");
    }

    #[test]
    fn rates() {
        let check = |value, expected: &str| assert_eq!(rate(value), expected);
        check(0.0, "0");
        check(0.01, "<0.1");
        check(0.25, "0.2");
        check(99.96, "100");
        check(450.4, "450");
        check(12_345.0, "12.3k");
    }

    #[test]
    fn shares_never_round_up_to_all() {
        let check = |part, whole, expected: &str| assert_eq!(share(part, whole), expected);
        check(0, 0, "");
        check(0, 5, "0.0%");
        check(999_999, 1_000_000, "99.9%");
        check(2, 3, "66.6%");
        check(7, 7, "100%");
        check(u64::MAX - 1, u64::MAX, "99.9%");
    }

    #[test]
    fn sizes_and_spans() {
        let sizes = [0, 1023, 1536, 10_240, 1_048_575, 5 << 30, 3 << 50].map(bytes);
        assert_eq!(sizes, ["0B", "1023B", "1.5KiB", "10KiB", "1.0MiB", "5.0GiB", "3072TiB"]);
        let spans = [0, 59, 60, 192, 7500, 86_400, 1_047_600, 31_536_000].map(span);
        assert_eq!(spans, ["0s", "59s", "1m", "3m12s", "2h5m", "1d", "12d3h", "365d"]);
    }

    #[test]
    fn times_as_typed() {
        let seconds = |text| parse_duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("500ms"), Ok(0.5));
        assert_eq!(seconds("2m"), Ok(120.0));
        for wrong in
            ["", "5", "s", "-1s", "1.5s", "5 s", "0s", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(parse_window("0"), Ok(Duration::ZERO));
        assert_eq!(parse_window("10m"), Ok(MAX_WINDOW));
        assert!(parse_window("11m").is_err());
    }

    #[test]
    fn timestamps() {
        assert_eq!(timestamp(0).as_deref(), Some("1970-01-01T00:00:00Z"));
        assert_eq!(timestamp(i64::MAX), None);
    }
}
