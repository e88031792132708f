//! Each claim fails when what it claims is not so.

use std::collections::BTreeMap;

use super::*;
use crate::demo::{
    counts::{App, Latency, Made, Served},
    layout::{INVENTORY, LOAD},
    metrics::ProxyCounts,
};

const PAGES: [(u64, u64); 2] = [(1350, 150), (750, 750)];

fn edge(direction: &str, source: &str, workload: &str) -> Edge {
    Edge {
        direction: direction.into(),
        source: source.into(),
        destination: workload.trim_end_matches("-v1").trim_end_matches("-v2").into(),
        backend: if direction == "outbound" { workload.into() } else { String::new() },
        workload: workload.into(),
        secured: true,
        status: "2xx".into(),
        reason: String::new(),
    }
}

fn served(account: &str, count: u64) -> Vec<Served> {
    vec![Served { peer: format!("spiffe://cluster.local/ns/shop/sa/{account}"), count }]
}

fn proxy(requests: &[(Edge, u64)], connections: &[(Edge, u64)]) -> ProxyCounts {
    let map = |counts: &[(Edge, u64)]| counts.iter().cloned().collect::<BTreeMap<_, _>>();
    ProxyCounts { requests: map(requests), connections: map(connections) }
}

/// Counts of a demo in which `v1` and `v2` pages were shown and nothing went wrong.
fn counts(v1: u64, v2: u64) -> Counts {
    let all = v1 + v2;
    let (inner, outer) = (|s, w| edge("inbound", s, w), |s, w| edge("outbound", s, w));
    let proxies = [
        (LOAD, proxy(&[(outer("load", "storefront"), all)], &[])),
        (
            STOREFRONT,
            proxy(
                &[
                    (inner("load", "storefront"), all),
                    (outer("storefront", "catalog-v1"), v1),
                    (outer("storefront", "catalog-v2"), v2),
                    (outer("storefront", "cart"), all + 75),
                ],
                &[],
            ),
        ),
        (CATALOG_V1, proxy(&[(inner("storefront", "catalog-v1"), v1)], &[])),
        (CATALOG_V2, proxy(&[(inner("storefront", "catalog-v2"), v2)], &[])),
        (CART, proxy(&[(inner("storefront", "cart"), all + 75)], &[(outer("cart", "inventory"), 40)])),
        (INVENTORY, proxy(&[], &[(inner("cart", "inventory"), 40)])),
        (BATCH, ProxyCounts::default()),
    ];
    let made = |to: &str, count| Made { to: to.into(), count };
    let app = |served| App { served, ..App::default() };
    let storefront = App {
        served: served("load", all),
        made: vec![made("catalog", all), made("cart", all + 75)],
        ..App::default()
    };
    let apps = [
        (STOREFRONT, storefront),
        (CATALOG_V1, app(served("storefront", v1))),
        (CATALOG_V2, app(served("storefront", v2))),
        (CART, App { connections_opened: 40, ..app(served("storefront", all + 75)) }),
        (INVENTORY, App { connections_accepted: 40, ..App::default() }),
    ];
    Counts {
        proxies: proxies.into_iter().map(|(member, counts)| (member.name.to_owned(), counts)).collect(),
        apps: apps.into_iter().map(|(member, counts)| (member.name.to_owned(), counts)).collect(),
    }
}

fn good() -> Evidence {
    let phase = |percent_v1, (v1, v2): (u64, u64)| Phase {
        percent_v1,
        load: Load {
            requests: v1 + v2,
            versions: BTreeMap::from([("v1".to_owned(), v1), ("v2".to_owned(), v2)]),
            latency_micros: Latency { p50: 1_000, p99: 4_000, max: 9_000 },
            ..Load::default()
        },
        counts: counts(v1, v2),
    };
    let refused = Edge { reason: "AUTHZ_DENIED".into(), ..edge("inbound", "batch", "cart") };
    Evidence {
        phases: vec![phase(90, PAGES[0]), phase(50, PAGES[1])],
        whole: counts(PAGES[0].0 + PAGES[1].0, PAGES[0].1 + PAGES[1].1),
        batch: Batch {
            call: "/shop.cart.v1.Cart/List".into(),
            status: 200,
            grpc_status: Some("7".into()),
            mesh_reason: Some("AUTHZ_DENIED".into()),
        },
        batch_counts: Counts {
            proxies: BTreeMap::from([("cart".to_owned(), proxy(&[(refused, 1)], &[]))]),
            apps: BTreeMap::new(),
        },
        left: Vec::new(),
    }
}

/// Names of the checks that do not hold after `change`.
fn failed(change: impl FnOnce(&mut Evidence)) -> Vec<&'static str> {
    let mut evidence = good();
    change(&mut evidence);
    all(&evidence).into_iter().filter(|check| !check.holds).map(|check| check.name).collect()
}

#[test]
fn all_hold_when_all_is_well() {
    assert_eq!(failed(|_| {}), Vec::<&str>::new());
    assert!(complete(&good().whole));
    assert!(!complete(&Counts::default()));
}

#[test]
fn no_evidence_proves_nothing() {
    let checks = all(&Evidence::default());
    let held: Vec<&str> = checks.iter().filter(|check| check.holds).map(|check| check.name).collect();
    assert_eq!(held, ["nothing left"]);
}

#[test]
fn requests_must_be_many_and_answered() {
    assert_eq!(failed(|e| e.phases[1].load.failed = 1), ["traffic"]);
    assert!(failed(|e| e.phases[0].load.requests = 499).contains(&"traffic"));
}

#[test]
fn splits_must_be_within_five_sigma() {
    // 1,500 at 90 %: sigma is 11.6.
    for (hits, holds) in [(1350, true), (1292, true), (1408, true), (1291, false), (1409, false)] {
        assert_eq!(within(hits, 1500, 90), holds, "{hits}");
    }
    assert!(!within(0, 0, 90));
    let swap = |e: &mut Evidence| e.phases[1].load.versions = BTreeMap::from([("v1".to_owned(), 1500)]);
    assert!(failed(swap).contains(&"split 50/50"));
    assert_eq!(failed(|e| e.phases[0].counts = counts(750, 750)), ["split 90/10"]);
}

#[test]
fn one_request_more_or_less_is_seen_wherever_it_is_counted() {
    let bump_app =
        |name: &'static str| move |e: &mut Evidence| e.whole.apps.get_mut(name).unwrap().served[0].count += 1;
    assert_eq!(failed(bump_app("storefront")), ["load -> storefront"]);
    assert_eq!(failed(bump_app("cart")), ["storefront -> cart"]);
    assert!(failed(bump_app("catalog-v1")).contains(&"storefront -> catalog-v1"));
    assert!(failed(bump_app("catalog-v2")).contains(&"storefront -> catalog-v2"));
    for (name, _) in good().whole.proxies {
        for index in 0..8 {
            let bump = |e: &mut Evidence| {
                let proxy = e.whole.proxies.get_mut(&name).unwrap();
                let counter = proxy.requests.values_mut().chain(proxy.connections.values_mut()).nth(index);
                counter.into_iter().for_each(|n| *n -= 1);
            };
            let edges =
                good().whole.proxies[&name].requests.len() + good().whole.proxies[&name].connections.len();
            assert_eq!(failed(bump).len(), usize::from(index < edges), "{name} {index}");
        }
    }
    assert_eq!(
        failed(|e| e.whole.apps.get_mut("inventory").unwrap().connections_accepted += 1),
        ["cart -> inventory (connections)"]
    );
}

#[test]
fn plaintext_is_seen_on_either_side() {
    for name in ["load", "storefront", "catalog-v2", "cart", "inventory"] {
        let plaintext = |e: &mut Evidence| {
            let proxy = e.whole.proxies.get_mut(name).unwrap();
            let counters =
                if proxy.requests.is_empty() { &mut proxy.connections } else { &mut proxy.requests };
            let (edge, n) = counters.pop_first().unwrap();
            counters.insert(Edge { secured: false, ..edge }, n);
        };
        assert_eq!(failed(plaintext), ["secured"], "{name}");
    }
}

#[test]
fn callers_must_be_named() {
    let forget = |e: &mut Evidence| e.whole.apps.get_mut("catalog-v1").unwrap().served[0].peer.clear();
    assert_eq!(failed(forget), ["callers named"]);
}

#[test]
fn the_denied_call_must_be_denied_by_the_sidecar_and_unknown_to_the_app() {
    assert_eq!(failed(|e| e.batch.mesh_reason = None), ["denied"]);
    assert_eq!(failed(|e| e.batch.grpc_status = Some("0".into())), ["denied"]);
    assert_eq!(failed(|e| e.batch_counts = Counts::default()), ["denied"]);
    let reached = |e: &mut Evidence| {
        e.batch_counts.apps.insert("cart".into(), App { served: served("batch", 1), ..App::default() });
    };
    assert_eq!(failed(reached), ["denied"]);
}

#[test]
fn what_is_left_is_named() {
    let mut evidence = good();
    evidence.left.push("127.77.0.3:15001 still listens".into());
    let check = all(&evidence).pop().unwrap();
    assert_eq!(
        (check.name, check.holds, check.detail.as_str()),
        ("nothing left", false, "127.77.0.3:15001 still listens")
    );
}
