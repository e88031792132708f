//! What a listener on the wire sees, on each kind of edge, and what the inbound proxy lets in.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on ends")]

mod common;

use std::net::SocketAddr;

use bytes::Bytes;
use common::{Mesh, PATIENCE, Sidecar, eventually};
use http::{Request, StatusCode};
use http_body_util::Full;
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    ca::TestCa,
    client::Connection,
    net::fresh_ip,
    records::X25519_MLKEM768,
    relay::Relay,
    tls,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A client and a server with their proxies, relays between them and between client and controller.
struct Setup {
    mesh: Mesh,
    client: Sidecar,
    server: Sidecar,
    http: HttpApp,
    rpc: HttpApp,
    _tcp: TcpApp,
    web_wire: Relay,
    rpc_wire: Relay,
    tcp_wire: Relay,
    control_wire: Relay,
}

async fn setup(mode: &str) -> Setup {
    let (client_ip, server_ip, relay_ip) = (fresh_ip(), fresh_ip(), fresh_ip());
    let http = HttpApp::start("web", (server_ip, 9080).into()).await;
    let rpc = HttpApp::start("rpc", (server_ip, 9081).into()).await;
    let tcp = TcpApp::start((server_ip, 9070).into()).await;
    let relay =
        async |port: u16| Relay::start((relay_ip, port).into(), SocketAddr::new(server_ip, port)).await;
    let (web_wire, rpc_wire, tcp_wire) = (relay(8080).await, relay(9090).await, relay(7000).await);
    let yaml = include_str!("data/edges.yaml")
        .replace("CLIENT", &client_ip.to_string())
        .replace("SERVER", &server_ip.to_string())
        .replace("RELAY", &relay_ip.to_string())
        .replace("MODE", mode);
    let mesh = Mesh::start(fresh_ip(), &yaml).await;
    let server = mesh.proxy("test/server", "server", server_ip).await;
    let control_wire = Relay::start((fresh_ip(), 15010).into(), mesh.control()).await;
    let command = mesh.proxy_command_via(control_wire.address(), "test/client", "client", client_ip);
    let mut client = mesh.sidecar(command, "test/client", client_ip);
    client.await_ready().await;
    Setup { mesh, client, server, http, rpc, _tcp: tcp, web_wire, rpc_wire, tcp_wire, control_wire }
}

async fn echo(address: SocketAddr, text: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the upstream listener stands");
    stream.write_all(text).await.expect("write");
    stream.shutdown().await.expect("half-close");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.expect("read");
    back
}

#[tokio::test]
async fn on_every_edge_only_tls_1_3_with_a_post_quantum_key_exchange_is_seen() {
    let setup = setup("strict").await;

    let reply = setup.client.get("web", "/a?b=c").await;
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}\n{}", setup.client.process.log());
    let seen = setup.http.seen();
    assert_eq!((setup.http.requests(), seen.len()), (1, 1));

    let stream = TcpStream::connect(setup.client.outbound()).await.expect("outbound");
    let mut connection = Connection::http2(stream).await;
    let request = Request::post("http://rpc:9090/test.Echo/Say")
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from_static(b"\0\0\0\0\0")))
        .expect("a request");
    assert_eq!(connection.send(request).await.expect("a response").status(), StatusCode::OK);
    assert_eq!(setup.rpc.requests(), 1);

    assert_eq!(echo(setup.client.at(17000), b"plain words").await, b"plain words");

    for (name, wire) in [
        ("HTTP", &setup.web_wire),
        ("gRPC", &setup.rpc_wire),
        ("TCP", &setup.tcp_wire),
        ("proxy to controller", &setup.control_wire),
    ] {
        assert!(wire.connections() > 0, "nothing passed the relay: {name}");
        wire.assert_only_tls13(X25519_MLKEM768);
    }
    for (sidecar, direction) in [(&setup.client, "outbound"), (&setup.server, "inbound")] {
        let direction = format!("direction=\"{direction}\"");
        let secured = sidecar.metric("mesh_requests_total", &[&direction, "secured=\"true\""]).await;
        let all = sidecar.metric("mesh_requests_total", &[&direction]).await;
        assert_eq!((secured, all), (3.0, 3.0), "{direction}");
    }
}

/// An ordinary TLS client and an ordinary HTTPS application, with the inbound proxy between them.
#[tokio::test]
async fn tls_of_the_application_passes_untouched() {
    let server_ip = fresh_ip();
    let ca = TestCa::new("web.example");
    let certificate = ca.web("shop.example");
    let app = HttpApp::start_tls("https", (server_ip, 9443).into(), &certificate).await;
    let yaml = include_str!("data/https.yaml").replace("SERVER", &server_ip.to_string());
    let mesh = Mesh::start(fresh_ip(), &yaml).await;
    let server = mesh.proxy("test/server", "server", server_ip).await;
    let stream = tls::connect(server.at(8443), "shop.example", tls::web_client(&ca, &[b"http/1.1"])).await;
    let stream = stream.expect("the handshake is the application's own");
    let seen = stream.get_ref().1.peer_certificates().expect("certificates").first().cloned();
    assert_eq!(seen.as_ref(), certificate.chain.first(), "another certificate than the application's");
    let mut connection = Connection::http1(stream).await;
    let response = connection.get("/", "shop.example").await.expect("a response");
    assert_eq!((response.status(), app.requests()), (StatusCode::OK, 1));
}

async fn send_raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the port takes connections");
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut back = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut back)).await;
    assert!(read.is_ok(), "a refused connection is not closed");
    back
}

#[tokio::test]
async fn what_is_not_mesh_tls_is_refused_in_strict_mode_and_counted() {
    let mut setup = setup("strict").await;
    let hello = setup_hello();
    let half = &hello[..hello.len() / 2];
    for (name, bytes) in [
        ("plaintext HTTP/1", b"GET / HTTP/1.1\r\nhost: web\r\n\r\n".as_slice()),
        ("plaintext HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        ("half a request", b"GET / HT"),
        ("garbage", &[0xff, 0x00, 0x13, 0x37, 0x80, 0x81]),
        ("a broken ClientHello", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"),
        ("half a ClientHello", half),
        ("a whole ClientHello without our protocols", &hello),
        ("nothing", b""),
    ] {
        for port in [8080, 9090, 7000] {
            let back = send_raw(setup.server.at(port), bytes).await;
            let text = String::from_utf8_lossy(&back);
            assert!(!text.contains("200 OK") && !text.contains("mesh-reason"), "{name} on {port}: {text}");
        }
        assert!(setup.server.process.is_running(), "{name} ended the proxy");
    }
    assert_eq!((setup.http.requests(), setup.rpc.requests()), (0, 0), "something reached the application");
    let refused = eventually(PATIENCE, async || {
        setup.server.metric("mesh_refused_total", &[]).await
            + setup.server.metric("mesh_requests_total", &["reason=\"TLS_REQUIRED\""]).await
            >= 12.0
    });
    assert!(refused.await, "refusals are not counted");
    assert!(!setup.server.process.log().contains("panicked"), "{}", setup.server.process.log());
    drop(setup.mesh);
}

/// The ClientHello of an ordinary client.
fn setup_hello() -> Vec<u8> {
    let ca = TestCa::new("web.example");
    let name = "shop.example".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(tls::web_client(&ca, &[b"h2"]), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a ClientHello");
    bytes
}

/// Certificates of strangers: right form, other mesh.
#[tokio::test]
async fn certificates_of_another_mesh_are_refused() {
    let setup = setup("permissive").await;
    let foreign = TestCa::new("cluster.local");
    let svid = foreign.svid("test", "client");
    for port in [8080_u16, 9090, 7000] {
        let config = tls::credulous_client(Some(&svid), &[b"mesh1-h1", b"mesh1-h2", b"mesh1-tcp"]);
        let refused = match tls::connect(setup.server.at(port), "server", config).await {
            Err(_) => true,
            // TLS 1.3 clients learn of the refusal when they read.
            Ok(mut stream) => {
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
                let mut byte = [0];
                !matches!(stream.read(&mut byte).await, Ok(1))
            }
        };
        assert!(refused, "a foreign certificate is accepted on port {port}");
    }
    assert_eq!(setup.http.requests(), 0);
    let counted = setup.server.metric("mesh_refused_total", &["TLS_HANDSHAKE_FAILED"]).await;
    assert!(counted >= 3.0, "counted {counted}");
}
