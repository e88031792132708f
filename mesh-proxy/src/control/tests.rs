//! Responses are applied whole; bad resources keep their last good version.

use mesh_core::{
    addr::EndpointAddr,
    name::{ObjectRef, WorkloadRef},
    protocol::Protocol,
    resource::ResourceName,
    route::{Backend, RouteRule, ServiceRoutes},
};
use mesh_proto::{
    convert::{Resource, ResourceBody, Wire as _},
    discovery::v1::Resource as Message,
};

use super::*;

#[derive(Default)]
struct Taken {
    bundles: usize,
    refuse: bool,
}

impl Sink for Taken {
    fn trust_bundle(&mut self, _: TrustBundle) -> Result<(), String> {
        self.bundles += 1;
        if self.refuse { Err("no".to_owned()) } else { Ok(()) }
    }

    fn workload(&mut self, _: WorkloadConfig) -> Result<(), String> {
        Ok(())
    }
}

fn port(name: &str) -> ServicePort {
    ServicePort::new("shop", name, 80)
}

fn key(name: &str) -> DestinationKey {
    DestinationKey::Host(name.parse().unwrap())
}

fn destination(name: &str, backends: &[&str]) -> Message {
    let backend = |b: &&str| Backend::new(port(b), 1);
    let rule =
        RouteRule::new(ObjectRef::new("Service", "shop", name), backends.iter().map(backend).collect());
    let routes = ServiceRoutes::new(port(name), Protocol::Http1, vec![rule]);
    let body = ResourceBody::Destination(Destination::Service(routes));
    Resource::new(ResourceName::Destination(key(name)), body).to_wire()
}

fn endpoints(name: &str, count: u8) -> Message {
    let endpoint = |index| Endpoint {
        address: EndpointAddr(([127, 0, 0, index], 80).into()),
        identity: None,
        workload: WorkloadRef::new("shop", name),
        protocol: Protocol::Http1,
        zone: "".into(),
    };
    let body = ResourceBody::Endpoints((1..=count).map(endpoint).collect());
    Resource::new(ResourceName::Endpoints(port(name)), body).to_wire()
}

fn response(upserts: Vec<Message>, removed: &[&str]) -> WatchResponse {
    WatchResponse { nonce: 1, upserts, removed: removed.iter().map(|&name| name.to_owned()).collect() }
}

fn rejected(applied: &store::Applied) -> Vec<&str> {
    applied.rejected.iter().map(|r| r.name.as_str()).collect()
}

#[test]
fn a_response_is_applied_whole_whatever_its_order() {
    let mut store = Store::default();
    let upserts = vec![destination("cart", &["v1", "v2"]), endpoints("v2", 2), endpoints("v1", 1)];
    let applied = store.apply(&response(upserts, &[]), &mut Taken::default());
    assert_eq!(rejected(&applied), [""; 0]);
    assert!(applied.touched.contains(&key("cart")));
    let resolved = store.resolve(&key("cart")).unwrap();
    assert_eq!(resolved.endpoints[&port("v1")].len(), 1);
    assert_eq!(resolved.endpoints[&port("v2")].len(), 2);
}

#[test]
fn new_endpoints_touch_the_destinations_that_use_them() {
    let mut store = Store::default();
    let upserts = vec![endpoints("v1", 1), destination("cart", &["v1"]), destination("job", &[])];
    store.apply(&response(upserts, &[]), &mut Taken::default());
    let applied = store.apply(&response(vec![endpoints("v1", 3)], &[]), &mut Taken::default());
    assert_eq!(applied.touched.into_iter().collect::<Vec<_>>(), [key("cart")]);
}

#[test]
fn a_bad_resource_keeps_its_last_good_version_and_others_apply() {
    let mut store = Store::default();
    store
        .apply(&response(vec![endpoints("v1", 1), destination("cart", &["v1"])], &[]), &mut Taken::default());
    let mut bad = endpoints("v1", 2);
    bad.body = None;
    let unknown = Message { name: "nonsense".to_owned(), version: "1".to_owned(), body: None };
    let upserts = vec![bad, unknown, endpoints("v2", 1)];
    let applied = store.apply(&response(upserts, &[]), &mut Taken::default());
    assert_eq!(rejected(&applied), ["endpoints/shop/v1:80", "nonsense"]);
    assert_eq!(store.resolve(&key("cart")).unwrap().endpoints[&port("v1")].len(), 1);
    assert_eq!(store.endpoints().count(), 2);
}

#[test]
fn a_destination_without_its_endpoints_is_refused() {
    let mut store = Store::default();
    let applied = store.apply(&response(vec![destination("cart", &["v1"])], &[]), &mut Taken::default());
    assert_eq!(rejected(&applied), ["destination/host/cart"]);
    assert_eq!(store.resolve(&key("cart")), None);
}

#[test]
fn a_refused_bundle_has_no_version() {
    let bundle = TrustBundle { trust_domain: "cluster.local".parse().unwrap(), roots: vec![vec![1]] };
    let message = Resource::new(ResourceName::TrustBundle, ResourceBody::TrustBundle(bundle)).to_wire();
    let mut store = Store::default();
    let mut sink = Taken { refuse: true, ..Taken::default() };
    let applied = store.apply(&response(vec![message.clone()], &[]), &mut sink);
    assert_eq!((rejected(&applied), store.known().len()), (vec!["trust-bundle"], 0));
    sink.refuse = false;
    store.apply(&response(vec![message], &[]), &mut sink);
    assert_eq!((sink.bundles, store.known().len()), (2, 1));
}

#[test]
fn what_no_subscription_needs_is_dropped_between_streams() {
    let mut store = Store::default();
    let upserts = vec![
        endpoints("v1", 1),
        endpoints("v2", 1),
        destination("cart", &["v1"]),
        destination("job", &["v1", "v2"]),
    ];
    store.apply(&response(upserts, &[]), &mut Taken::default());
    store.retain(|k| *k == key("cart"));
    let mut names: Vec<String> = store.known().into_iter().map(|known| known.name).collect();
    names.sort();
    assert_eq!(names, ["destination/host/cart", "endpoints/shop/v1:80"]);
}

#[test]
fn removal_ends_what_was_subscribed_but_never_the_proxys_own() {
    let mut store = Store::default();
    store
        .apply(&response(vec![endpoints("v1", 1), destination("cart", &["v1"])], &[]), &mut Taken::default());
    let names = ["destination/host/cart", "endpoints/shop/v1:80", "workload", "trust-bundle", "nonsense"];
    let applied = store.apply(&response(vec![], &names), &mut Taken::default());
    assert_eq!(rejected(&applied), [""; 0]);
    assert_eq!(store.len(), 0);
}
