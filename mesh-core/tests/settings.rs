//! Shares of calls, and the authority as a condition.

use http::{HeaderMap, Method};
use mesh_core::{
    matching::{Pattern, RequestMatch, RequestParts, ValueMatch},
    settings::Share,
};
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_share_is_exact_at_its_ends(numerator: u32, denominator: u32, random: u64) {
        let share = Share::of(numerator, denominator);
        prop_assert!(share <= Share::ALL);
        prop_assert_eq!(share.takes(0), share > Share::default());
        prop_assert_eq!(share.takes(u64::MAX), share == Share::ALL);
        prop_assert!(Share::ALL.takes(random) && !Share::default().takes(random));
    }
}

#[test]
fn a_share_is_what_it_says() {
    let mut random = fastrand_like();
    let taken = (0..100_000).filter(|_| Share::of(25, 100).takes(random())).count();
    assert!((24_000..26_000).contains(&taken), "{taken}");
}

/// SplitMix64: uniform enough to count with.
fn fastrand_like() -> impl FnMut() -> u64 {
    let mut state = 7_u64;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[test]
fn hosts_are_compared_without_case_and_port() {
    let hosts = vec![
        ValueMatch::Exact("api.shop".into()),
        ValueMatch::Regex(Pattern::whole(r".*\.example\.com").unwrap()),
    ];
    let condition = RequestMatch { hosts, ..RequestMatch::default() };
    let fits = |authority| {
        let (method, headers) = (&Method::GET, &HeaderMap::new());
        condition.matches(&RequestParts { method, path: "/", query: None, headers, authority })
    };
    assert!(fits(Some("API.shop:8080")) && fits(Some("api.shop")) && fits(Some("a.example.com")));
    assert!(!fits(Some("api.shop.evil")) && !fits(Some("[::1]:80")) && !fits(None));
    assert!(!condition.is_any());
}
