//! CONNECT to the proxy itself: a tunnel to any host that requests could go to.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use mesh_core::{
    config::Destination,
    matching::{PathMatch, RequestMatch},
    policy::DefaultAction,
    protocol::Protocol,
    settings::{BackendSettings, Breaker, CallSettings, Timeouts},
};
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    net::{PATIENCE, eventually, fresh_addr},
    serve::Served,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    endings::drop_the_root,
    mesh::{Pair, endpoint, route_to},
    raw::send,
    tunnels::echoes,
};

/// Sends a head, and what comes behind it at once; reads the head of the answer. With the connection comes what was read
/// behind that.
pub(crate) async fn connect(to: SocketAddr, target: &str, behind: &[u8]) -> (TcpStream, String, Vec<u8>) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), behind].concat()).await.unwrap();
    let (head, rest) = read_head(&mut stream).await;
    (stream, head, rest)
}

pub(crate) async fn read_head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut got = Vec::new();
    loop {
        if let Some(end) = got.windows(4).position(|part| part == b"\r\n\r\n") {
            let rest = got.split_off(end + 4);
            return (String::from_utf8(got).unwrap(), rest);
        }
        let count = timeout(PATIENCE, stream.read_buf(&mut got)).await.unwrap().unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&got));
    }
}

/// Reads to the end of a connection, however it ends.
pub(crate) async fn rest(stream: &mut TcpStream, mut got: Vec<u8>) -> Vec<u8> {
    let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.unwrap();
    got
}

/// The answer that opens a tunnel has no field at all.
const OPEN: &str = "HTTP/1.1 200 OK\r\n\r\n";

fn outbound(pair: &Pair) -> SocketAddr {
    pair.client.proxy.addresses().outbound
}

#[tokio::test]
async fn bytes_pass_whoever_speaks_first_and_count_as_such() {
    for greeting in [&b""[..], b"220 ready\r\n"] {
        let app = TcpApp::speaking_first(fresh_addr(0), greeting).await;
        let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
        let (mut stream, head, mut got) = connect(outbound(&pair), "catalog:8080", b"").await;
        assert_eq!(head, OPEN);
        while got.len() < greeting.len() {
            assert_ne!(timeout(PATIENCE, stream.read_buf(&mut got)).await.unwrap().unwrap(), 0);
        }
        assert_eq!(got, greeting);
        echoes(&mut stream).await;
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream, Vec::new()).await, b"");
        for side in [&pair.client, &pair.server] {
            side.counted(&["protocol=\"tcp\"", "secured=\"true\"", "reason=\"\""], 1).await;
            assert_eq!(side.metric("mesh_request_bytes_total", &[]).await, 5);
            assert_eq!(side.metric("mesh_response_bytes_total", &[]).await, 5 + greeting.len() as u64);
        }
    }
}

/// What comes behind the head is for the other end, whatever it looks like, and be it all that the caller says.
#[tokio::test]
async fn what_comes_behind_the_head_is_carried() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
    let early = [b"GET /early HTTP/1.1\r\nHost: catalog\r\n\r\n".repeat(1000), vec![0; 100_000]].concat();
    for ends in [false, true] {
        let mut stream = TcpStream::connect(outbound(&pair)).await.unwrap();
        let head = b"CONNECT catalog:8080 HTTP/1.1\r\nHost: catalog\r\n\r\n";
        let (mut read, mut write) = stream.split();
        let sending = async {
            write.write_all(&[head, &early[..]].concat()).await.unwrap();
            if ends {
                write.shutdown().await.unwrap();
            }
        };
        let mut got = vec![0; OPEN.len() + early.len()];
        let reading = async { timeout(PATIENCE, read.read_exact(&mut got)).await.unwrap().unwrap() };
        tokio::join!(sending, reading);
        assert!(got.starts_with(OPEN.as_bytes()) && got.ends_with(&early), "ends: {ends}");
        if ends {
            assert_eq!(rest(&mut stream, Vec::new()).await, b"");
        }
    }
    assert_eq!(pair.server.requests(&["protocol=\"http\""]).await, 0);
}

/// A caller that has said all before its tunnel stands is not gone.
#[tokio::test]
async fn a_caller_may_be_done_before_its_tunnel_stands() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |o| o.discovery_wait = "30s".to_owned()).await;
    let mut stream = TcpStream::connect(outbound(&pair)).await.unwrap();
    stream.write_all(b"CONNECT later:80 HTTP/1.1\r\nHost: later\r\n\r\nhello").await.unwrap();
    stream.shutdown().await.unwrap();
    let one = || async { (pair.client.metric("mesh_connections_active", &[]).await == 1).then_some(()) };
    eventually(PATIENCE, "the connection is taken", one).await;
    let routes = route_to(&pair.service, Protocol::Opaque, &[(&pair.service, 1)]);
    pair.mesh.controller.set_host("later:80", Destination::Service(routes));
    let (head, got) = read_head(&mut stream).await;
    assert_eq!(head, OPEN);
    assert_eq!(rest(&mut stream, got).await, b"hello");
    pair.client.counted(&["protocol=\"tcp\"", "reason=\"\""], 1).await;
}

/// Each side may say all that it has to say, and go on to listen.
#[tokio::test]
async fn each_half_closes_for_itself() {
    let app = Served::start(fresh_addr(0), |mut stream, _| async move {
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"still here");
    })
    .await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
    let (mut stream, head, got) = connect(outbound(&pair), "catalog:8080", b"").await;
    assert_eq!(head, OPEN);
    assert_eq!(rest(&mut stream, got).await, b"bye");
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    for side in [&pair.client, &pair.server] {
        side.counted(&["protocol=\"tcp\"", "reason=\"\""], 1).await;
        assert_eq!(side.metric("mesh_request_bytes_total", &[]).await, 10);
    }
}

/// Requests in a tunnel are bytes, of which a port that is declared to speak HTTP takes none.
#[tokio::test]
async fn http_passes_through_a_tunnel_where_bytes_do() {
    let early = b"GET /a HTTP/1.1\r\nHost: catalog\r\nConnection: close\r\n\r\n";
    for (declared, passes) in [(Protocol::Opaque, true), (Protocol::Http1, false)] {
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let pair = Pair::start(declared, app.address(), |_| ()).await;
        let (mut stream, head, got) = connect(outbound(&pair), "catalog:8080", early).await;
        assert_eq!(head, OPEN);
        let mut answer = got;
        // It may be reset.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let whole = answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"path\":\"/a\"");
        assert!(if passes { whole } else { answer.is_empty() }, "{declared:?} {answer}");
        assert_eq!(app.requests(), u64::from(passes));
    }
}

/// Asks for a tunnel that is refused. What comes behind is not taken for another request.
async fn refused(pair: &Pair, head: &str) -> String {
    let behind = "GET /smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n";
    let answer = send(outbound(pair), format!("{head}\r\n\r\n{behind}").as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    answer
}

#[tokio::test]
async fn a_tunnel_that_cannot_be_says_why() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
    let to = |host: &str| format!("CONNECT {host} HTTP/1.1\r\nHost: {host}");
    let set = |host: &str, to| pair.mesh.controller.set_host(host, to);
    set("nosuch:80", Destination::Unknown("no Service \"nosuch\" in namespace shop".to_owned()));
    set("outside:80", Destination::Passthrough);
    let get = PathMatch::Prefix("/a".to_owned());
    let mut routes = route_to(&pair.service, Protocol::Http1, &[(&pair.service, 1)]);
    routes.rules[0].matches.push(RequestMatch { path: Some(get), ..RequestMatch::default() });
    set("routed:80", Destination::Service(routes));
    for (host, status, reason) in [
        ("nosuch:80", "404", "UNKNOWN_DESTINATION"),
        ("outside:80", "404", "UNKNOWN_DESTINATION"),
        // The controller never answers about this one.
        ("pending:80", "503", "DISCOVERY_UNAVAILABLE"),
        ("routed:80", "404", "ROUTE_NOT_MATCHED"),
    ] {
        let answer = refused(&pair, &to(host)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
        assert!(answer.contains(&format!("mesh-reason: {reason}\r\n")), "{host}: {answer}");
        // Also to those who ask for answers of gRPC: they would look like success.
        let grpc = format!("{}\r\nContent-Type: application/grpc", to(host));
        assert!(refused(&pair, &grpc).await.starts_with(&format!("HTTP/1.1 {status} ")), "{host}");
    }
    pair.client.counted(&["reason=\"UNKNOWN_DESTINATION\"", "protocol=\"tcp\"", "status=\"4xx\""], 4).await;
    let nobody = endpoint(&pair.mesh.workload("nobody"), 8080, Protocol::Opaque);
    let other = endpoint(&pair.server.config, 8080, Protocol::Opaque);
    let other = mesh_core::config::Endpoint { identity: nobody.identity.clone(), ..other };
    for (endpoints, status, reason) in [
        (vec![], "503", "NO_HEALTHY_ENDPOINT"),
        (vec![nobody], "502", "UPSTREAM_CONNECT_FAILED"),
        (vec![other], "502", "IDENTITY_MISMATCH"),
    ] {
        pair.mesh.endpoints(&pair.service, &endpoints);
        let answered = || async {
            let answer = refused(&pair, &to("catalog:8080")).await;
            assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
            let status = format!("HTTP/1.1 {status} ");
            (answer.starts_with(&status) && answer.contains(&format!("mesh-reason: {reason}"))).then_some(())
        };
        eventually(PATIENCE, reason, answered).await;
    }
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn what_names_no_host_and_port_is_refused() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
    let good = "Host: catalog:8080";
    for (target, fields) in [
        ("catalog", "Host: catalog"),
        ("catalog:", "Host: catalog:"),
        ("catalog:0", "Host: catalog:0"),
        ("catalog:65536", "Host: catalog:65536"),
        ("catalog:x", "Host: catalog:x"),
        (":8080", "Host: :8080"),
        ("me@catalog:8080", "Host: me@catalog:8080"),
        ("me:secret@catalog:8080", good),
        ("catalog:8080/", good),
        ("/catalog:8080", good),
        ("http://catalog:8080", good),
        ("http://catalog:8080/", good),
        ("*", good),
        ("catalog:8080", "Host: evil:8080"),
        ("catalog:8080", "Host: catalog:80"),
        ("catalog:8080", "Host: catalog\r\nHost: catalog"),
        ("catalog:8080", "Host: catalog:8080\r\nContent-Length: 0"),
        ("catalog:8080", "Host: catalog:8080\r\nContent-Length: 42"),
        ("catalog:8080", "Host: catalog:8080\r\nTransfer-Encoding: chunked"),
    ] {
        let answer = refused(&pair, &format!("CONNECT {target} HTTP/1.1\r\n{fields}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target} {fields:?}: {answer}");
        assert!(answer.contains("mesh-reason: BAD_REQUEST\r\n"), "{target} {fields:?}: {answer}");
    }
    assert_eq!(app.connections(), 0);
    // Older callers say no host, or the host alone.
    for head in ["CONNECT catalog:8080 HTTP/1.0", "CONNECT catalog:8080 HTTP/1.1\r\nHost: catalog"] {
        let mut stream = TcpStream::connect(outbound(&pair)).await.unwrap();
        stream.write_all(format!("{head}\r\n\r\n").as_bytes()).await.unwrap();
        let version = if head.ends_with("1.0") { "1.0" } else { "1.1" };
        assert_eq!(read_head(&mut stream).await.0, OPEN.replace("1.1", version));
        echoes(&mut stream).await;
    }
}

#[tokio::test]
async fn there_is_no_tunnel_in_http2() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    for to in [outbound(&pair), (pair.server.ip(), 8080).into()] {
        let stream = TcpStream::connect(to).await.unwrap();
        let (mut sender, connection) = ::h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::connect("catalog:8080").body(()).unwrap();
        let (response, _stream) = sender.send_request(request, false).unwrap();
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
        let told = response.headers().get("mesh-reason").is_some_and(|reason| reason == "UNSUPPORTED");
        assert_eq!(told, to == outbound(&pair), "strangers are not told");
    }
    assert_eq!(app.connections(), 0);
}

/// Who answers 200 cannot know what the other side's policy says: it closes the tunnel.
#[tokio::test]
async fn a_callee_that_refuses_closes_the_tunnel() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let deny = |_: &mut _, server: &mut mesh_core::config::WorkloadConfig| {
        server.policy.default_action = DefaultAction::Deny;
    };
    let pair = Pair::with(Protocol::Opaque, app.address(), |_| (), deny).await;
    for early in [&b""[..], b"hello"] {
        let (mut stream, _, got) = connect(outbound(&pair), "catalog:8080", early).await;
        assert_eq!(rest(&mut stream, got).await, b"");
    }
    for side in [&pair.client, &pair.server] {
        side.counted(&["reason=\"AUTHZ_DENIED\""], 2).await;
    }
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn limits_hold_for_tunnels() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
    let mut routes = route_to(&pair.service, Protocol::Opaque, &[(&pair.service, 1)]);
    let breaker = Breaker { connections: Some(1), ..Breaker::default() };
    let settings = BackendSettings { breaker, ..BackendSettings::default() };
    routes.rules[0].backends[0].settings = Some(Arc::new(settings));
    let timeouts = Timeouts { idle: Some(Duration::from_millis(1500)), ..Timeouts::default() };
    routes.calls = Arc::new(CallSettings { timeouts, ..CallSettings::default() });
    pair.mesh.controller.set_host("limited:8080", Destination::Service(routes));
    let (mut stream, head, _) = connect(outbound(&pair), "limited:8080", b"").await;
    assert_eq!(head, OPEN);
    echoes(&mut stream).await;
    let second = send(outbound(&pair), b"CONNECT limited:8080 HTTP/1.1\r\nHost: limited\r\n\r\n").await;
    assert!(second.starts_with("HTTP/1.1 503 ") && second.contains("CIRCUIT_OPEN"), "{second}");
    assert_eq!(rest(&mut stream, Vec::new()).await, b"");
    pair.client.counted(&["reason=\"IDLE_TIMEOUT\""], 1).await;
    let again = || async {
        let (_, head, _) = connect(outbound(&pair), "limited:8080", b"").await;
        (head == OPEN).then_some(())
    };
    eventually(PATIENCE, "there is room again", again).await;
}

#[tokio::test]
async fn a_drain_waits_for_tunnels() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
    let (mut stream, ..) = connect(outbound(&pair), "catalog:8080", b"").await;
    echoes(&mut stream).await;
    let one = || async { (pair.client.metric("mesh_connections_active", &[]).await == 1).then_some(()) };
    eventually(PATIENCE, "one connection is open", one).await;
    let outbound = outbound(&pair);
    let ending = tokio::spawn(pair.client.proxy.shutdown());
    let closed = || async { TcpStream::connect(outbound).await.is_err().then_some(()) };
    eventually(PATIENCE, "nothing more is accepted", closed).await;
    assert!(!ending.is_finished(), "it waits for the tunnel");
    echoes(&mut stream).await;
    drop(stream);
    timeout(Duration::from_secs(3), ending).await.expect("ends with its last tunnel").unwrap();
}

#[tokio::test]
async fn a_drain_ends_tunnels_in_time() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |o| o.drain_timeout = "300ms".to_owned()).await;
    let (mut stream, ..) = connect(outbound(&pair), "catalog:8080", b"").await;
    echoes(&mut stream).await;
    timeout(Duration::from_secs(3), pair.client.proxy.shutdown()).await.expect("ends at its deadline");
    assert_eq!(rest(&mut stream, Vec::new()).await, b"");
}

/// Trust that ends ends tunnels too, ten seconds later.
#[tokio::test]
async fn a_tunnel_to_a_peer_under_a_dropped_root_is_cut() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
    let (mut stream, ..) = connect(outbound(&pair), "catalog:8080", b"").await;
    echoes(&mut stream).await;
    drop_the_root(&pair);
    let mut got = Vec::new();
    let _ = timeout(Duration::from_secs(30), stream.read_to_end(&mut got)).await.expect("the tunnel ends");
    pair.server.counted(&["reason=\"PEER_NOT_TRUSTED\""], 1).await;
}

/// Nobody is left behind when the caller of a tunnel is gone before it stands, whether it was connected to or not.
#[tokio::test]
async fn a_caller_that_leaves_is_counted() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Opaque, app.address(), |_| ()).await;
    for (host, reason) in [("pending:80", "DISCOVERY_UNAVAILABLE"), ("catalog:8080", "")] {
        let mut stream = TcpStream::connect(outbound(&pair)).await.unwrap();
        let head = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        drop(stream);
        pair.client.counted(&["protocol=\"tcp\"", &format!("reason=\"{reason}\"")], 1).await;
        let none = || async { (pair.client.metric("mesh_connections_active", &[]).await == 0).then_some(()) };
        eventually(PATIENCE, "nothing is open", none).await;
    }
}
