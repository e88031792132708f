//! Properties of routing: precedence is total and Gateway API's, weights are kept.

#![expect(clippy::expect_used, reason = "in a test, failing is the purpose")]

use http::{HeaderMap, HeaderName, Method};
use mesh_core::{
    balance::weighted,
    matching::{PathMatch, Pattern, RequestMatch, RequestParts, ValueMatch},
    name::{ObjectRef, ServicePort},
    protocol::Protocol,
    reason::Reason,
    route::{Backend, NoBackend, RouteRule, Selection, ServiceRoutes, sort_rules, specificity},
};
use proptest::{collection::vec, prelude::*};

fn rule(name: &str, matches: Vec<RequestMatch>, backends: Vec<(u32, bool)>) -> RouteRule {
    let backend =
        |(weight, invalid)| Backend { invalid, ..Backend::new(ServicePort::new("shop", "cart", 80), weight) };
    let backends = backends.into_iter().map(backend).collect();
    RouteRule { matches, ..RouteRule::new(ObjectRef::new("HTTPRoute", "shop", name), backends) }
}

fn routes(rules: Vec<RouteRule>) -> ServiceRoutes {
    ServiceRoutes::new(ServicePort::new("shop", "cart", 80), Protocol::Http1, rules)
}

fn on(path: Option<PathMatch>, methods: usize, headers: usize, query: usize) -> RequestMatch {
    let value = || ValueMatch::Exact("1".into());
    RequestMatch {
        path,
        methods: [Method::GET, Method::POST].into_iter().take(methods).collect(),
        headers: (0..headers)
            .map(|i| (HeaderName::try_from(format!("x-{i}")).expect("valid"), value()))
            .collect(),
        query: (0..query).map(|i| (format!("q{i}"), value())).collect(),
        hosts: Vec::new(),
    }
}

fn condition() -> impl Strategy<Value = RequestMatch> {
    let segments = || vec(prop_oneof![Just("a"), Just("b")], 0..3).prop_map(|s| format!("/{}", s.join("/")));
    let path = prop_oneof![
        Just(None),
        segments().prop_map(|path| Some(PathMatch::Exact(path))),
        segments().prop_map(|path| Some(PathMatch::Prefix(path))),
        segments().prop_map(|path| Pattern::whole(&path).ok().map(PathMatch::Regex)),
    ];
    (path, 0..3_usize, 0..3_usize, 0..3_usize).prop_map(|(path, m, h, q)| on(path, m, h, q))
}

/// Gateway API, HTTPRouteRule.matches, as its text says it: true when `one` goes before `other`.
fn goes_before(one: &RequestMatch, other: &RequestMatch) -> Option<bool> {
    let exact = |m: &RequestMatch| matches!(m.path, Some(PathMatch::Exact(_)));
    let prefix = |m: &RequestMatch| match &m.path {
        Some(PathMatch::Prefix(prefix)) => Some(prefix.trim_end_matches('/').len()),
        None => Some(0),
        _ => None,
    };
    if exact(one) != exact(other) {
        return Some(exact(one));
    }
    if let (Some(one), Some(other)) = (prefix(one), prefix(other))
        && one != other
    {
        return Some(one > other);
    }
    // Of different kinds, or of the same: only comparable further when the paths rank the same.
    let path_rank = |m: &RequestMatch| (specificity(m).0, specificity(m).1);
    if path_rank(one) != path_rank(other) {
        return None;
    }
    if one.methods.is_empty() != other.methods.is_empty() {
        return Some(!one.methods.is_empty());
    }
    if one.headers.len() != other.headers.len() {
        return Some(one.headers.len() > other.headers.len());
    }
    (one.query.len() != other.query.len()).then_some(one.query.len() > other.query.len())
}

proptest! {
    #[test]
    fn precedence_is_that_of_gateway_api(conditions in vec(condition(), 0..12)) {
        let rules: Vec<_> = conditions.iter().enumerate().map(|(i, c)| rule(&format!("{i:02}"), vec![c.clone()], vec![])).collect();
        let sorted = sort_rules(rules);
        for (at, first) in sorted.iter().enumerate() {
            for second in &sorted[at + 1..] {
                let (one, other) = (&first.matches[0], &second.matches[0]);
                prop_assert_ne!(goes_before(other, one), Some(true), "{:?} is behind {:?}", other, one);
                if specificity(one) == specificity(other) {
                    prop_assert!(first.object.name < second.object.name, "ties keep the given order");
                }
            }
        }
    }

    #[test]
    fn sorting_loses_nothing_and_is_stable(rules in vec(vec(condition(), 0..4), 0..8)) {
        let rules: Vec<_> = rules.into_iter().enumerate().map(|(i, m)| rule(&i.to_string(), m, vec![(1, false)])).collect();
        let sorted = sort_rules(rules.clone());
        let wanted: usize = rules.iter().map(|r| r.matches.len().max(1)).sum();
        prop_assert_eq!(sorted.len(), wanted);
        prop_assert_eq!(&sort_rules(sorted.clone()), &sorted);
        for rule in &rules {
            for condition in &rule.matches {
                prop_assert!(sorted.iter().any(|s| s.object == rule.object && s.matches.contains(condition)));
            }
        }
    }

    /// The first rule that fits decides, and it is one of the most specific that fit.
    #[test]
    fn the_most_specific_rule_decides(conditions in vec(condition(), 0..10), path in "(/[ab]){1,3}", header in any::<bool>()) {
        let sorted = sort_rules(conditions.into_iter().map(|c| rule("r", vec![c], vec![(1, false)])).collect());
        let routes = routes(sorted);
        let mut headers = HeaderMap::new();
        if header {
            headers.insert("x-0", "1".parse()?);
        }
        let request = RequestParts { method: &Method::GET, path: &path, query: Some("q0=1"), headers: &headers, authority: None };
        let fitting: Vec<_> = routes.rules.iter().filter(|r| r.matches[0].matches(&request)).collect();
        let chosen = routes.matching_rule(Some(&request)).map(|i| &routes.rules[i]);
        prop_assert_eq!(chosen.is_some(), !fitting.is_empty());
        if let Some(chosen) = chosen {
            prop_assert!(fitting.iter().all(|r| specificity(&r.matches[0]) <= specificity(&chosen.matches[0])));
        }
        let none = NoBackend { reason: Reason::RouteNotMatched, rule: None };
        prop_assert_eq!(routes.select(Some(&request), 7).err(), fitting.is_empty().then_some(none));
    }

    /// An index is only ever picked when its weight is not 0, and at the ends of the random range the ends are picked.
    #[test]
    fn weights_are_exact_at_the_extremes(weights in vec(0..5_u32, 0..6), random: u64) {
        let picked = |random| weighted::pick(weights.iter().copied(), random);
        let positive = |index: &usize| weights[*index] > 0;
        prop_assert_eq!(picked(0), (0..weights.len()).find(positive));
        prop_assert_eq!(picked(u64::MAX), (0..weights.len()).rev().find(positive));
        prop_assert!(picked(random).is_none_or(|index| positive(&index)));
        prop_assert_eq!(picked(random).is_some(), weights.iter().any(|w| *w > 0));
    }

    #[test]
    fn shares_are_the_weights(weights in vec(0..1_000_001_u32, 2..6), seed: u64) {
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        prop_assume!(total > 0);
        const DRAWS: u64 = 20_000;
        let mut counts = vec![0_u64; weights.len()];
        let mut state = seed;
        for _ in 0..DRAWS {
            if let Some(index) = weighted::pick(weights.iter().copied(), splitmix(&mut state)) {
                counts[index] += 1;
            }
        }
        prop_assert_eq!(counts.iter().sum::<u64>(), DRAWS);
        for (count, weight) in counts.iter().zip(&weights) {
            let share = f64::from(*weight) / total as f64;
            let sigma = (DRAWS as f64 * share * (1.0 - share)).sqrt();
            let off = (*count as f64 - DRAWS as f64 * share).abs();
            // One draw of slack: sigma says little about shares that are nearly 0 or 1.
            prop_assert!(off <= 5.0 * sigma + 1.0, "{counts:?} for {weights:?}");
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn nothing_to_choose_from() {
    let select = |rules| routes(rules).select(None, 0);
    let invalid = NoBackend { reason: Reason::BackendInvalid, rule: Some(0) };
    assert_eq!(select(vec![]), Err(NoBackend { reason: Reason::RouteNotMatched, rule: None }));
    assert_eq!(select(vec![rule("r", vec![], vec![])]), Err(invalid));
    assert_eq!(select(vec![rule("r", vec![], vec![(0, false), (0, false)])]), Err(invalid));
    assert_eq!(select(vec![rule("r", vec![], vec![(1, true)])]), Err(invalid));
    assert_eq!(
        select(vec![rule("r", vec![], vec![(0, true), (9, false)])]),
        Ok(Selection { rule: 0, backend: 1 })
    );
}

#[test]
fn opaque_connections_take_rules_without_conditions_only() {
    let looks = rule("looks", vec![on(None, 1, 0, 0)], vec![(1, false)]);
    let any = rule("any", vec![on(Some(PathMatch::Prefix("/".into())), 0, 0, 0)], vec![(1, false)]);
    assert_eq!(routes(vec![looks.clone()]).matching_rule(None), None);
    assert_eq!(routes(vec![looks, any]).matching_rule(None), Some(1));
}
