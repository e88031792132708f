//! HTTP/2 and gRPC through two proxies, and between versions.

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::Full;
use mesh_core::{protocol::Protocol, reason::Reason};
use mesh_testkit::{app::HttpApp, net::fresh_addr};

use crate::mesh::{Pair, reason};

fn grpc(path: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method("POST")
        .uri(format!("http://catalog{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::from("\0\0\0\0\u{3}abc"))
        .unwrap()
}

#[tokio::test]
async fn grpc_keeps_its_trailers_and_its_status_counts() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Grpc, app.address(), |_| ()).await;
    let mut connection = pair.client.http2().await;
    let good = connection.send(grpc("/shop.Catalog/Get")).await.unwrap();
    assert_eq!(
        (good.headers()["grpc-status"].as_bytes(), good.body().as_ref()),
        (&b"0"[..], &b"\0\0\0\0\x03abc"[..])
    );
    let bad = connection.send(grpc("/shop.Catalog/Get?grpc=13")).await.unwrap();
    assert_eq!((bad.status(), bad.headers()["grpc-status"].as_bytes()), (StatusCode::OK, &b"13"[..]));
    let seen = app.seen();
    assert_eq!((seen[0].version, seen[0].headers["te"].as_bytes()), (Version::HTTP_2, &b"trailers"[..]));
    assert_eq!(seen[0].uri.authority().map(|a| a.as_str()), Some("catalog"));
    pair.client.counted(&["protocol=\"grpc\""], 2).await;
    pair.server.counted(&["protocol=\"grpc\""], 2).await;
}

#[tokio::test]
async fn refusals_are_trailers_only_for_grpc() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::with(
        Protocol::Grpc,
        app.address(),
        |_| (),
        |_, server| {
            server.policy.default_action = mesh_core::policy::DefaultAction::Deny;
        },
    )
    .await;
    let response = pair.client.http2().await.send(grpc("/shop.Catalog/Get")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "7");
    assert_eq!(reason(&response), Some(Reason::AuthzDenied));
    assert!(response.headers()["grpc-message"].to_str().unwrap().starts_with("AUTHZ_DENIED: "));
    assert_eq!(app.requests(), 0);
    pair.client.counted(&["reason=\"AUTHZ_DENIED\""], 1).await;
    pair.server.counted(&["reason=\"AUTHZ_DENIED\""], 1).await;
}

/// Each version of the caller meets each version of the application.
#[tokio::test]
async fn versions_meet() {
    for (declared, caller, app_sees) in [
        (Protocol::Http1, Version::HTTP_2, Version::HTTP_11),
        (Protocol::Http2, Version::HTTP_11, Version::HTTP_2),
        (Protocol::Undeclared, Version::HTTP_2, Version::HTTP_2),
        (Protocol::Undeclared, Version::HTTP_11, Version::HTTP_11),
    ] {
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let pair = Pair::start(declared, app.address(), |_| ()).await;
        let mut connection =
            if caller == Version::HTTP_2 { pair.client.http2().await } else { pair.client.http1().await };
        let response = connection.get("/a?b=1", "catalog").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{declared} {caller:?}: {response:?}");
        let seen = &app.seen()[0];
        assert_eq!(seen.version, app_sees, "{declared} {caller:?}");
        let host = seen.uri.authority().map(|a| a.to_string());
        let host = host.or_else(|| Some(seen.headers.get("host")?.to_str().ok()?.to_owned()));
        assert_eq!(host.as_deref(), Some("catalog"), "{declared} {caller:?}");
    }
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let mut connection = pair.client.http2().await;
        tasks.spawn(async move { connection.get("/?delay_ms=50", "catalog").await.unwrap().status() });
    }
    while let Some(status) = tasks.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    assert_eq!(app.connections(), 1);
    pair.server.counted(&["protocol=\"http2\"", "status=\"2xx\""], 40).await;
}
