//! Preferring endpoints of the own zone, without drowning the few that are left there.

use crate::settings::Share;

/// How many of the calls the own zone takes: all of them as long as 5 of 7 endpoints there are usable (an
/// overprovisioning factor of 1.4), then fewer in proportion. `usable` and `all` count endpoints of the own zone,
/// `elsewhere` the usable ones of other zones.
#[must_use]
pub fn local_share(usable: usize, all: usize, elsewhere: usize) -> Share {
    if usable == 0 || all == 0 {
        return Share::default();
    }
    if elsewhere == 0 {
        return Share::ALL;
    }
    let part = |count: usize| u32::try_from(count).unwrap_or(u32::MAX / 14);
    Share::of(part(usable).saturating_mul(14), part(all).saturating_mul(10))
}
