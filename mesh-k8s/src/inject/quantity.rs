//! Amounts of CPU and memory, as Kubernetes writes them (resource.Quantity).

/// Longest one, in bytes.
const MAX: usize = 20;

/// The amount, in thousandths. None: it is none, or not more than zero.
pub(super) fn parse(text: &str) -> Option<u128> {
    const SUFFIXES: [(&str, u128); 14] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("Ei", 1 << 60),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("E", 1_000_000_000_000_000_000),
        // Thousandths are what is counted here.
        ("m", 0),
        ("", 1),
    ];
    if text.len() > MAX {
        return None;
    }
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (_, factor) = SUFFIXES.iter().find(|(known, _)| *known == suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let thousandths = digits.checked_mul(if *factor == 0 { 1 } else { factor.checked_mul(1_000)? })?;
    Some(thousandths.div_ceil(divisor)).filter(|amount| *amount > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let check = |text: &str, expected: Option<u128>| assert_eq!(parse(text), expected, "{text:?}");
        check("100m", Some(100));
        check("0.5", Some(500));
        check(".5", Some(500));
        check("2", Some(2_000));
        check("64Mi", Some((64 << 20) * 1_000));
        check("1.5Gi", Some((3 << 29) * 1_000));
        check("1M", Some(1_000_000_000));
        for bad in ["", "0", "-1", "1 Gi", "1gi", "m", ".", "1.2.3", "1e3e", "99999999999999999999E", "Mi"] {
            check(bad, None);
        }
    }
}
