//! How endpoints are chosen, without sockets.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header::COOKIE};
use mesh_core::{
    addr::EndpointAddr,
    settings::{BackendSettings, Balance, HashKey, Locality, Share},
};

use super::*;

fn endpoint(port: u16, name: &str) -> Endpoint {
    Endpoint {
        address: EndpointAddr(([127, 0, 0, 1], port).into()),
        identity: Some(format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap()),
        workload: WorkloadRef::new("shop", name),
        protocol: Protocol::Http1,
        zone: if port.is_multiple_of(2) { "even" } else { "odd" }.into(),
    }
}

fn balancer(count: u16, settings: BackendSettings) -> (Endpoints, Balancer) {
    let endpoints = Endpoints::new(&Arc::new(Shard::new()));
    let all: Vec<_> = (0..count).map(|port| endpoints.get(&endpoint(port, "a"))).collect();
    for state in &all {
        state.outlier.set(settings.outlier);
    }
    (endpoints, Balancer::plain(all, Some(Arc::new(settings)), "odd".into()))
}

fn picks(balancer: &Balancer, count: usize) -> Vec<usize> {
    let pick = |_| balancer.pick(Affinity::default(), &[]).unwrap().at;
    (0..count).map(pick).collect()
}

#[test]
fn an_endpoint_keeps_its_state_and_another_identity_is_another_endpoint() {
    let endpoints = Endpoints::new(&Arc::new(Shard::new()));
    let first = endpoints.get(&endpoint(1, "a"));
    assert!(Rc::ptr_eq(&first, &endpoints.get(&endpoint(1, "a"))));
    assert!(!Rc::ptr_eq(&first, &endpoints.get(&endpoint(1, "b"))));
    drop(first);
    endpoints.sweep(Instant::now(), None);
    assert!(endpoints.known.borrow().is_empty());
}

#[test]
fn what_fails_is_avoided() {
    let endpoints = Endpoints::new(&Arc::new(Shard::new()));
    let both = vec![endpoints.get(&endpoint(1, "a")), endpoints.get(&endpoint(2, "b"))];
    let balancer = Balancer::plain(both.clone(), None, "".into());
    Flight::start(&both[0]).failed();
    for _ in 0..50 {
        assert_eq!(picks(&balancer, 1), [1]);
        Flight::start(&both[1]).answered();
    }
    assert_eq!(both[0].load.borrow().pending(), 0);
}

#[test]
fn every_way_reaches_every_endpoint_and_avoids_one() {
    for balance in [Balance::PeakEwma, Balance::LeastRequest, Balance::RoundRobin, Balance::Random] {
        let in_turn = balance == Balance::RoundRobin;
        let (_endpoints, balancer) = balancer(4, BackendSettings { balance, ..BackendSettings::default() });
        let mut running = Vec::new();
        let mut found: Vec<usize> = std::iter::repeat_with(|| {
            let at = picks(&balancer, 1)[0];
            running.push(Flight::start(&balancer.endpoints()[at]));
            at
        })
        .take(300)
        .collect();
        if in_turn {
            assert!(found.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 4));
        }
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, [0, 1, 2, 3]);
        let avoid = &balancer.endpoints()[2..3];
        assert!((0..100).all(|_| balancer.pick(Affinity::default(), avoid).unwrap().at != 2));
    }
}

#[test]
fn the_least_loaded_gets_the_call() {
    let settings = BackendSettings { balance: Balance::LeastRequest, ..BackendSettings::default() };
    let (_endpoints, balancer) = balancer(2, settings);
    let _busy = Flight::start(&balancer.endpoints()[0]);
    assert!(picks(&balancer, 50).iter().all(|at| *at == 1));
}

#[test]
fn keys_stay_with_their_endpoint() {
    let header = HashKey::Header("x-user".parse().unwrap());
    let cookie = HashKey::Cookie { name: "session".into(), ttl: None, path: "".into() };
    for (key, name) in [(header, "x-user"), (cookie, "cookie")] {
        for balance in [Balance::RingHash(key.clone()), Balance::Maglev(key.clone())] {
            let (_endpoints, balancer) =
                balancer(5, BackendSettings { balance, ..BackendSettings::default() });
            let pick = |user: usize, avoid: &[_]| {
                let value = if name == "cookie" { format!("a=b; session={user}") } else { user.to_string() };
                let name: http::HeaderName = name.parse().unwrap();
                let headers = HeaderMap::from_iter([(name, HeaderValue::try_from(value).unwrap())]);
                balancer.pick(Affinity { headers: Some(&headers), source: None, hash: None }, avoid).unwrap()
            };
            let homes: Vec<usize> = (0..40).map(|user| pick(user, &[]).at).collect();
            assert!(homes.iter().any(|home| *home != homes[0]));
            for (user, home) in homes.iter().enumerate() {
                assert_eq!(pick(user, &[]).at, *home);
                assert_ne!(
                    pick(user, &balancer.endpoints()[*home..=*home]).at,
                    *home,
                    "a retry goes elsewhere"
                );
                let first = pick(user, &[]);
                assert!(first.cookie.is_none());
                // Without the fields, the hash leads the same way: each endpoint once, then not the last one.
                let mut tried = vec![Rc::clone(&balancer.endpoints()[*home])];
                let again = Affinity { hash: first.hash, ..Affinity::default() };
                while tried.len() < 5 {
                    let next = balancer.pick(again, &tried).unwrap();
                    assert_eq!(next.at, pick(user, &tried).at);
                    let next = Rc::clone(&balancer.endpoints()[next.at]);
                    assert!(!tried.iter().any(|one| Rc::ptr_eq(one, &next)), "each once");
                    tried.push(next);
                }
                let next = balancer.pick(again, &tried).unwrap().at;
                assert!(!Rc::ptr_eq(&balancer.endpoints()[next], tried.last().unwrap()));
            }
        }
    }
}

#[test]
fn a_caller_without_the_cookie_gets_one_that_leads_back() {
    let key = HashKey::Cookie { name: "s".into(), ttl: Some(Duration::from_secs(60)), path: "/".into() };
    let (_endpoints, balancer) =
        balancer(7, BackendSettings { balance: Balance::RingHash(key), ..BackendSettings::default() });
    let mut headers = HeaderMap::new();
    let first = balancer.pick(Affinity { headers: Some(&headers), source: None, hash: None }, &[]).unwrap();
    let set = first.cookie.unwrap();
    let set = set.to_str().unwrap();
    let (pair, rest) = set.split_once("; ").unwrap();
    assert_eq!(rest, "HttpOnly; Max-Age=60; Path=/");
    headers.insert(COOKIE, pair.parse().unwrap());
    let again = balancer.pick(Affinity { headers: Some(&headers), source: None, hash: None }, &[]).unwrap();
    assert_eq!((again.at, again.cookie), (first.at, None));
}

#[test]
fn opaque_connections_stay_by_their_source() {
    let balance = Balance::Maglev(HashKey::SourceIp);
    let (_endpoints, balancer) = balancer(5, BackendSettings { balance, ..BackendSettings::default() });
    let of = |last: u8| {
        let source = Some(std::net::IpAddr::from([10, 0, 0, last]));
        balancer.pick(Affinity { headers: None, source, hash: None }, &[]).unwrap().at
    };
    assert!((0..50).all(|last| of(last) == of(last)));
    assert!((0..50).any(|last| of(last) != of(0)));
}

#[test]
fn what_fails_is_left_out_but_never_all_of_them() {
    let outlier = Outlier { consecutive: Some(3), max_ejected: Share::ALL, ..Outlier::default() };
    let settings =
        BackendSettings { balance: Balance::Random, outlier: Some(outlier), ..BackendSettings::default() };
    let (_endpoints, balancer) = balancer(3, settings);
    let fail = |at: usize| (0..3).for_each(|_| Flight::start(&balancer.endpoints()[at]).answered_badly());
    assert!(picks(&balancer, 100).contains(&1));
    fail(1);
    assert!(!picks(&balancer, 100).contains(&1));
    fail(0);
    assert!(picks(&balancer, 100).iter().all(|at| *at == 2));
    fail(2);
    assert_eq!(picks(&balancer, 10).len(), 10, "one always stays");
}

#[test]
fn the_own_zone_is_preferred_as_long_as_it_works() {
    let outlier = Outlier { consecutive: Some(1), max_ejected: Share::ALL, ..Outlier::default() };
    let settings = BackendSettings {
        locality: Locality::PreferZone,
        outlier: Some(outlier),
        ..BackendSettings::default()
    };
    let (_endpoints, balancer) = balancer(4, settings);
    assert!(picks(&balancer, 100).iter().all(|at| at % 2 == 1));
    Flight::start(&balancer.endpoints()[1]).failed();
    let some = picks(&balancer, 400).iter().filter(|at| **at % 2 == 0).count();
    assert!((40..200).contains(&some), "half of the zone cannot bear it all: {some}");
    Flight::start(&balancer.endpoints()[3]).failed();
    assert!(picks(&balancer, 100).iter().all(|at| at % 2 == 0));
}
