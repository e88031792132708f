//! HTTP/2 and gRPC through two proxies, and between versions.

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt as _, Full};
use mesh_core::{config::Destination, protocol::Protocol, reason::Reason};
use mesh_testkit::{
    app::HttpApp,
    net::{PATIENCE, fresh_addr},
};
use tokio::{net::TcpStream, time::timeout};

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

/// What the proxy says itself has the length that it would have, and nothing more, where HEAD asks for it.
#[tokio::test]
async fn the_answer_to_head_is_a_head() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let deny = |_: &mut _, server: &mut mesh_core::config::WorkloadConfig| {
        server.policy.default_action = mesh_core::policy::DefaultAction::Deny;
    };
    let pair = Pair::with(Protocol::Http1, app.address(), |_| (), deny).await;
    let unknown = Destination::Unknown("no Service \"nosuch\" in namespace shop".to_owned());
    pair.mesh.controller.set_host("nosuch", unknown);
    let (outbound, inbound) = (pair.client.proxy.addresses().outbound, (pair.server.ip(), 8080).into());
    for (to, host, status) in
        [(outbound, "nosuch", StatusCode::NOT_FOUND), (inbound, "catalog", StatusCode::FORBIDDEN)]
    {
        let (mut sender, connection) =
            ::h2::client::handshake(TcpStream::connect(to).await.unwrap()).await.unwrap();
        tokio::spawn(connection);
        let mut lengths = Vec::new();
        for method in ["GET", "HEAD"] {
            let request = Request::builder().method(method).uri(format!("http://{host}/")).body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let response = timeout(PATIENCE, response).await.unwrap().unwrap();
            assert_eq!((response.status(), response.body().is_end_stream()), (status, method == "HEAD"));
            lengths.push(response.headers()["content-length"].clone());
        }
        assert!(lengths[0] == lengths[1] && lengths[0] != "0", "{lengths:?}");
    }
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

/// Many tiny DATA frames on one connection are ordinary for gRPC streams: as long as both ends read, no limit of HTTP/2
/// may end them.
#[tokio::test]
async fn a_chatty_stream_is_no_attack() {
    const MESSAGES: usize = 20_000;
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Grpc, app.address(), |_| ()).await;
    let stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let (mut pieces, body) = http_body_util::channel::Channel::<Bytes>::new(16);
    let unanswered = std::sync::Arc::new(tokio::sync::Semaphore::new(500));
    let answered = std::sync::Arc::clone(&unanswered);
    tokio::spawn(async move {
        for _ in 0..MESSAGES {
            unanswered.acquire().await.unwrap().forget();
            pieces.send_data(Bytes::from_static(b"x")).await.unwrap();
        }
    });
    let request =
        Request::post("http://catalog/shop.Catalog/Watch").header("content-type", "application/grpc");
    let mut echo = sender.send_request(request.body(body).unwrap()).await.unwrap().into_body();
    let (mut echoed, mut status) = (0, None);
    while let Some(frame) = echo.frame().await {
        let frame = frame.unwrap();
        let length = frame.data_ref().map_or(0, Bytes::len);
        echoed += length;
        answered.add_permits(length);
        status = frame.trailers_ref().map(|trailers| trailers["grpc-status"].clone());
    }
    assert_eq!((echoed, status.unwrap().as_bytes()), (MESSAGES, &b"0"[..]));
    pair.server.counted(&["protocol=\"grpc\"", "reason=\"\""], 1).await;
}
