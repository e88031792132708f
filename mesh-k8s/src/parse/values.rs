//! Values of the fields that say how calls are carried: durations, shares, statuses.

use std::time::Duration;

use mesh_core::settings::{MAX_DURATION, Share};

use crate::parse::{
    reader::{Field, Fields, Reader},
    tree::Value,
};

/// What a duration is, for messages.
const DURATION: &str = "a duration (GEP-2257)";

/// A duration as Gateway API writes it (GEP-2257): up to four of `[0-9]{1,5}(h|m|s|ms)`, as in `1m30s`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits).filter(|_| (1..=5).contains(&digits))?;
        let number: u64 = number.parse().ok()?;
        let units: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
        let (unit, millis) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        total += Duration::from_millis(number.checked_mul(millis)?);
        rest = after.strip_prefix(unit)?;
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

/// A duration, which may be 0.
pub(crate) fn duration(reader: &mut Reader, field: &Field<'_>) -> Option<Duration> {
    let text = reader.text(field)?;
    match parse_duration(text) {
        Some(duration) if duration <= MAX_DURATION => Some(duration),
        _ => {
            let remedy = "write numbers with h, m, s or ms, as in 500ms or 1m30s, without fractions";
            reader.expected(field, DURATION, remedy);
            None
        }
    }
}

/// A duration that is not 0.
pub(crate) fn positive(reader: &mut Reader, field: &Field<'_>) -> Option<Duration> {
    let found = duration(reader, field)?;
    if found.is_zero() {
        reader.expected(field, &format!("{DURATION} above 0"), "write a longer one, or remove the field");
        return None;
    }
    Some(found)
}

/// A limit, where 0 switches it off (Gateway API): the longest duration stands for that.
pub(crate) fn limit(reader: &mut Reader, field: &Field<'_>) -> Option<Duration> {
    duration(reader, field).map(|found| if found.is_zero() { MAX_DURATION } else { found })
}

/// True or false.
pub(crate) fn boolean(reader: &mut Reader, field: &Field<'_>) -> Option<bool> {
    if let Value::Bool(value) = field.node.value {
        return Some(value);
    }
    reader.expected(field, "true or false", "write true or false, without quotes");
    None
}

/// A share in percent, which may have a fraction.
pub(crate) fn percent(reader: &mut Reader, field: &Field<'_>) -> Option<Share> {
    let parts = match field.node.value {
        Value::Integer(value @ 0..=100) => u32::try_from(value).ok().map(|value| value * 10_000),
        // In bounds, so that the product fits; what is below a millionth is rounded.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1,000,000")]
        Value::Float(value) if (0.0..=100.0).contains(&value) => Some((value * 10_000.0).round() as u32),
        _ => None,
    };
    if parts.is_none() {
        reader.expected(field, "a percentage (0 to 100)", "write a number from 0 to 100, without %");
    }
    parts.map(|parts| Share::of(parts, 1_000_000))
}

/// A share as Gateway API writes it: `percent`, or `fraction` with numerator and denominator; all by default.
pub(crate) fn share(reader: &mut Reader, fields: &mut Fields<'_>) -> Option<Share> {
    let percent = fields.optional("percent");
    let fraction = fields.optional("fraction");
    match (percent, fraction) {
        (None, None) => Some(Share::ALL),
        (Some(field), None) => self::percent(reader, &field),
        (Some(_), Some(field)) => {
            reader.refuse(field.line(), &field.path, "there is percent already", "keep one of them");
            None
        }
        (None, Some(field)) => {
            let mut fields = reader.fields(&field);
            let top = fields
                .required(reader, "numerator")
                .and_then(|f| reader.integer(&f, "a numerator", 0, i32::MAX as u32));
            let bottom = fields
                .optional("denominator")
                .map_or(Some(100), |f| reader.integer(&f, "a denominator", 1, i32::MAX as u32));
            fields.finish(reader);
            let (top, bottom) = (top?, bottom?);
            if top > bottom {
                let message = format!("{top} of {bottom} is more than all");
                reader.refuse(field.line(), &field.path, message, "write a smaller numerator");
                return None;
            }
            Some(Share::of(top, bottom))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_gep_2257() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text:?}");
        };
        check("0s", Some(0));
        check("500ms", Some(500));
        check("1m30s", Some(90_000));
        check("1h2m3s4ms", Some(3_723_004));
        check("99999h", Some(359_996_400_000));
        for text in [
            "",
            "1",
            "s",
            "1.5s",
            "-1s",
            "+1s",
            "1 s",
            "100000s",
            "1d",
            "1us",
            "1s1s1s1s1s",
            "1S",
            "１s",
            "1sx",
        ] {
            check(text, None);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in proptest::prelude::any::<String>()) {
            let _ = parse_duration(&text);
        }

        #[test]
        fn what_is_written_is_read(h in 0..99_999_u64, m in 0..99_999_u64, s in 0..99_999_u64, ms in 0..99_999_u64) {
            let expected = Duration::from_millis(h * 3_600_000 + m * 60_000 + s * 1000 + ms);
            proptest::prop_assert_eq!(parse_duration(&format!("{h}h{m}m{s}s{ms}ms")), Some(expected));
        }
    }
}
