//! Shares of calls, and the authority as a condition.

use http::{HeaderMap, Method};
use mesh_core::{
    balance::hash::hash,
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
    let random = |n: &u64| hash(&n.to_be_bytes(), 0);
    let taken = (0..100_000).filter(|n| Share::of(25, 100).takes(random(n))).count();
    assert!((24_000..26_000).contains(&taken), "{taken}");
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
