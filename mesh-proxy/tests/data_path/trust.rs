//! Who is believed: identities on both sides, nothing in plaintext, nothing without the controller.

use http::StatusCode;
use mesh_core::{addr::EndpointAddr, protocol::Protocol, reason::Reason};
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    ca::{Flaw, TestCa},
    net::{fresh_addr, until},
    records::X25519_MLKEM768,
    relay::Relay,
    tls,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::mesh::{Mesh, Pair, endpoint, reason, upstream};

/// What a relay between the proxies sees is TLS 1.3 with a post-quantum key share, on every kind of edge.
#[tokio::test]
async fn the_wire_carries_only_tls13() {
    for protocol in [Protocol::Http1, Protocol::Grpc, Protocol::Opaque] {
        let http = HttpApp::start("catalog", fresh_addr(0)).await;
        let tcp = TcpApp::start(fresh_addr(0)).await;
        let app = if protocol == Protocol::Opaque { tcp.address() } else { http.address() };
        let pair =
            Pair::with(protocol, app, |_| (), |client, _| upstream(client, 17_000, "catalog:8080")).await;
        let relay = Relay::start(fresh_addr(0), (pair.server.ip(), 8080).into()).await;
        let mut relayed = endpoint(&pair.server.config, 8080, protocol);
        relayed.address = EndpointAddr(relay.address());
        pair.mesh.endpoints(&pair.service, &[relayed]);
        for _ in 0..3 {
            match protocol {
                Protocol::Opaque => {
                    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
                    stream.write_all(b"secret").await.unwrap();
                    let mut echoed = [0; 6];
                    stream.read_exact(&mut echoed).await.unwrap();
                }
                Protocol::Grpc => {
                    pair.client.http2().await.get("/", "catalog").await.unwrap();
                }
                _ => {
                    pair.client.http1().await.get("/", "catalog").await.unwrap();
                }
            }
        }
        until("the relay is used", || relay.connections() > 0).await;
        relay.assert_only_tls13(X25519_MLKEM768);
    }
}

#[tokio::test]
async fn an_endpoint_with_another_identity_gets_nothing() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut wrong = endpoint(&pair.server.config, 8080, Protocol::Http1);
    wrong.identity = Some(pair.mesh.ca.id("shop", "somebody-else"));
    pair.mesh.endpoints(&pair.service, &[wrong]);
    let mismatch = || async {
        let response = pair.client.http1().await.get("/", "catalog").await.unwrap();
        (reason(&response) == Some(Reason::IdentityMismatch)).then_some(response.status())
    };
    let status = mesh_testkit::net::eventually(mesh_testkit::net::PATIENCE, "mismatch", mismatch).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_meshed_endpoint_is_never_called_in_plaintext() {
    let mesh = Mesh::start().await;
    // It stands where a proxy should, and would gladly answer.
    let app = HttpApp::start("plain", fresh_addr(8080)).await;
    let mut config = mesh.workload("server");
    config.address = Some(app.address().ip());
    let service = mesh_core::name::ServicePort::new("shop", "catalog", 8080);
    mesh.service(&service, Protocol::Http1, &[endpoint(&config, 8080, Protocol::Http1)]);
    let client = mesh.proxy(mesh.workload("client"), |_| ()).await;
    let response = client.http1().await.get("/", "catalog").await.unwrap();
    assert_eq!(reason(&response), Some(Reason::TlsHandshakeFailed));
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn without_the_controller_requests_say_so() {
    let mut mesh = Mesh::start().await;
    let config = mesh.workload("client");
    mesh.controller.stop().await;
    let client = mesh.unready(config, |_| ()).await;
    let response = client.http1().await.get("/", "catalog").await.unwrap();
    let expected = (StatusCode::SERVICE_UNAVAILABLE, Some(Reason::DiscoveryUnavailable));
    assert_eq!((response.status(), reason(&response)), expected);
}

#[tokio::test]
async fn traffic_outlives_the_controller() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let mut pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut connection = pair.client.http1().await;
    assert_eq!(connection.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
    pair.mesh.controller.stop().await;
    for _ in 0..5 {
        assert_eq!(connection.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
        assert_eq!(pair.client.http1().await.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
    }
}

/// Callers whose certificates are bad are refused in the handshake, counted, and harm nobody.
#[tokio::test]
async fn bad_certificates_are_refused() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let ca = &pair.mesh.ca;
    let id = ca.id("shop", "client");
    let foreign = TestCa::new("cluster.local");
    let mut callers: Vec<_> = Flaw::ALL.iter().map(|flaw| Some(ca.flawed(&id, *flaw))).collect();
    callers.extend([Some(foreign.svid("shop", "client")), None]);
    let count = callers.len() as u64;
    for svid in callers {
        let config = tls::credulous_client(svid.as_ref(), &[b"mesh1-h1"]);
        // TLS 1.3: the server's refusal comes with the first read.
        let mut got = Vec::new();
        if let Ok(mut stream) = tls::connect((pair.server.ip(), 8080).into(), "server", config).await {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n").await;
            let _ = stream.read_to_end(&mut got).await;
        }
        assert!(got.is_empty(), "{}", String::from_utf8_lossy(&got));
    }
    let labels = ["direction=\"inbound\"", "reason=\"TLS_HANDSHAKE_FAILED\""];
    let refused =
        || async { (pair.server.metric("mesh_refused_total", &labels).await == count).then_some(()) };
    mesh_testkit::net::eventually(mesh_testkit::net::PATIENCE, "all are counted", refused).await;
    assert_eq!(app.requests(), 0);
    assert_eq!(pair.client.http1().await.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
}

/// Certificates change while requests run: nothing fails, and new connections are made under the new ones.
#[tokio::test]
async fn certificates_renew_under_traffic() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let mesh = Mesh::start().await;
    mesh.controller.set_lifetime(std::time::Duration::from_secs(30), std::time::Duration::from_millis(500));
    let service = mesh_core::name::ServicePort::new("shop", "catalog", 8080);
    let mut config = mesh.workload("server");
    crate::mesh::serves(&mut config, 8080, Protocol::Http1, app.address(), &service);
    let server = mesh.proxy(config, |_| ()).await;
    let relay = Relay::start(fresh_addr(0), (server.ip(), 8080).into()).await;
    let mut relayed = endpoint(&server.config, 8080, Protocol::Http1);
    relayed.address = EndpointAddr(relay.address());
    mesh.service(&service, Protocol::Http1, &[relayed]);
    let client = mesh.proxy(mesh.workload("client"), |_| ()).await;
    let mut connection = client.http1().await;
    let mut requests = 0;
    while relay.connections() < 2 {
        assert_eq!(connection.get("/", "catalog").await.unwrap().status(), StatusCode::OK);
        requests += 1;
        assert!(requests < 100_000, "{} certificates, no new connection", mesh.controller.certified().len());
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(app.requests(), requests);
}
