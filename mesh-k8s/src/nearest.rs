//! The name that was probably meant.

/// Longest name that is compared.
const MAX_LENGTH: usize = 64;

/// The candidate that is nearest to `name`, if it is near enough to be a spelling mistake. Ties go to the first.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_LENGTH {
        return None;
    }
    let limit = (name.chars().count() / 3).clamp(1, 3);
    let lower = name.to_ascii_lowercase();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let close = candidate.len().abs_diff(name.len()) <= limit * 4 && candidate.len() <= MAX_LENGTH;
        if !close || candidate == name {
            continue;
        }
        let distance = distance(&lower, &candidate.to_ascii_lowercase());
        if distance <= limit && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Edits (insert, remove, replace, swap of neighbours) that turn `a` into `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut two_up: Vec<usize> = Vec::new();
    let mut up: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, ca) in a.chars().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        let mut left = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut cost = (at(&up, j) + usize::from(ca != cb)).min(at(&up, j + 1) + 1).min(left + 1);
            let swapped = j > 0 && previous == Some(cb) && b.get(j - 1) == Some(&ca);
            if swapped {
                cost = cost.min(at(&two_up, j - 1) + 1);
            }
            row.push(cost);
            left = cost;
        }
        two_up = std::mem::replace(&mut up, row);
        previous = Some(ca);
    }
    up.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{distance, nearest};

    #[test]
    fn spelling_mistakes_are_found() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(nearest(name, ["backends", "service", "matches", "weight"]), expected, "{name}");
        };
        check("backend", Some("backends"));
        check("Service", Some("service"));
        check("wieght", Some("weight"));
        check("mtches", Some("matches"));
        check("colour", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(a in "[a-c]{0,6}", b in "[a-c]{0,6}") {
            prop_assert_eq!(distance(&a, &b), distance(&b, &a));
            prop_assert_eq!(distance(&a, &b) == 0, a == b);
            prop_assert!(distance(&a, &b) <= a.len().max(b.len()));
        }
    }
}
