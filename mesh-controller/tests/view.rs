//! The view API: who may read it, and what it shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod common;

use common::{Mesh, SHOP, Stream, workload};
use mesh_proto::{
    common::v1 as pb,
    telemetry::v1::{Direction, EdgeKey, EdgeSummary, ReportRequest, telemetry_client::TelemetryClient},
    view::v1::{
        GetStatusRequest, ListEdgesRequest, ListProblemsRequest, ListServicesRequest, ListWorkloadsRequest,
        view_client::ViewClient,
    },
};
use mesh_testkit::net::{PATIENCE, eventually};
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

async fn channel(mesh: &Mesh) -> Channel {
    Endpoint::from_shared(format!("http://{}", mesh.addresses().view)).unwrap().connect().await.unwrap()
}

/// A request with the view token.
fn with_token<T>(mesh: &Mesh, message: T) -> Request<T> {
    let token = std::fs::read_to_string(mesh.data("view-token")).unwrap();
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn only_the_tokens_holder_reads_and_no_web_page() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let mut client = ViewClient::new(channel(&mesh).await);
    let status = client.get_status(with_token(&mesh, GetStatusRequest {})).await.unwrap().into_inner();
    assert_eq!(status.trust_domain, "cluster.local");
    assert_eq!((status.anchors.len(), status.generation, status.objects), (1, 1, 4));
    assert!(status.source.ends_with("source"));

    let code = |result: Result<_, tonic::Status>| result.map(|_: tonic::Response<_>| ()).unwrap_err().code();
    assert_eq!(code(client.get_status(GetStatusRequest {}).await), Code::Unauthenticated);
    let mut wrong = Request::new(GetStatusRequest {});
    wrong.metadata_mut().insert("authorization", "Bearer wrong".parse().unwrap());
    assert_eq!(code(client.get_status(wrong).await), Code::Unauthenticated);
    let mut page = with_token(&mesh, GetStatusRequest {});
    page.metadata_mut().insert("origin", "http://evil.example".parse().unwrap());
    assert_eq!(code(client.get_status(page).await), Code::PermissionDenied);

    // DNS rebinding: the page's own name in the authority, although the connection goes to loopback.
    let there = Endpoint::from_shared(format!("http://{}", mesh.addresses().view)).unwrap();
    let there = there.origin("http://rebound.example:15080".parse().unwrap());
    let mut rebound = ViewClient::new(there.connect().await.unwrap());
    assert_eq!(
        code(rebound.get_status(with_token(&mesh, GetStatusRequest {})).await),
        Code::PermissionDenied
    );
    // Whatever speaks HTTP/1.1, as a page's form would, is not answered at all.
    let stream = tokio::net::TcpStream::connect(mesh.addresses().view).await.unwrap();
    let mut http1 = mesh_testkit::client::Connection::http1(stream).await;
    assert!(http1.get("/", "localhost").await.is_err());
}

#[tokio::test]
async fn workloads_services_and_problems_are_shown() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP), ("bad.yaml", "kind: [")]).await;
    let svid = mesh.enroll("shop/web-1", "shop/web").await;
    let mut stream = Stream::open(&mesh, &svid, "shop/web-1", &[]).await;
    stream.applied().await;
    stream.subscribe(&["destination/host/catalog"]).await;
    stream.applied().await;
    let mut client = ViewClient::new(channel(&mesh).await);

    let problems =
        client.list_problems(with_token(&mesh, ListProblemsRequest {})).await.unwrap().into_inner();
    assert!(
        problems.problems.iter().any(|p| p.file == "bad.yaml" && p.refused && p.line > 0),
        "{problems:?}"
    );
    let services = ListServicesRequest { namespace: "shop".into() };
    let services = client.list_services(with_token(&mesh, services)).await.unwrap().into_inner().services;
    assert_eq!(services.len(), 1);
    assert_eq!(services[0].endpoints[0].address, "127.77.0.1:8080");
    let none = ListWorkloadsRequest { namespace: "other".into() };
    assert_eq!(client.list_workloads(with_token(&mesh, none)).await.unwrap().into_inner().workloads, []);

    let proxy = eventually(PATIENCE, "the acknowledgement is shown", || {
        let (mut client, request) = (client.clone(), with_token(&mesh, ListWorkloadsRequest::default()));
        async move {
            let workloads = client.list_workloads(request).await.unwrap().into_inner().workloads;
            assert_eq!(workloads.len(), 2);
            assert!(workloads[0].proxy.is_none(), "it never connected");
            assert_eq!(workloads[0].labels["app"], "catalog");
            workloads[1].proxy.clone().filter(|proxy| proxy.generation == 1)
        }
    })
    .await;
    assert!(proxy.connected && proxy.certificate_not_after > 0 && proxy.since_millis > 0, "{proxy:?}");
    assert_eq!((proxy.version.as_str(), proxy.instance.as_str(), proxy.pending), ("0.1.0", "test", 0));
    assert_eq!(proxy.subscriptions, ["destination/host/catalog"]);

    drop(stream);
    eventually(PATIENCE, "the loss of the stream is shown", || {
        let (mut client, request) = (client.clone(), with_token(&mesh, ListWorkloadsRequest::default()));
        async move {
            let workloads = client.list_workloads(request).await.unwrap().into_inner().workloads;
            workloads[1].proxy.as_ref().is_some_and(|proxy| !proxy.connected).then_some(())
        }
    })
    .await;
}

fn edge(source: &str, requests: u64) -> EdgeSummary {
    EdgeSummary {
        key: Some(EdgeKey {
            direction: Direction::Outbound.into(),
            source: source.into(),
            destination: "spiffe://cluster.local/ns/shop/sa/catalog".into(),
            service: Some(pb::ServicePort { namespace: "shop".into(), name: "catalog".into(), port: 80 }),
            protocol: pb::Protocol::Http1.into(),
            secured: true,
            ..EdgeKey::default()
        }),
        requests,
        connections: 1,
        latency: Some(pb::Histogram {
            buckets: vec![40],
            counts: vec![requests],
            sum_micros: requests * 100,
        }),
        ..EdgeSummary::default()
    }
}

#[tokio::test]
async fn edges_are_what_proxies_reported_of_themselves() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let svid = mesh.enroll("shop/web-1", "shop/web").await;
    let mut telemetry = TelemetryClient::new(mesh.channel(Some(&svid)).await.unwrap());
    let report = |instance: &str, uptime: u64, edge: EdgeSummary| ReportRequest {
        workload: workload("shop/web-1"),
        instance: instance.into(),
        edges: vec![edge],
        uptime_millis: uptime,
    };
    let answer = telemetry.report(report("a", 1000, edge(WEB, 100))).await.unwrap().into_inner();
    assert!(answer.next_after_millis > 0);
    telemetry.report(report("a", 2000, edge(WEB, 150))).await.unwrap();
    telemetry.report(report("b", 500, edge(WEB, 5))).await.unwrap();
    let lie = edge("spiffe://cluster.local/ns/shop/sa/catalog", 9);
    let error = telemetry.report(report("b", 600, lie)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("edges[0].key.source"), "{error}");

    let mut many = report("b", 700, edge(WEB, 5));
    many.edges.extend(vec![EdgeSummary::default(); 700_000]);
    let error = telemetry.clone().max_encoding_message_size(1 << 23).report(many).await.unwrap_err();
    assert!(error.message().contains("edges[1].key"), "what is malformed is told: {error}");
    let mut large = report("b", 700, edge(WEB, 5));
    large.edges.extend(vec![EdgeSummary::default(); 1_100_000]);
    let error = telemetry.clone().max_encoding_message_size(1 << 23).report(large).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error}");

    let mut client = ViewClient::new(channel(&mesh).await);
    let mut list = async |namespace: &str, window_millis| {
        let request = ListEdgesRequest { namespace: namespace.into(), window_millis };
        client.list_edges(with_token(&mesh, request)).await.map(|answer| answer.into_inner().edges)
    };
    let edges = list("", 0).await.unwrap();
    assert_eq!(edges.len(), 1);
    let summary = edges[0].summary.as_ref().unwrap();
    assert_eq!(summary.requests, 155, "over a restart");
    assert_eq!(summary.latency.as_ref().unwrap().counts, [155]);
    assert_eq!(edges[0].reporter, workload("shop/web-1"));
    assert_eq!(list("shop", 10_000).await.unwrap()[0].summary.as_ref().unwrap().requests, 155);
    assert_eq!(list("other", 0).await.unwrap(), []);
    assert_eq!(list("", 600_001).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn who_reports_too_often_is_refused() {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let svid = mesh.enroll("shop/web-1", "shop/web").await;
    let mut telemetry = TelemetryClient::new(mesh.channel(Some(&svid)).await.unwrap());
    let mut refused = 0;
    for uptime_millis in 0..100 {
        let edges = vec![edge(WEB, 1)];
        let workload = workload("shop/web-1");
        let request = ReportRequest { workload, instance: "a".into(), edges, uptime_millis };
        match telemetry.report(request).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}
