//! Ports on which nothing is declared: who speaks first, and what.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use mesh_core::{
    config::WorkloadConfig,
    matching::{PathMatch, RequestMatch},
    name::{ObjectRef, ServicePort},
    policy::{Action, DefaultAction, Rule, Scope, Source},
    protocol::Protocol,
    route::Backend,
};
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    client::Connection,
    net::{PATIENCE, fresh_addr, until},
    serve::Served,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{
    mesh::{Mesh, Pair, Side, endpoint, open_policy, route_to, serves},
    redirect::redirected,
};

/// Handshake packet of a MySQL server, as it begins: length, sequence number, protocol 10, version.
const MYSQL: &[u8] = b"\x0c\x00\x00\x00\x0a8.4.0-test\x00";
/// What a connection to a server that speaks first may take longer than with `appProtocol: tcp`.
const ADDED: Duration = Duration::from_millis(2);

/// Time to the first bytes of the server.
async fn first_byte(to: SocketAddr, expected: &[u8]) -> Duration {
    let began = Instant::now();
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut got = vec![0; expected.len()];
    timeout(PATIENCE, stream.read_exact(&mut got)).await.unwrap().unwrap();
    assert_eq!(got, expected);
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Two ports, one declared, one not, of one workload with the same application.
struct Twins {
    mesh: Mesh,
    client: Side,
    server: Side,
}

const DECLARED: u16 = 3306;
const UNDECLARED: u16 = 3307;

impl Twins {
    async fn start(app: SocketAddr) -> Self {
        let mesh = Mesh::start().await;
        let mut config = mesh.workload("server");
        for (port, protocol) in [(DECLARED, Protocol::Opaque), (UNDECLARED, Protocol::Undeclared)] {
            serves(&mut config, port, protocol, app, &ServicePort::new("shop", "db", port));
        }
        let server = mesh.proxy(config, |_| ()).await;
        let client = mesh.transparent(mesh.workload("client"), |_| ()).await;
        Self { mesh, client, server }
    }

    /// A Service address of its own for one of the ports.
    fn address(&self, host: u8, port: u16) -> SocketAddr {
        let address = SocketAddr::from(([10, 96, 0, host], port));
        let service = ServicePort::new("shop", &format!("db-{host}"), port);
        let protocol = if port == DECLARED { Protocol::Opaque } else { Protocol::Undeclared };
        self.mesh.service_at(address, &service, protocol, &[endpoint(&self.server.config, port, protocol)]);
        address
    }
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once() {
    redirected("first_bytes::a_server_that_speaks_first_is_heard_at_once", || async {
        let app = TcpApp::speaking_first(fresh_addr(0), MYSQL).await;
        let twins = Twins::start(app.address()).await;
        // The first connection to each of many Services, of which nothing is known.
        let (mut declared, mut undeclared) = (Vec::new(), Vec::new());
        for host in 1..=25 {
            declared.push(first_byte(twins.address(host, DECLARED), MYSQL).await);
            undeclared.push(first_byte(twins.address(host + 100, UNDECLARED), MYSQL).await);
        }
        let (new, new_declared) = (median(undeclared), median(declared));
        println!("first connection: declared {new_declared:?}, undeclared {new:?}");
        assert!(new <= new_declared + ADDED, "{new:?}, declared: {new_declared:?}");
        // Again and again to the same two.
        let (mut declared, mut undeclared) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            declared.push(first_byte(([10, 96, 0, 1], DECLARED).into(), MYSQL).await);
            undeclared.push(first_byte(([10, 96, 0, 101], UNDECLARED).into(), MYSQL).await);
        }
        let (known, known_declared) = (median(undeclared), median(declared));
        println!("later connections: declared {known_declared:?}, undeclared {known:?}");
        assert!(known <= known_declared + ADDED, "{known:?}, declared: {known_declared:?}");
        twins.client.counted(&["protocol=\"tcp\"", "secured=\"true\"", "reason=\"\""], 150).await;
        twins.server.counted(&["protocol=\"tcp\"", "secured=\"true\"", "reason=\"\""], 150).await;
        // A ClientHello may come just when the application has been connected to: then that was in vain.
        let made = app.connections();
        assert!((150..=155).contains(&made), "one for each of the client's: {made}");
    });
}

#[tokio::test]
async fn callers_without_a_proxy_hear_a_server_at_once_too() {
    let app = TcpApp::speaking_first(fresh_addr(0), MYSQL).await;
    let mesh = Mesh::start().await;
    let mut config = mesh.workload("server");
    let ports = [(DECLARED, Protocol::Opaque), (UNDECLARED, Protocol::Undeclared)];
    for (port, protocol) in ports {
        serves(&mut config, port, protocol, app.address(), &ServicePort::new("shop", "db", port));
    }
    let server = mesh.proxy(config, |_| ()).await;
    for (port, _) in ports {
        let new = first_byte((server.ip(), port).into(), MYSQL).await;
        let (mut direct, mut through) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            direct.push(first_byte(app.address(), MYSQL).await);
            through.push(first_byte((server.ip(), port).into(), MYSQL).await);
        }
        let (direct, through) = (median(direct), median(through));
        println!("port {port}: direct {direct:?}, first {new:?}, later {through:?}");
        assert!(through <= direct + ADDED, "{through:?}, without a proxy {direct:?}");
    }
}

/// A server of SMTP, as far as a client needs it to say goodbye.
async fn smtp(stream: TcpStream) {
    let mut stream = BufReader::new(stream);
    let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
    let mut line = String::new();
    while matches!(stream.read_line(&mut line).await, Ok(1..)) {
        let (answer, last): (&[u8], _) = match line.trim_end() {
            "EHLO client" => (b"250 mail.example\r\n", false),
            "QUIT" => (b"221 bye\r\n", true),
            _ => (b"500 what?\r\n", false),
        };
        let _ = stream.write_all(answer).await;
        if last {
            break;
        }
        line.clear();
    }
}

#[test]
fn a_dialogue_that_the_server_begins_runs_to_its_end() {
    redirected("first_bytes::a_dialogue_that_the_server_begins_runs_to_its_end", || async {
        let app = Served::start(fresh_addr(0), |stream, _| smtp(stream)).await;
        let twins = Twins::start(app.address()).await;
        for (host, port) in [(1, DECLARED), (2, UNDECLARED), (2, UNDECLARED)] {
            let to = twins.address(host, port);
            let mut stream = BufReader::new(TcpStream::connect(to).await.unwrap());
            let mut dialogue = String::new();
            stream.read_line(&mut dialogue).await.unwrap();
            stream.write_all(b"EHLO client\r\n").await.unwrap();
            stream.read_line(&mut dialogue).await.unwrap();
            stream.write_all(b"QUIT\r\n").await.unwrap();
            stream.read_to_string(&mut dialogue).await.unwrap();
            assert_eq!(dialogue, "220 mail.example ESMTP\r\n250 mail.example\r\n221 bye\r\n");
        }
        assert_eq!(app.accepted(), 3);
    });
}

/// Who asks first is understood, also when it takes its time; bytes pass both ways and end one by one.
#[test]
fn clients_that_speak_first_are_understood() {
    redirected("first_bytes::clients_that_speak_first_are_understood", || async {
        let web = HttpApp::start("web", fresh_addr(0)).await;
        let twins = Twins::start(web.address()).await;
        let http1 = twins.address(1, UNDECLARED);
        let http2 = twins.address(2, UNDECLARED);
        // An HTTP/2 server speaks first, too: its settings are no greeting.
        let stream = TcpStream::connect(http2).await.unwrap();
        assert_eq!(Connection::http2(stream).await.get("/", "db-2").await.unwrap().status(), 200);
        // Longer silent than any time-out of the detection, then HTTP all the same.
        let mut slow = TcpStream::connect(http1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: db-1\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        slow.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // One byte at a time.
        let mut drops = TcpStream::connect(http1).await.unwrap();
        for byte in b"GET /drops HTTP/1.1\r\nHost: db-1\r\nConnection: close\r\n\r\n" {
            drops.write_all(&[*byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        answer.clear();
        drops.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for _ in 0..10 {
            let stream = TcpStream::connect(http1).await.unwrap();
            assert_eq!(Connection::http1(stream).await.get("/", "db-1").await.unwrap().status(), 200);
        }
        for side in [&twins.client, &twins.server] {
            side.counted(&["protocol=\"http\"", "status=\"2xx\""], 12).await;
            side.counted(&["protocol=\"http2\"", "status=\"2xx\""], 1).await;
        }
        twins.client.counted(&["protocol=\"tcp\""], 0).await;
        // What the HTTP/2 server said first counts as a connection where it was read.
        assert!(twins.server.requests(&["protocol=\"tcp\""]).await <= 1);
        // One connection that carries requests, and at most one in vain for each Service and for the port.
        assert!(web.connections() <= 6, "{} connections", web.connections());
    });
}

#[test]
fn bytes_of_a_client_that_speaks_first_pass_and_end_one_way_at_a_time() {
    redirected("first_bytes::bytes_of_a_client_that_speaks_first_pass_and_end_one_way_at_a_time", || async {
        let app = TcpApp::start(fresh_addr(0)).await;
        let twins = Twins::start(app.address()).await;
        let to = twins.address(1, UNDECLARED);
        // Not HTTP; not to be told from HTTP; TLS that is broken; all that is sent at once, and nothing.
        let cases: [&[u8]; 5] =
            [b"*1\r\n$4\r\nPING\r\n", b"PING ", b"\x16\x03\x01\x00\x05\x02", &[7; 100_000], b""];
        for case in cases {
            let mut stream = TcpStream::connect(to).await.unwrap();
            let (mut read, mut write) = stream.split();
            let send = async {
                write.write_all(case).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut echoed = Vec::new();
            let (read, ()) = tokio::join!(timeout(PATIENCE, read.read_to_end(&mut echoed)), send);
            read.expect("the end comes back").unwrap();
            assert_eq!(echoed, case);
        }
        // The answer is awaited before the client ends.
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(b"PING ").await.unwrap();
        let mut echoed = [0; 5];
        timeout(PATIENCE, stream.read_exact(&mut echoed)).await.expect("an echo").unwrap();
        assert_eq!(app.connections(), cases.len() as u64 + 1);
    });
}

/// Only `GET` is allowed.
fn reads_only(config: &mut WorkloadConfig) {
    let reads = RequestMatch { methods: vec![http::Method::GET], ..RequestMatch::default() };
    config.policy = open_policy();
    config.policy.default_action = DefaultAction::Deny;
    config.policy.rules.push(Rule {
        object: ObjectRef::new("TrafficTarget", "shop", "readers"),
        action: Action::Allow,
        sources: vec![Source::Any],
        ports: Vec::new(),
        scope: Scope::Http(vec![reads]),
    });
}

/// A port with rules about requests takes no bytes, and its application is not bothered with attempts.
#[test]
fn rules_about_requests_hold_where_nothing_is_declared() {
    redirected("first_bytes::rules_about_requests_hold_where_nothing_is_declared", || async {
        let web = HttpApp::start("web", fresh_addr(0)).await;
        let twins = Twins::start(web.address()).await;
        let mut config = twins.server.config.clone();
        reads_only(&mut config);
        twins.mesh.publish(&config);
        let to = twins.address(1, UNDECLARED);
        let post = b"POST / HTTP/1.1\r\nHost: db-1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let refused = || async {
            let mut stream = TcpStream::connect(to).await.unwrap();
            stream.write_all(post).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer.starts_with("HTTP/1.1 403").then_some(())
        };
        mesh_testkit::net::eventually(PATIENCE, "the rules hold", refused).await;
        let (connections, before) = (web.connections(), twins.server.requests(&[]).await);
        // A connection that is opened long before its request is not taken for bytes, and nothing is counted of it.
        let stream = TcpStream::connect(twins.address(2, UNDECLARED)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(Connection::http1(stream).await.get("/", "db-2").await.unwrap().status(), 200);
        twins.server.counted(&[], before + 1).await;
        assert!(web.connections() <= connections + 1, "only for the request that is allowed");
        // Bytes, of a peer and of a caller without a proxy.
        for to in [twins.address(3, UNDECLARED), (twins.server.ip(), UNDECLARED).into()] {
            let mut stream = TcpStream::connect(to).await.unwrap();
            stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
            let mut got = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("it is closed");
            assert!(got.is_empty());
        }
        for secured in ["secured=\"true\"", "secured=\"false\""] {
            twins.server.counted(&["protocol=\"tcp\"", "reason=\"AUTHZ_DENIED\"", secured], 1).await;
        }
        assert!(web.connections() <= connections + 1);
    });
}

/// Bytes go where a rule does not look into requests, if policy lets them in as a whole.
#[tokio::test]
async fn bytes_pass_where_the_whole_connection_is_allowed() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::with(
        Protocol::Undeclared,
        app.address(),
        |_| (),
        |client, server| {
            reads_only(server);
            crate::mesh::upstream(client, 17_000, "catalog:8080");
            let whole = Rule {
                object: ObjectRef::new("TrafficTarget", "shop", "whole"),
                action: Action::Allow,
                sources: vec![Source::Identity(client.identity.clone())],
                ports: Vec::new(),
                scope: Scope::Any,
            };
            server.policy.rules.push(whole);
        },
    )
    .await;
    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut echoed = [0; 6];
    timeout(PATIENCE, stream.read_exact(&mut echoed)).await.expect("an echo").unwrap();
    drop(stream);
    pair.server.counted(&["rule=\"TrafficTarget shop/whole\"", "protocol=\"tcp\""], 1).await;
    assert_eq!(app.connections(), 1);
}

/// Routes that look into requests: what is none is refused unless a rule takes everything, and nothing is tried.
#[test]
fn routes_about_requests_take_no_bytes() {
    redirected("first_bytes::routes_about_requests_take_no_bytes", || async {
        let app = TcpApp::speaking_first(fresh_addr(0), MYSQL).await;
        let twins = Twins::start(app.address()).await;
        let to = twins.address(1, UNDECLARED);
        let service = ServicePort::new("shop", "db-1", UNDECLARED);
        let mut routes = route_to(&service, Protocol::Undeclared, &[(&service, 1)]);
        routes.rules[0].matches =
            vec![RequestMatch { path: Some(PathMatch::Exact("/x".to_owned())), ..RequestMatch::default() }];
        twins.mesh.at(to, routes.clone());
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(b"PING\r\n").await.unwrap();
        let mut got = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("it is closed");
        twins.client.counted(&["reason=\"ROUTE_NOT_MATCHED\"", "protocol=\"tcp\""], 1).await;
        let silent = TcpStream::connect(to).await.unwrap();
        tokio::time::sleep(Duration::from_millis(800)).await;
        drop(silent);
        assert_eq!((got.len(), app.connections()), (0, 0));
        // With a rule for everything else, bytes that are no request go there.
        let backends = vec![Backend::new(service.clone(), 1)];
        let rest = mesh_core::route::RouteRule { matches: Vec::new(), backends, ..routes.rules[0].clone() };
        routes.rules.push(rest);
        twins.mesh.at(to, routes);
        let carried = || async {
            let mut stream = TcpStream::connect(to).await.unwrap();
            stream.write_all(b"PING\r\n").await.unwrap();
            let mut got = vec![0; MYSQL.len()];
            stream.read_exact(&mut got).await.ok()
        };
        mesh_testkit::net::eventually(PATIENCE, "bytes are carried", carried).await;
    });
}

#[tokio::test]
async fn a_probe_that_says_nothing_leaves_nothing_behind() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Undeclared, app.address(), |_| ()).await;
    drop(TcpStream::connect((pair.server.ip(), 8080)).await.unwrap());
    let silent = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
    until("the application is connected to", || app.open_connections() == 1).await;
    drop(silent);
    until("the application sees the end", || app.open_connections() == 0).await;
}
