//! Power of two choices: look at two endpoints at random and take the one with the lower cost (Mitzenmacher 2001).

/// Picks one of `count` endpoints by comparing the costs of two. `random` is uniform over all of u64; `cost` is called
/// at most twice. None when there are no endpoints.
pub fn pick(count: usize, random: u64, mut cost: impl FnMut(usize) -> f64) -> Option<usize> {
    match count {
        0 => return None,
        1 => return Some(0),
        _ => {}
    }
    let scale = |bits: u64, n: usize| ((bits & 0xffff_ffff) as usize).wrapping_mul(n) >> 32;
    let first = scale(random, count);
    // From the others: one fewer, and skip over the first.
    let second = scale(random >> 32, count - 1);
    let second = if second >= first { second + 1 } else { second };
    Some(if cost(second) < cost(first) { second } else { first })
}
