//! The discovery stream: full state, deltas, resume, answers, and changes of the source.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod common;

use std::time::{Duration, Instant};

use common::{Mesh, SHOP, Stream, catalog, names};
use mesh_proto::discovery::v1::{
    Ack, Hello, WatchResponse, destination::Outcome, resource::Body, watch_request::Kind,
};
use mesh_testkit::ca::Svid;
use tonic::Code;

const HOST: &str = "destination/host/catalog";
const ENDPOINTS: &str = "endpoints/shop/catalog:80";

async fn shop() -> (Mesh, Svid) {
    let mesh = Mesh::start(&[("shop.yaml", SHOP)]).await;
    let svid = mesh.enroll("shop/web-1", "shop/web").await;
    (mesh, svid)
}

/// A stream that holds all of `HOST`, and the versions that it holds.
async fn subscribed(mesh: &Mesh, svid: &Svid) -> (Stream, Vec<(String, String)>) {
    let mut stream = Stream::open(mesh, svid, "shop/web-1", &[]).await;
    let first = stream.applied().await;
    assert_eq!(names(&first), ["trust-bundle", "workload"]);
    stream.subscribe(&[HOST]).await;
    let second = stream.applied().await;
    assert_eq!(names(&second), [ENDPOINTS, HOST], "endpoints before what names them");
    let held = [first, second].into_iter().flat_map(|r| r.upserts).map(|r| (r.name, r.version)).collect();
    (stream, held)
}

fn addresses(response: &WatchResponse) -> Vec<String> {
    let mut found: Vec<String> = response
        .upserts
        .iter()
        .filter_map(|resource| match resource.body.as_ref() {
            Some(Body::Endpoints(set)) => Some(set.endpoints.iter().map(|e| e.address.clone())),
            _ => None,
        })
        .flatten()
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn a_change_of_the_source_reaches_a_proxy_within_200_ms_as_a_delta() {
    let (mesh, svid) = shop().await;
    let (mut stream, _) = subscribed(&mesh, &svid).await;
    assert!(stream.quiet().await);
    let mut times = Vec::new();
    for round in 0..10 {
        let text = catalog("catalog-2", &format!("127.77.1.{}", round + 1));
        let begin = Instant::now();
        mesh.write("more.yaml", &text);
        let response = stream.applied().await;
        times.push(begin.elapsed());
        assert_eq!(names(&response), [ENDPOINTS], "only what changed");
        assert_eq!(
            addresses(&response),
            ["127.77.0.1:8080".to_owned(), format!("127.77.1.{}:8080", round + 1)]
        );
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    times.sort();
    println!("from file write to response: median {:?}, slowest {:?}", times[5], times[9]);
    assert!(times[5] < Duration::from_millis(200), "{times:?}");

    // What does not concern this proxy is not sent to it; a removed file takes its objects along.
    mesh.write("other.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x, namespace: other}\n");
    assert!(stream.quiet().await);
    std::fs::remove_file(mesh.dir.path().join("source/more.yaml")).unwrap();
    assert_eq!(addresses(&stream.applied().await), ["127.77.0.1:8080"]);
}

#[tokio::test]
async fn a_storm_of_changes_is_gathered_and_ends_right() {
    let (mesh, svid) = shop().await;
    let (mut stream, _) = subscribed(&mesh, &svid).await;
    for round in 1..=100 {
        mesh.write("more.yaml", &catalog("catalog-2", &format!("127.77.1.{round}")));
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    let mut responses = 1;
    let mut last = stream.applied().await;
    while !addresses(&last).contains(&"127.77.1.100:8080".to_owned()) {
        last = stream.applied().await;
        responses += 1;
    }
    assert!(responses <= 15, "{responses} responses for one storm");
}

#[tokio::test]
async fn resuming_sends_only_what_differs_and_removes_what_is_not_wanted_any_more() {
    let (mesh, svid) = shop().await;
    let (stream, mut held) = subscribed(&mesh, &svid).await;
    drop(stream);
    held.push(("destination/host/gone".into(), "0".into()));
    let mut stream = Stream::open(&mesh, &svid, "shop/web-1", &held).await;
    stream.subscribe(&[HOST]).await;
    assert!(stream.quiet().await, "all of it is held already");
    drop(stream);

    mesh.write("more.yaml", &catalog("catalog-2", "127.77.1.1"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut stream = Stream::open(&mesh, &svid, "shop/web-1", &held).await;
    stream.subscribe(&[HOST]).await;
    assert_eq!(names(&stream.applied().await), [ENDPOINTS]);
    // The proxy gets time to subscribe again before anything is taken away.
    let begin = Instant::now();
    let response = stream.applied().await;
    assert_eq!((names(&response).len(), response.removed), (0, vec!["destination/host/gone".to_owned()]));
    assert!(begin.elapsed() > Duration::from_secs(3));
}

#[tokio::test]
async fn removals_come_last_and_what_was_ended_is_sent_again_when_wanted_again() {
    let (mesh, svid) = shop().await;
    let (mut stream, _) = subscribed(&mesh, &svid).await;
    stream.unsubscribe(&[HOST]).await;
    let response = stream.applied().await;
    assert_eq!(response.removed, [HOST, ENDPOINTS]);
    stream.subscribe(&[HOST]).await;
    assert_eq!(names(&stream.applied().await), [ENDPOINTS, HOST]);
    // Ended and wanted again before the controller could answer: the proxy may have dropped it.
    stream.unsubscribe(&[HOST]).await;
    stream.subscribe(&[HOST]).await;
    let response = stream.applied().await;
    let again = if response.upserts.is_empty() { stream.applied().await } else { response };
    assert_eq!(names(&again), [ENDPOINTS, HOST]);

    // The Service goes: its destination changes first, its endpoints go when that is applied.
    mesh.write("shop.yaml", &SHOP.replace("name: catalog, namespace", "name: catalogue, namespace"));
    let changed = stream.next().await.unwrap();
    assert_eq!(names(&changed), [HOST]);
    let Some(Body::Destination(destination)) = &changed.upserts[0].body else { panic!("{changed:?}") };
    assert!(matches!(destination.outcome, Some(Outcome::Unknown(_))), "{destination:?}");
    assert!(stream.quiet().await, "nothing is removed before that was applied");
    stream.ack(changed.nonce, &[]).await;
    assert_eq!(stream.applied().await.removed, [ENDPOINTS]);
}

#[tokio::test]
async fn a_refused_resource_is_not_sent_again_and_holds_removals_back() {
    let (mesh, svid) = shop().await;
    let (mut stream, _) = subscribed(&mesh, &svid).await;
    mesh.write("shop.yaml", &SHOP.replace("name: catalog, namespace", "name: catalogue, namespace"));
    let changed = stream.next().await.unwrap();
    stream.ack(changed.nonce, &[HOST]).await;
    assert!(stream.quiet().await, "the proxy still uses its old destination and so its endpoints");
    mesh.write("shop.yaml", SHOP);
    let back = stream.applied().await;
    assert_eq!(names(&back), [HOST]);
    assert!(stream.quiet().await);
}

#[tokio::test]
async fn a_bad_object_keeps_its_last_good_version() {
    let more = catalog("catalog-2", "127.77.1.1");
    let mesh = Mesh::start(&[("shop.yaml", SHOP), ("more.yaml", &more)]).await;
    let svid = mesh.enroll("shop/web-1", "shop/web").await;
    let (mut stream, _) = subscribed(&mesh, &svid).await;
    // One bad object and one good one in the same file.
    let text = [catalog("catalog-2", "nonsense"), catalog("catalog-3", "127.77.1.3")].join("---\n");
    mesh.write("more.yaml", &text);
    let response = stream.applied().await;
    assert_eq!(addresses(&response), ["127.77.0.1:8080", "127.77.1.1:8080", "127.77.1.3:8080"]);
    // A file that is no YAML any more takes nothing away.
    mesh.write("more.yaml", "a: [b\n c: }{");
    assert!(stream.quiet().await);
    mesh.write("more.yaml", &catalog("catalog-3", "127.77.1.4"));
    assert_eq!(addresses(&stream.applied().await), ["127.77.0.1:8080", "127.77.1.4:8080"]);
}

#[tokio::test]
async fn streams_that_ask_for_what_is_not_theirs_end_with_a_reason() {
    let (mesh, svid) = shop().await;
    let check = async |mut stream: Stream, code: Code, hint: &str| loop {
        match stream.next().await {
            Ok(_) => {}
            Err(status) => {
                assert_eq!(status.code(), code, "{status}");
                assert!(status.message().contains(hint), "{status}");
                return;
            }
        }
    };
    check(Stream::open(&mesh, &svid, "shop/catalog-1", &[]).await, Code::PermissionDenied, "sa/catalog")
        .await;
    check(Stream::open(&mesh, &svid, "shop/nobody", &[]).await, Code::PermissionDenied, "no Workload").await;
    let not_hello = Stream::raw(&mesh, &svid).await;
    not_hello.say(Kind::Ack(Ack::default())).await;
    check(not_hello, Code::InvalidArgument, "Hello").await;
    for bad in ["endpoints/shop/catalog:80", "workload", "destination/host/UP PER", "x", ""] {
        let stream = Stream::open(&mesh, &svid, "shop/web-1", &[]).await;
        stream.subscribe(&[bad]).await;
        check(stream, Code::InvalidArgument, "").await;
    }
    let twice = Stream::open(&mesh, &svid, "shop/web-1", &[]).await;
    twice.say(Kind::Hello(Hello::default())).await;
    check(twice, Code::InvalidArgument, "once").await;
    let many = Stream::open(&mesh, &svid, "shop/web-1", &[]).await;
    let hosts: Vec<String> = (0..5000).map(|i| format!("destination/host/h{i}")).collect();
    many.subscribe(&hosts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    check(many, Code::ResourceExhausted, "4096").await;

    // The workload is deleted, or given to another account, while its proxy is connected.
    let deleted = Stream::open(&mesh, &svid, "shop/web-1", &[]).await;
    mesh.write("shop.yaml", &SHOP.replace("name: web-1", "name: web-2"));
    check(deleted, Code::NotFound, "deleted").await;
    let moved = Stream::open(&mesh, &svid, "shop/web-2", &[]).await;
    mesh.write(
        "shop.yaml",
        &SHOP.replace("web-1", "web-2").replace("serviceAccount: web", "serviceAccount: w2"),
    );
    check(moved, Code::PermissionDenied, "sa/w2").await;
}

#[tokio::test]
async fn a_proxy_that_does_not_answer_is_not_flooded_and_one_workload_has_few_streams() {
    let (mesh, svid) = shop().await;
    let mut slow = Stream::open(&mesh, &svid, "shop/web-1", &[]).await;
    slow.subscribe(&[HOST]).await;
    for round in 1..=10 {
        mesh.write("more.yaml", &catalog("catalog-2", &format!("127.77.1.{round}")));
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let mut last = 0;
    for _ in 0..4 {
        last = slow.next().await.unwrap().nonce;
    }
    assert!(slow.quiet().await, "four unanswered responses are enough");
    slow.ack(last, &[]).await;
    let newest = slow.applied().await;
    assert!(addresses(&newest).contains(&"127.77.1.10:8080".to_owned()), "{newest:?}");

    let mut streams = vec![slow];
    for _ in 0..7 {
        let mut stream = Stream::open(&mesh, &svid, "shop/web-1", &[]).await;
        stream.applied().await;
        streams.push(stream);
    }
    let error = Stream::open(&mesh, &svid, "shop/web-1", &[]).await.next().await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
}

#[tokio::test]
async fn stopping_ends_streams_with_unavailable() {
    let (mut mesh, svid) = shop().await;
    let (mut stream, _) = subscribed(&mesh, &svid).await;
    let begin = Instant::now();
    mesh.stop().await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_refused_resource_that_is_no_longer_wanted_holds_nothing_up() {
    let (mesh, svid) = shop().await;
    let mut stream = Stream::open(&mesh, &svid, "shop/web-1", &[]).await;
    stream.applied().await;
    stream.subscribe(&[HOST]).await;
    let response = stream.next().await.unwrap();
    stream.ack(response.nonce, &[HOST]).await;
    stream.unsubscribe(&[HOST]).await;
    // Removals wait for as long as something that the proxy is to hold was refused.
    let response = stream.applied().await;
    assert_eq!(response.removed, [HOST, ENDPOINTS]);
}
