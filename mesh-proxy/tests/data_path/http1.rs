//! HTTP/1.1 through two proxies.

use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::Full;
use mesh_core::{protocol::Protocol, reason::Reason};
use mesh_proxy::config::Http1Transport;
use mesh_testkit::{app::HttpApp, net::fresh_addr};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::mesh::{Pair, reason};

#[tokio::test]
async fn a_request_reaches_the_application_and_says_who_calls() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut connection = pair.client.http1().await;
    for path in ["/a?b=1", "/c"] {
        let response = connection.get(path, "catalog").await.unwrap();
        assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None), "{response:?}");
    }
    let seen = app.seen();
    assert_eq!(seen[0].uri, "/a?b=1");
    assert_eq!(seen[0].headers[HOST], "catalog");
    assert_eq!(seen[0].headers["mesh-client-id"], "spiffe://cluster.local/ns/shop/sa/client");
    assert_eq!(app.connections(), 1, "both connections are reused");
    let secured =
        ["secured=\"true\"", "source=\"spiffe://cluster.local/ns/shop/sa/client\"", "status=\"2xx\""];
    pair.client.counted(&secured, 2).await;
    pair.server.counted(&secured, 2).await;
}

/// Many requests at once over many connections, in both ways in which HTTP/1 travels between proxies.
#[tokio::test]
async fn everybody_counts_the_same() {
    for transport in [Http1Transport::H1, Http1Transport::H1OverH2] {
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let pair = Pair::start(Protocol::Http1, app.address(), |o| o.http1_transport = transport).await;
        let (clients, each) = (8, 50);
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..clients {
            let mut connection = pair.client.http1().await;
            tasks.spawn(async move {
                for n in 0..each {
                    let path = if n % 2 == 0 { "/a?bytes=20000" } else { "/b" };
                    assert_eq!(connection.get(path, "catalog:8080").await.unwrap().status(), StatusCode::OK);
                }
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.unwrap();
        }
        assert_eq!(app.requests(), clients * each);
        pair.client.counted(&["direction=\"outbound\""], clients * each).await;
        pair.server.counted(&["direction=\"inbound\""], clients * each).await;
        pair.client.counted(&["reason=\"\""], clients * each).await;
    }
}

#[tokio::test]
async fn forged_and_one_hop_fields_do_not_arrive() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let request = Request::builder()
        .uri("/")
        .header(HOST, "catalog")
        .header("mesh-client-id", "spiffe://cluster.local/ns/shop/sa/admin")
        .header("mesh-reason", "AUTHZ_DENIED")
        .header("connection", "x-secret")
        .header("x-secret", "1")
        .header("x-kept", "2")
        .body(Full::<Bytes>::default())
        .unwrap();
    pair.client.http1().await.send(request).await.unwrap();
    let headers = app.seen()[0].headers.clone();
    assert_eq!(headers["mesh-client-id"], "spiffe://cluster.local/ns/shop/sa/client");
    assert_eq!(headers.get_all("mesh-client-id").iter().count(), 1);
    assert_eq!(headers["x-kept"], "2");
    assert!(!headers.contains_key("x-secret") && !headers.contains_key("mesh-reason"), "{headers:?}");
}

#[tokio::test]
async fn says_why_a_request_goes_nowhere() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let unknown =
        mesh_core::config::Destination::Unknown("no Service \"nosuch\" in namespace shop".to_owned());
    pair.mesh.controller.set_host("nosuch", unknown);
    let mut connection = pair.client.http1().await;
    let response = connection.get("/", "nosuch").await.unwrap();
    assert_eq!(
        (response.status(), reason(&response)),
        (StatusCode::NOT_FOUND, Some(Reason::UnknownDestination))
    );
    let text = String::from_utf8(response.body().to_vec()).unwrap();
    assert!(text.starts_with("UNKNOWN_DESTINATION: ") && !text.contains("shop"), "names no objects: {text}");

    // The controller never answers about this one.
    let response = connection.get("/", "pending").await.unwrap();
    assert_eq!(reason(&response), Some(Reason::DiscoveryUnavailable));

    pair.mesh.endpoints(&pair.service, &[]);
    let empty = || async {
        let response = pair.client.http1().await.get("/", "catalog").await.unwrap();
        (reason(&response) == Some(Reason::NoHealthyEndpoint)).then_some(())
    };
    mesh_testkit::net::eventually(mesh_testkit::net::PATIENCE, "endpoints vanish", empty).await;
    pair.client.counted(&["reason=\"UNKNOWN_DESTINATION\"", "status=\"4xx\""], 1).await;
    pair.client.counted(&["reason=\"DISCOVERY_UNAVAILABLE\"", "status=\"5xx\""], 1).await;
}

#[tokio::test]
async fn an_application_that_is_away_is_named() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    app.stop().await;
    let response = pair.client.http1().await.get("/", "catalog").await.unwrap();
    assert_eq!(
        (response.status(), reason(&response)),
        (StatusCode::BAD_GATEWAY, Some(Reason::AppUnavailable))
    );
    // Both proxies count it with its reason, once.
    pair.client.counted(&["reason=\"APP_UNAVAILABLE\""], 1).await;
    pair.server.counted(&["reason=\"APP_UNAVAILABLE\""], 1).await;
}

#[tokio::test]
async fn a_broken_response_is_a_reset() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let response = pair.client.http1().await.get("/?reset", "catalog").await.unwrap();
    assert_eq!(reason(&response), Some(Reason::UpstreamReset));
    pair.server.counted(&["reason=\"UPSTREAM_RESET\""], 1).await;
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
    let head = "POST /?echo HTTP/1.1\r\nHost: catalog\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    for n in 0..3 {
        // Each piece comes back before the next one is sent.
        stream.write_all(format!("7\r\npiece-{n}\r\n").as_bytes()).await.unwrap();
        let wanted = format!("piece-{n}");
        while !String::from_utf8_lossy(&got).contains(&wanted) {
            assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "{}", String::from_utf8_lossy(&got));
        }
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    while !got.ends_with(b"0\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0);
    }
    pair.client.counted(&["status=\"2xx\""], 1).await;
    assert_eq!(pair.client.metric("mesh_request_bytes_total", &[]).await, 21);
    assert_eq!(pair.server.metric("mesh_response_bytes_total", &[]).await, 21);
}

#[tokio::test]
async fn the_body_is_asked_for_when_the_application_wants_it() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0);
    }
    assert!(got.starts_with(b"HTTP/1.1 100 Continue\r\n"), "{}", String::from_utf8_lossy(&got));
    stream.write_all(b"hello").await.unwrap();
    while !String::from_utf8_lossy(&got).contains("\"body_bytes\":5") {
        assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "{}", String::from_utf8_lossy(&got));
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_carried() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
    let head = "GET / HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0);
    }
    assert!(got.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&got));
    stream.write_all(b"no longer HTTP").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed).await.unwrap();
    assert_eq!(echoed, b"no longer HTTP");
    pair.client.counted(&["status=\"1xx\""], 1).await;
}

#[tokio::test]
async fn the_target_wins_over_host_and_conflicts_are_refused() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut connection = pair.client.http1().await;
    let response = connection.get("http://catalog/a", "catalog").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(app.seen()[0].uri, "/a");
    let response = connection.get("http://catalog/a", "cart").await.unwrap();
    assert_eq!((response.status(), reason(&response)), (StatusCode::BAD_REQUEST, Some(Reason::BadRequest)));
    assert_eq!(app.requests(), 1);
}
