//! The hash behind affinity: equal on every proxy and in every version, so that all of them choose alike. Not against
//! callers who want to collide: these could as well send the same key.

/// FNV-1a over the bytes, mixed so that neighbours differ in all bits (splitmix64's finaliser). Different seeds give
/// independent hashes.
#[must_use]
pub fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325 ^ mix(seed);
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(state)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
