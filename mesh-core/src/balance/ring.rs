//! Ring hash (Karger et al. 1997): every endpoint stands at many points of a ring, and a call goes to the next one after
//! its hash. When an endpoint goes, only its own calls move.

use super::hash::hash;

/// Points of one endpoint, where there are few endpoints.
const POINTS: usize = 160;
/// Most points of a ring.
const MAX_POINTS: usize = 65_536;

/// A ring of endpoints.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Hash and endpoint, by hash.
    points: Box<[(u64, u32)]>,
}

impl Ring {
    /// A ring of the endpoints with these names (their addresses, say); names decide, not the order.
    #[must_use]
    pub fn new<N: AsRef<[u8]>>(names: &[N]) -> Self {
        let each = (MAX_POINTS / names.len().max(1)).clamp(1, POINTS);
        let mut points = Vec::with_capacity(each * names.len());
        for (endpoint, name) in (0_u32..).zip(names) {
            points.extend((0..each as u64).map(|seed| (hash(name.as_ref(), seed), endpoint)));
        }
        points.sort_unstable();
        Self { points: points.into() }
    }

    /// The first endpoint after `hash` that is usable. None: none is.
    pub fn pick(&self, hash: u64, mut usable: impl FnMut(usize) -> bool) -> Option<usize> {
        let start = self.points.partition_point(|(point, _)| *point < hash);
        let (before, after) = self.points.split_at_checked(start)?;
        after.iter().chain(before).map(|(_, endpoint)| *endpoint as usize).find(|endpoint| usable(*endpoint))
    }
}
