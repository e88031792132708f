//! Maglev hashing (Eisenbud et al. 2016, section 3.4): a table of prime size in which every endpoint has nearly the same
//! number of places. More even than a ring, and a look-up is one step; a little more moves when an endpoint goes.

use super::hash::hash;

/// Sizes of tables; at least a hundred places for each endpoint as long as there are so many.
const SIZES: [usize; 5] = [251, 1021, 4093, 16_381, 65_521];
/// Seeds of the two hashes that make an endpoint's order of places.
const SEEDS: [u64; 2] = [0x6d65_7368, 0x6c65_7631];

/// A table of endpoints.
#[derive(Clone, Debug)]
pub struct Maglev {
    places: Box<[u32]>,
}

impl Maglev {
    /// A table of the endpoints with these names (their addresses, say). The places do not depend on the order of the
    /// names, but for ties.
    #[must_use]
    pub fn new<N: AsRef<[u8]>>(names: &[N]) -> Self {
        if names.is_empty() {
            return Self { places: Box::default() };
        }
        let wanted = names.len().saturating_mul(100);
        let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[SIZES.len() - 1]);
        let mut sorted: Vec<(u32, &[u8])> = (0_u32..).zip(names.iter().map(AsRef::as_ref)).collect();
        sorted.sort_by_key(|(_, name)| *name);
        let order = |name: &[u8]| {
            let offset = hash(name, SEEDS[0]) as usize % size;
            let skip = hash(name, SEEDS[1]) as usize % (size - 1) + 1;
            (offset, skip)
        };
        let mut turns: Vec<(u32, usize, usize)> = sorted
            .into_iter()
            .map(|(endpoint, name)| {
                let (offset, skip) = order(name);
                (endpoint, offset, skip)
            })
            .collect();
        let mut places = vec![u32::MAX; size];
        let mut left = size;
        'fill: loop {
            for (endpoint, next, skip) in &mut turns {
                let place = free_place(&places, next, *skip);
                if let Some(free) = places.get_mut(place) {
                    *free = *endpoint;
                }
                left -= 1;
                if left == 0 {
                    break 'fill;
                }
            }
        }
        Self { places: places.into() }
    }

    /// The endpoint of `hash`; where that is not usable, the one of the next place whose endpoint is. None: none is.
    pub fn pick(&self, hash: u64, mut usable: impl FnMut(usize) -> bool) -> Option<usize> {
        let size = self.places.len() as u64;
        let start = usize::try_from(hash.checked_rem(size)?).ok()?;
        let (before, after) = self.places.split_at_checked(start)?;
        after.iter().chain(before).map(|endpoint| *endpoint as usize).find(|endpoint| usable(*endpoint))
    }
}

/// The next free place in an endpoint's order; there is one.
fn free_place(places: &[u32], next: &mut usize, skip: usize) -> usize {
    loop {
        let place = *next;
        *next = (place + skip) % places.len();
        if places.get(place).is_none_or(|held| *held == u32::MAX) {
            return place;
        }
    }
}
