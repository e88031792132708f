//! Choice by weight.

/// Picks an index with a probability proportional to its weight. `random` is uniform over all of u64.
/// None when the weights sum to 0.
#[must_use]
pub fn pick(weights: impl Iterator<Item = u32> + Clone, random: u64) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    if total == 0 {
        return None;
    }
    // Scales instead of taking the remainder: no bias, no division (Lemire 2019).
    let mut point = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    for (index, weight) in weights.enumerate() {
        match point.checked_sub(u64::from(weight)) {
            Some(rest) => point = rest,
            None => return Some(index),
        }
    }
    None
}
