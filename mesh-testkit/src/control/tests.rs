//! The fake controller speaks the protocol.

use mesh_core::{
    addr::EndpointAddr,
    config::{Destination, Endpoint},
    name::{ObjectRef, ServicePort},
    protocol::Protocol,
    route::{Backend, RouteRule, ServiceRoutes},
};
use mesh_proto::{
    discovery::v1::watch_request::Kind,
    discovery::v1::{
        Ack, Hello, KnownResource, Subscribe, Unsubscribe, WatchRequest, WatchResponse,
        discovery_client::DiscoveryClient,
    },
    identity::v1::{
        CertifyRequest, CurrentCertificate, certify_request::Proof, identity_client::IdentityClient,
    },
    telemetry::v1::telemetry_client::TelemetryClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};

use super::*;
use crate::{client, net::fresh_addr, tls};

async fn controller() -> FakeController {
    FakeController::start(fresh_addr(0), Arc::new(TestCa::new("cluster.local"))).await
}

/// A gRPC channel that knows the controller by name.
async fn channel(controller: &FakeController, svid: Option<&Svid>) -> Channel {
    let id = SpiffeId::controller(controller.ca().trust_domain());
    let config = tls::mesh_client(controller.ca(), svid, Some(&id), &[b"h2"]);
    client::grpc(controller.address(), config).await.expect("connects")
}

fn cart() -> WorkloadRef {
    WorkloadRef::new("shop", "cart-1")
}

/// A stream with its two ends.
struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
}

impl Stream {
    async fn open(controller: &FakeController, known: Vec<KnownResource>) -> Self {
        let svid = controller.ca().svid("shop", "cart");
        let mut client = DiscoveryClient::new(channel(controller, Some(&svid)).await);
        let (requests, receiver) = mpsc::channel(8);
        let responses = client.watch(ReceiverStream::new(receiver)).await.expect("a stream").into_inner();
        let stream = Self { requests, responses };
        let hello =
            Hello { workload: Some(cart().to_wire()), instance: "i".into(), known, ..Default::default() };
        stream.say(Kind::Hello(hello)).await;
        stream
    }

    async fn say(&self, kind: Kind) {
        self.requests.send(WatchRequest { kind: Some(kind) }).await.expect("open");
    }

    /// Names of the next response: what is new, and what is gone.
    async fn next(&mut self) -> (Vec<String>, Vec<String>) {
        let response = self.responses.message().await.expect("no error").expect("a response");
        (response.upserts.into_iter().map(|resource| resource.name).collect(), response.removed)
    }
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn inventory() -> (ServicePort, Destination) {
    let service = ServicePort::new("shop", "inventory", 7000);
    let backend = Backend::new(service.clone(), 1);
    let object = ObjectRef::new("Service", "shop", "inventory");
    let rules = vec![RouteRule::new(object, vec![backend])];
    (service.clone(), Destination::Service(ServiceRoutes::new(service, Protocol::Opaque, rules)))
}

fn endpoint(port: u16) -> ResourceBody {
    ResourceBody::Endpoints(vec![Endpoint {
        address: EndpointAddr(([127, 0, 0, 1], port).into()),
        identity: None,
        workload: WorkloadRef::new("shop", "inventory-1"),
        protocol: Protocol::Opaque,
        zone: "".into(),
    }])
}

#[tokio::test]
async fn deltas_follow_the_subscriptions() {
    let controller = controller().await;
    let (service, destination) = inventory();
    controller.set(ResourceName::Endpoints(service.clone()), endpoint(1));
    controller.set_host("inventory:7000", destination);
    let mut stream = Stream::open(&controller, vec![]).await;
    assert_eq!(stream.next().await, (names(&["trust-bundle"]), vec![]));
    let host = names(&["destination/host/inventory:7000"]);
    stream.say(Kind::Subscribe(Subscribe { names: host.clone() })).await;
    let both = names(&["endpoints/shop/inventory:7000", "destination/host/inventory:7000"]);
    assert_eq!(stream.next().await, (both.clone(), vec![]), "endpoints first");
    assert!(controller.subscriptions(&cart()).contains(&host[0]));
    controller.set(ResourceName::Endpoints(service), endpoint(2));
    assert_eq!(
        stream.next().await,
        (names(&["endpoints/shop/inventory:7000"]), vec![]),
        "what changed, and no more"
    );
    stream.say(Kind::Ack(Ack { nonce: 3, rejected: vec![] })).await;
    stream.say(Kind::Unsubscribe(Unsubscribe { names: host })).await;
    let mut gone = both;
    gone.sort();
    assert_eq!(stream.next().await, (vec![], gone));
    assert_eq!(controller.answers()[0].ack.nonce, 3);
    assert_eq!(controller.hellos().len(), 1);
}

#[tokio::test]
async fn comes_back_and_sends_only_what_differs() {
    let mut controller = controller().await;
    let bundle =
        Resource::new(ResourceName::TrustBundle, ResourceBody::TrustBundle(controller.ca().bundle()));
    let mut stream = Stream::open(&controller, vec![]).await;
    stream.next().await;
    controller.stop().await;
    stream.responses.message().await.expect_err("is gone");
    controller.restart().await;
    let known = vec![KnownResource { name: "trust-bundle".into(), version: bundle.version }];
    let mut stream = Stream::open(&controller, known).await;
    controller.set_message(
        Some(&cart()),
        mesh_proto::discovery::v1::Resource { name: "workload".into(), version: "broken".into(), body: None },
    );
    assert_eq!(stream.next().await, (names(&["workload"]), vec![]), "the bundle is known");
}

#[tokio::test]
async fn certificates_are_for_holders_of_proofs() {
    let controller = controller().await;
    let id = controller.ca().id("shop", "cart");
    controller.allow_token("secret", id.clone());
    let key = rcgen::KeyPair::generate().expect("a key");
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
    let ask = |proof| CertifyRequest {
        workload: Some(cart().to_wire()),
        csr_der: request.der().to_vec(),
        proof: Some(proof),
    };
    let mut client = IdentityClient::new(channel(&controller, None).await);
    let granted = client.certify(ask(Proof::Token("secret".into()))).await.expect("granted").into_inner();
    assert_eq!(identity_of(&granted.chain_der[0]), Some(id.clone()));
    assert_eq!(granted.identity, id.as_str());
    let refused = client.certify(ask(Proof::Token("guess".into()))).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let current = || ask(Proof::CurrentCertificate(CurrentCertificate {}));
    client.certify(current()).await.expect_err("has none");
    let mut holder =
        IdentityClient::new(channel(&controller, Some(&controller.ca().svid("shop", "cart"))).await);
    holder.certify(current()).await.expect("renewed");
    let proven: Vec<bool> = controller.certified().iter().map(|c| c.identity.is_some()).collect();
    assert_eq!(proven, [true, false, false, true]);
}

#[tokio::test]
async fn strangers_learn_nothing() {
    let controller = controller().await;
    let mut telemetry = TelemetryClient::new(channel(&controller, None).await);
    let refused = telemetry.report(ReportRequest::default()).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut discovery = DiscoveryClient::new(channel(&controller, None).await);
    let refused = discovery.watch(tokio_stream::empty()).await.expect_err("refused");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let svid = controller.ca().svid("shop", "cart");
    let mut telemetry = TelemetryClient::new(channel(&controller, Some(&svid)).await);
    telemetry.report(ReportRequest { instance: "i".into(), ..Default::default() }).await.expect("taken");
    assert_eq!(controller.reports().len(), 1);
}
