//! Last known good, refusals, resumption and subscriptions.

use mesh_core::{
    addr::EndpointAddr,
    config::{Destination, Endpoint, TrustBundle},
    name::{ObjectRef, ServicePort, WorkloadRef},
    protocol::Protocol,
    resource::ResourceName,
    route::{Backend, RouteRule, ServiceRoutes},
};
use mesh_proto::{
    convert::{Resource, ResourceBody, Wire as _},
    discovery::v1::resource::Body,
};
use mesh_proxy::Proxy;
use mesh_testkit::{
    ca::TestCa,
    client::Connection,
    net::{PATIENCE, eventually},
};
use tokio::net::TcpStream;

use crate::rig::{Rig, admin, cart, generation, get, metric};

/// Waits until the workload's only port is this one in the proxy's configuration.
async fn serves(proxy: &Proxy, port: u16) {
    let seen = || async {
        let config = admin(proxy, "/config").await;
        (config["workload"]["inbound"][0]["port"] == port).then_some(())
    };
    eventually(PATIENCE, "the new workload configuration", seen).await;
}

/// Waits for a refusal of a resource; returns its text.
async fn rejection(rig: &Rig, name: &str) -> String {
    let found = || async {
        let answers = rig.controller.answers();
        let all = answers.iter().flat_map(|answer| &answer.ack.rejected);
        all.filter(|rejected| rejected.name == name).map(|rejected| rejected.error.clone()).next()
    };
    eventually(PATIENCE, "a refusal", found).await
}

#[tokio::test]
async fn the_workload_follows_and_listeners_with_it() {
    let rig = Rig::new().await;
    let proxy = rig.ready().await;
    assert!(TcpStream::connect((rig.ip, 8080)).await.is_ok());
    rig.set_workload(&rig.workload(8081));
    serves(&proxy, 8081).await;
    let open = |port| async move { TcpStream::connect((rig.ip, port)).await.ok().map(drop) };
    eventually(PATIENCE, "the new listener", || open(8081)).await;
    let closed = || async { open(8080).await.is_none().then_some(()) };
    eventually(PATIENCE, "the old listener closed", closed).await;
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_listener_that_cannot_stand_is_told_and_retried() {
    let rig = Rig::new().await;
    let squatter = tokio::net::TcpListener::bind((rig.ip, 8080)).await.unwrap();
    let proxy = rig.start().await;
    let told = || async {
        let (status, body) = get(proxy.addresses().health, "/ready").await;
        (status == 503 && body.contains(&format!("{}:8080", rig.ip))).then_some(())
    };
    eventually(PATIENCE, "the problem", told).await;
    drop(squatter);
    tokio::time::timeout(PATIENCE, proxy.ready()).await.expect("ready when the port is free");
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_bad_workload_keeps_the_last_good_one() {
    let rig = Rig::new().await;
    let proxy = rig.ready().await;
    let body = ResourceBody::Workload(rig.workload(8082));
    let mut broken = Resource::new(ResourceName::Workload, body).to_wire();
    let Some(Body::Workload(config)) = &mut broken.body else { panic!("a workload") };
    config.inbound[0].port = 70_000;
    rig.controller.set_message(Some(&cart()), broken);
    let error = rejection(&rig, "workload").await;
    assert!(error.contains("port"), "{error}");
    serves(&proxy, 8080).await;
    let mut foreign = rig.workload(8083);
    foreign.identity = rig.ca.id("shop", "job");
    rig.set_workload(&foreign);
    let told = || async {
        let answers = rig.controller.answers();
        let mut all = answers.iter().flat_map(|answer| &answer.ack.rejected);
        all.any(|rejected| rejected.error.contains("sa/job")).then_some(())
    };
    eventually(PATIENCE, "a configuration for another identity is refused", told).await;
    serves(&proxy, 8080).await;
    rig.set_workload(&rig.workload(8084));
    serves(&proxy, 8084).await;
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_new_root_makes_a_new_epoch_and_a_bad_bundle_none() {
    let rig = Rig::new().await;
    let proxy = rig.ready().await;
    let before = generation(&proxy).await;
    let foreign = TrustBundle { trust_domain: "other.mesh".parse().unwrap(), ..rig.ca.bundle() };
    rig.controller.set(ResourceName::TrustBundle, ResourceBody::TrustBundle(foreign));
    let error = rejection(&rig, "trust-bundle").await;
    assert!(error.contains("other.mesh"), "{error}");
    assert_eq!(generation(&proxy).await, before);
    let mut both = rig.ca.bundle();
    both.roots.push(TestCa::new("cluster.local").root().to_vec());
    rig.controller.set(ResourceName::TrustBundle, ResourceBody::TrustBundle(both));
    let newer = || async { (generation(&proxy).await > before).then_some(()) };
    eventually(PATIENCE, "a new epoch", newer).await;
    assert_eq!(admin(&proxy, "/certificates").await["roots"].as_array().unwrap().len(), 2);
    proxy.shutdown().await;
}

#[tokio::test]
async fn when_the_controller_is_lost_what_is_known_stays_and_the_stream_resumes() {
    let mut rig = Rig::new().await;
    let proxy = rig.ready().await;
    let connected = |value: f64| {
        let proxy = &proxy;
        let holds =
            move || async move { (metric(proxy, "mesh_discovery_connected").await == value).then_some(()) };
        eventually(PATIENCE, "the connection's state", holds)
    };
    connected(1.0).await;
    assert_eq!(metric(&proxy, "mesh_discovery_age_seconds").await, 0.0);
    rig.controller.stop().await;
    connected(0.0).await;
    assert!(metric(&proxy, "mesh_discovery_age_seconds").await > 0.0);
    assert_eq!(get(proxy.addresses().health, "/ready").await.0, 200);
    serves(&proxy, 8080).await;
    rig.controller.restart().await;
    connected(1.0).await;
    let hellos = rig.controller.hellos();
    let (first, last) = (hellos.first().unwrap(), hellos.last().unwrap());
    assert_eq!(first.known, []);
    let mut known: Vec<&str> = last.known.iter().map(|known| known.name.as_str()).collect();
    known.sort_unstable();
    assert_eq!(known, ["trust-bundle", "workload"]);
    assert_eq!(first.instance, last.instance);
    // The controller has nothing new to say, and is told all the same.
    let before = rig.controller.reports().len();
    let reported = || async { (rig.controller.reports().len() > before).then_some(()) };
    eventually(PATIENCE, "a report after the controller came back", reported).await;
    proxy.shutdown().await;
}

/// A Service that one endpoint serves, which is not there.
fn set_service(rig: &Rig, name: &str) {
    let port = ServicePort::new("shop", name, 80);
    let rule = RouteRule::new(ObjectRef::new("Service", "shop", name), vec![Backend::new(port.clone(), 1)]);
    let routes = ServiceRoutes::new(port.clone(), Protocol::Http1, vec![rule]);
    let endpoint = Endpoint {
        address: EndpointAddr(([127, 0, 0, 1], 1).into()),
        identity: Some(rig.ca.id("shop", name)),
        workload: WorkloadRef::new("shop", name),
        protocol: Protocol::Http1,
        zone: "".into(),
    };
    rig.controller.set(ResourceName::Endpoints(port), ResourceBody::Endpoints(vec![endpoint]));
    rig.controller.set_host(name, Destination::Service(routes));
}

/// Sends one request to a host through the proxy; returns the reason of the answer.
async fn call(proxy: &Proxy, host: &str) -> String {
    let stream = TcpStream::connect(proxy.addresses().outbound).await.unwrap();
    let response = Connection::http1(stream).await.get("/", host).await.unwrap();
    let reason = response.headers().get(mesh_core::reason::REASON_HEADER);
    reason.map(|reason| reason.to_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn what_is_called_is_subscribed_and_resumed() {
    let mut rig = Rig::new().await;
    set_service(&rig, "catalog");
    let proxy = rig.ready().await;
    assert_eq!(call(&proxy, "catalog").await, "UPSTREAM_CONNECT_FAILED");
    assert!(rig.controller.subscriptions(&cart()).contains("destination/host/catalog"));
    let destinations = admin(&proxy, "/destinations").await;
    assert_eq!(destinations[0]["destination"]["service"]["name"], "shop/catalog:80");
    assert_eq!(admin(&proxy, "/endpoints").await[0]["endpoints"][0]["address"], "127.0.0.1:1");
    rig.controller.stop().await;
    assert_eq!(call(&proxy, "catalog").await, "UPSTREAM_CONNECT_FAILED", "last known good");
    assert_eq!(call(&proxy, "inventory").await, "DISCOVERY_UNAVAILABLE");
    set_service(&rig, "inventory");
    rig.controller.restart().await;
    let answered = || async { (call(&proxy, "inventory").await == "UPSTREAM_CONNECT_FAILED").then_some(()) };
    eventually(PATIENCE, "the new destination", answered).await;
    let known = rig.controller.hellos().last().unwrap().known.clone();
    let held = |name: &str| known.iter().any(|known| known.name == name && !known.version.is_empty());
    assert!(held("destination/host/catalog") && held("endpoints/shop/catalog:80"), "{known:?}");
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_proxy_that_starts_without_controller_answers_and_sends_nothing() {
    let mut rig = Rig::new().await;
    set_service(&rig, "catalog");
    rig.controller.stop().await;
    let proxy = rig.start().await;
    assert_eq!(call(&proxy, "catalog").await, "DISCOVERY_UNAVAILABLE");
    rig.controller.restart().await;
    tokio::time::timeout(PATIENCE, proxy.ready()).await.expect("ready when the controller is there");
    assert_eq!(call(&proxy, "catalog").await, "UPSTREAM_CONNECT_FAILED");
    proxy.shutdown().await;
}
