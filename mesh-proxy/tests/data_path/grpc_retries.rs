//! Retries after a status of gRPC: only a listed one, only without messages, only as often as allowed.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Response};
use mesh_core::{
    matching::{PathMatch, RequestMatch},
    protocol::Protocol,
    route::ServiceRoutes,
    settings::{CallSettings, InboundLimits, Retry, RetryBudget, RetryOn, Share},
};

use crate::{
    grpc_app::{Answer, GrpcApp, call, message},
    mesh::{Several, reason},
};

const UNAVAILABLE: RetryOn = RetryOn::Grpc(14);

fn retry(retries: u32, on: &[RetryOn]) -> Retry {
    Retry { retries, on: on.to_vec(), backoff: Some(std::time::Duration::from_millis(2)), ..Retry::default() }
}

/// A Service of these applications.
async fn start(apps: &[&GrpcApp], change: impl FnOnce(&mut ServiceRoutes)) -> Several {
    let apps: Vec<_> = apps.iter().map(|app| app.address()).collect();
    Several::start(Protocol::Grpc, &apps, change, &InboundLimits::default()).await
}

/// Calls that are tried again as `retry` says, as often as `budget` lets them.
fn calls(retry: Retry, budget: RetryBudget) -> impl FnOnce(&mut ServiceRoutes) {
    move |routes| {
        routes.calls = Arc::new(CallSettings { retry: Some(retry), budget, ..CallSettings::default() });
    }
}

fn status<B>(response: &Response<B>) -> &str {
    response.headers()["grpc-status"].to_str().unwrap()
}

/// It is the application's answer, with everything that it said.
fn is_untouched(response: &Response<Bytes>) {
    let field = |name: &'static str| response.headers()[HeaderName::from_static(name)].to_str().unwrap();
    assert_eq!((response.status().as_u16(), field("content-type")), (200, "application/grpc"));
    assert_eq!((field("grpc-message"), field("x-cost-bin")), ("says%20the%20app", "AAEC"));
    assert_eq!(reason(response), None);
}

#[tokio::test]
async fn a_listed_status_without_messages_is_tried_elsewhere() {
    let bad = GrpcApp::start(|_| Answer::Only("14")).await;
    let good = GrpcApp::start(|_| Answer::Echo).await;
    let several = start(&[&bad, &good], calls(retry(1, &[UNAVAILABLE]), RetryBudget::default())).await;
    let mut connection = several.client.http2().await;
    let body = message(&[b'x'; 20_000]);
    for _ in 0..30 {
        let response = connection.send(call("Any", body.clone())).await.unwrap();
        assert_eq!((status(&response), reason(&response)), ("0", None));
        assert!(*response.body() == body, "whole, {} bytes", response.body().len());
    }
    let retries = several.client.metric("mesh_retries_total", &["workload=\"shop/server-0\""]).await;
    assert!(retries >= 1 && retries == bad.calls(), "{retries} {}", bad.calls());
    assert_eq!(good.calls(), 30);
    several.client.counted(&["workload=\"shop/server-1\"", "reason=\"\""], 30).await;
}

/// Once a message or a head of its own has come, the answer is the caller's; so is any status that nobody listed.
#[tokio::test]
async fn other_answers_are_passed_on_as_they_are() {
    for (answer, expected, text) in [
        (Answer::Message("part".into(), "14"), "14", message(b"part")),
        (Answer::Late("14"), "14", Bytes::new()),
        (Answer::Only("5"), "5", Bytes::new()),
        (Answer::Message("all".into(), "0"), "0", message(b"all")),
    ] {
        let how = answer.clone();
        let app = GrpcApp::start(move |_| how.clone()).await;
        let on = [UNAVAILABLE, RetryOn::Grpc(8), RetryOn::ServerError, RetryOn::Reset];
        let several = start(&[&app, &app], calls(retry(3, &on), RetryBudget::default())).await;
        let mut connection = several.client.http2().await;
        for _ in 0..3 {
            let response = connection.send(call("Any", message(b"x"))).await.unwrap();
            assert_eq!((status(&response), response.body()), (expected, &text), "{answer:?}");
            is_untouched(&response);
        }
        assert_eq!(app.calls(), 3, "{answer:?}");
        assert_eq!(several.client.metric("mesh_retries_total", &[]).await, 0, "{answer:?}");
    }
}

#[tokio::test]
async fn tries_end_and_the_last_answer_is_the_callers() {
    let bad = GrpcApp::start(|_| Answer::Only("14")).await;
    let several = start(&[&bad, &bad], calls(retry(3, &[UNAVAILABLE]), RetryBudget::default())).await;
    let mut connection = several.client.http2().await;
    let response = connection.send(call("Any", message(b"x"))).await.unwrap();
    assert_eq!((status(&response), bad.calls()), ("14", 4));
    is_untouched(&response);
    assert_eq!(several.client.metric("mesh_retries_total", &[]).await, 3);
    // Without what is always allowed, retries are a share of the calls.
    let hour = std::time::Duration::from_secs(3600);
    let none = RetryBudget { share: Share::default(), min_per_second: 0, interval: hour };
    let some = RetryBudget { share: Share::of(50, 100), min_per_second: 0, interval: hour };
    for (budget, expected) in [(none, 10), (some, 15)] {
        let bad = GrpcApp::start(|_| Answer::Only("14")).await;
        let several = start(&[&bad, &bad], calls(retry(3, &[UNAVAILABLE]), budget)).await;
        let mut connection = several.client.http2().await;
        for _ in 0..10 {
            let response = connection.send(call("Any", message(b"x"))).await.unwrap();
            assert_eq!(status(&response), "14");
            is_untouched(&response);
        }
        assert_eq!(bad.calls(), expected, "{budget:?}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_kept_is_not_sent_again() {
    let bad = GrpcApp::start(|_| Answer::Read(|_| Answer::Only("14"))).await;
    let several = start(&[&bad, &bad], calls(retry(3, &[UNAVAILABLE]), RetryBudget::default())).await;
    let mut connection = several.client.http2().await;
    for (size, expected) in [(60_000, 4), (200_000, 1)] {
        let before = bad.calls();
        let response = connection.send(call("Any", message(&vec![b'x'; size]))).await.unwrap();
        assert_eq!((status(&response), bad.calls() - before), ("14", expected), "{size} bytes");
        is_untouched(&response);
    }
}

/// What a route says of its own calls counts for these alone.
#[tokio::test]
async fn each_route_has_its_own_conditions() {
    let mut several = Vec::new();
    for (method, tries) in [("Listed", 2), ("Another", 1), ("Elsewhere", 1)] {
        let app = GrpcApp::in_order([Answer::Only("8"), Answer::Only("8")]).await;
        let routes = |routes: &mut ServiceRoutes| {
            let rule = |method: &str, on| {
                let mut rule = routes.rules[0].clone();
                let path = PathMatch::Exact(format!("/t.T/{method}"));
                rule.matches = vec![RequestMatch { path: Some(path), ..RequestMatch::default() }];
                rule.retry = Some(retry(1, on));
                rule
            };
            let mut rules = vec![rule("Listed", &[RetryOn::Grpc(8)]), rule("Another", &[UNAVAILABLE])];
            rules.append(&mut routes.rules);
            routes.rules = rules;
        };
        let one = start(&[&app], routes).await;
        let response = one.client.http2().await.send(call(method, message(b"x"))).await.unwrap();
        assert_eq!((status(&response), app.calls()), ("8", tries), "{method}");
        is_untouched(&response);
        several.push(one);
    }
}
