//! CONNECT to an application that is a proxy itself: carried to it as a request, and then as bytes.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::Method;
use mesh_core::{
    config::WorkloadConfig,
    matching::{PathMatch, RequestMatch},
    name::{ObjectRef, ServicePort},
    policy::{Action, DefaultAction, Rule, Scope, Source},
    protocol::Protocol,
};
use mesh_testkit::{
    net::{PATIENCE, fresh_addr},
    serve::Served,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use crate::{
    connect::{connect, read_head, rest},
    mesh::{Mesh, Pair, endpoint, serves},
    raw::Backend,
    redirect::redirected,
    tunnels::echoes,
};

/// An application that is a proxy, and the heads that it saw. What it answers follows from the target.
struct AppProxy {
    served: Served,
    seen: Arc<Mutex<Vec<String>>>,
}

/// Target and answer. Where it is 2xx, what follows is sent back.
const ANSWERS: &[(&str, &str)] = &[
    ("open:80", "HTTP/1.1 200 Connection established\r\nx-kept: 1\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n"),
    // A length or chunks mean nothing here.
    ("odd:80", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n"),
    ("empty:80", "HTTP/1.1 204 No Content\r\n\r\n"),
    ("first:80", "HTTP/1.1 200 OK\r\n\r\n220 ready"),
    ("bad:80", "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 4\r\n\r\nnone"),
    (
        "auth:80",
        "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\ncontent-length: 4\r\n\r\nwho?",
    ),
];

impl AppProxy {
    async fn start() -> Self {
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let all = Arc::clone(&seen);
        let served = Served::start(fresh_addr(0), move |stream, _| serve(stream, Arc::clone(&all)));
        Self { served: served.await, seen }
    }

    /// The heads since this was asked last.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let allowed = head.contains("proxy-authorization: basic bwu6");
        seen.lock().unwrap().push(head);
        let answer =
            ANSWERS.iter().find(|(of, _)| *of == target).map_or("HTTP/1.1 404 X\r\n\r\n", |(_, a)| a);
        let answer = if allowed { "HTTP/1.1 200 OK\r\n\r\n" } else { answer };
        stream.write_all(answer.as_bytes()).await.unwrap();
        if answer.starts_with("HTTP/1.1 2") {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
            return;
        }
    }
}

/// Goes through all answers of an application at `to`. `client` is who it sees as the caller.
async fn all_answers(to: SocketAddr, app: &AppProxy, client: Option<&str>) {
    for (target, status) in
        [("open:80", "200 Connection established"), ("odd:80", "200 OK"), ("empty:80", "204 ")]
    {
        // What comes early is not lost, and no request.
        let early = b"GET /early HTTP/1.1\r\nHost: a\r\n\r\n";
        let (mut stream, head, mut got) = connect(to, target, early).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
        for absent in ["content-length", "transfer-encoding", "connection:", "x-hop", "mesh-"] {
            assert!(!head.contains(absent), "{target}: {head}");
        }
        assert_eq!(head.contains("x-kept: 1"), target == "open:80", "{head}");
        while got.len() < early.len() {
            assert_ne!(timeout(PATIENCE, stream.read_buf(&mut got)).await.unwrap().unwrap(), 0);
        }
        assert_eq!(got, early);
        echoes(&mut stream).await;
        stream.shutdown().await.unwrap();
        assert_eq!(rest(&mut stream, Vec::new()).await, b"");
        let all = app.take();
        assert_eq!(all.len(), 1, "{all:?}");
        let seen = &all[0];
        assert!(seen.starts_with(&format!("connect {target} http/1.1\r\n")), "{seen}");
        assert!(seen.contains(&format!("\r\nhost: {target}\r\n")), "{seen}");
        let id = seen.lines().find_map(|line| line.strip_prefix("mesh-client-id: "));
        assert_eq!(id, client, "{seen}");
        for absent in ["content-length", "transfer-encoding", "connection:"] {
            assert!(!seen.contains(absent), "{seen}");
        }
    }
    let (mut stream, _, mut got) = connect(to, "first:80", b"").await;
    while got.len() < 9 {
        assert_ne!(timeout(PATIENCE, stream.read_buf(&mut got)).await.unwrap().unwrap(), 0);
    }
    assert_eq!(got, b"220 ready");
    // What is no tunnel has a body, and ends the connection: nothing that was sent behind it is a request.
    for (target, status, body) in [("bad:80", "502", "none"), ("auth:80", "407", "who?")] {
        let (mut stream, head, got) = connect(to, target, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains("connection: close\r\n") && !head.contains("mesh-reason"), "{head}");
        assert_eq!(head.contains("proxy-authenticate: Basic\r\n"), status == "407", "{head}");
        assert_eq!(rest(&mut stream, got).await, body.as_bytes());
    }
    let mut stream = TcpStream::connect(to).await.unwrap();
    let authorised = "CONNECT auth:80 HTTP/1.1\r\nHost: auth\r\nProxy-Authorization: Basic bWU6\r\n\r\n";
    stream.write_all(authorised.as_bytes()).await.unwrap();
    let (head, _) = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    echoes(&mut stream).await;
    let seen = app.take();
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert!(!seen.iter().any(|head| head.contains("smuggled")), "{seen:?}");
}

#[tokio::test]
async fn a_proxy_beside_inbound_answers() {
    let app = AppProxy::start().await;
    let pair = Pair::with(Protocol::Http1, app.served.address(), |_| (), allow).await;
    all_answers((pair.server.ip(), 8080).into(), &app, None).await;
    pair.server.counted(&["protocol=\"http\"", "status=\"2xx\"", "reason=\"\""], 5).await;
    pair.server.counted(&["protocol=\"http\"", "status=\"4xx\"", "reason=\"\""], 1).await;
}

/// Through both proxies: the application dials the other one's address, and takes it for its proxy.
#[test]
fn a_proxy_behind_both_sides_answers() {
    redirected("connect_through::a_proxy_behind_both_sides_answers", || async {
        for declared in [Protocol::Http1, Protocol::Undeclared] {
            let (mesh, app) = (Mesh::start().await, AppProxy::start().await);
            let service = ServicePort::new("shop", "egress", 3128);
            let mut config = mesh.workload("server");
            serves(&mut config, 3128, declared, app.served.address(), &service);
            config.policy.rules.push(rule(Action::Allow, "/", &[Method::CONNECT]));
            let server = mesh.proxy(config, |_| ()).await;
            let port = if declared == Protocol::Http1 { 3128 } else { 3129 };
            let address = SocketAddr::from(([10, 96, 0, 8], port));
            mesh.service_at(address, &service, declared, &[endpoint(&server.config, 3128, declared)]);
            let client = mesh.transparent(mesh.workload("client"), |_| ()).await;
            all_answers(address, &app, Some("spiffe://cluster.local/ns/shop/sa/client")).await;
            for side in [&client, &server] {
                side.counted(&["protocol=\"http\"", "status=\"2xx\"", "secured=\"true\"", "reason=\"\""], 5)
                    .await;
            }
            client.proxy.shutdown().await;
        }
    });
}

/// A rule: what it does, with paths that begin so, and with which methods; none: with all.
type OneRule = Option<(Action, &'static str, &'static [Method])>;

/// The default and a rule, whether CONNECT is let in, and whether GET `/public` is.
const POLICIES: &[(&str, DefaultAction, OneRule, bool, bool)] = &[
    // An application that is no proxy may take what is inside for requests.
    ("no rule", DefaultAction::Allow, None, false, true),
    ("the default denies", DefaultAction::Deny, None, false, false),
    // What is inside is not seen: it could be what the rule denies.
    ("a rule denies a path", DefaultAction::Allow, Some((Action::Deny, "/admin", &[])), false, true),
    ("a rule denies a method", DefaultAction::Allow, Some((Action::Deny, "/", &[Method::POST])), false, true),
    ("a rule allows a path", DefaultAction::Deny, Some((Action::Allow, "/public", &[])), false, true),
    ("a rule allows methods", DefaultAction::Deny, Some((Action::Allow, "/", &[Method::GET])), false, true),
    (
        "a rule allows CONNECT",
        DefaultAction::Deny,
        Some((Action::Allow, "/", &[Method::CONNECT])),
        true,
        false,
    ),
    (
        "a rule allows CONNECT besides",
        DefaultAction::Allow,
        Some((Action::Allow, "/", &[Method::GET, Method::CONNECT])),
        true,
        true,
    ),
    ("a rule allows all", DefaultAction::Deny, Some((Action::Allow, "/", &[])), false, true),
];

/// The application is declared to be a proxy.
fn allow(_: &mut WorkloadConfig, server: &mut WorkloadConfig) {
    server.policy.rules.push(rule(Action::Allow, "/", &[Method::CONNECT]));
}

fn rule(action: Action, prefix: &str, methods: &[Method]) -> Rule {
    let path = Some(PathMatch::Prefix(prefix.to_owned()));
    let of = RequestMatch { path, methods: methods.to_vec(), ..RequestMatch::default() };
    Rule {
        object: ObjectRef::new("AccessPolicy", "shop", "some"),
        action,
        sources: vec![Source::Any],
        ports: Vec::new(),
        scope: Scope::Http(vec![of]),
    }
}

#[tokio::test]
async fn policy_decides_about_tunnels() {
    for (name, default, some, tunnel, public) in POLICIES {
        let app = AppProxy::start().await;
        let change = |_: &mut WorkloadConfig, server: &mut WorkloadConfig| {
            server.policy.default_action = *default;
            server.policy.rules.extend(some.map(|(action, prefix, methods)| rule(action, prefix, methods)));
        };
        let pair = Pair::with(Protocol::Http1, app.served.address(), |_| (), change).await;
        let to = (pair.server.ip(), 8080).into();
        let (_, head, _) = connect(to, "open:80", b"").await;
        let expected = if *tunnel { "HTTP/1.1 200 " } else { "HTTP/1.1 403 " };
        assert!(head.starts_with(expected), "{name}: {head}");
        let answer = crate::raw::send(to, b"GET /public HTTP/1.1\r\nHost: catalog\r\n\r\n").await;
        let expected = if *public { "HTTP/1.1 404 " } else { "HTTP/1.1 403 " };
        assert!(answer.starts_with(expected), "{name}: {answer}");
        assert_eq!(app.take().len(), usize::from(*tunnel) + usize::from(*public), "{name}");
    }
}

/// A caller that has said all before the application answers is not gone.
#[test]
fn a_caller_may_be_done_before_it_is_answered() {
    redirected("connect_through::a_caller_may_be_done_before_it_is_answered", || async {
        let (asked, answer) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let signs = (Arc::clone(&asked), Arc::clone(&answer));
        let app = Served::start(fresh_addr(0), move |mut stream, _| {
            let (asked, answer) = signs.clone();
            async move {
                let (_, early) = read_head(&mut stream).await;
                assert_eq!(early, b"", "nothing is said into a tunnel that does not stand");
                asked.add_permits(1);
                answer.acquire().await.unwrap().forget();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let said = rest(&mut stream, Vec::new()).await;
                stream.write_all(&said).await.unwrap();
            }
        })
        .await;
        let mesh = Mesh::start().await;
        let service = ServicePort::new("shop", "egress", 3128);
        let mut config = mesh.workload("server");
        serves(&mut config, 3128, Protocol::Http1, app.address(), &service);
        config.policy.rules.push(rule(Action::Allow, "/", &[Method::CONNECT]));
        let server = mesh.proxy(config, |_| ()).await;
        let address = SocketAddr::from(([10, 96, 0, 10], 3128));
        mesh.service_at(
            address,
            &service,
            Protocol::Http1,
            &[endpoint(&server.config, 3128, Protocol::Http1)],
        );
        let client = mesh.transparent(mesh.workload("client"), |_| ()).await;
        for (to, side) in [(address, &client), ((server.ip(), 3128).into(), &server)] {
            let mut stream = TcpStream::connect(to).await.unwrap();
            stream.write_all(b"CONNECT open:80 HTTP/1.1\r\nHost: open\r\n\r\nhello").await.unwrap();
            stream.shutdown().await.unwrap();
            timeout(PATIENCE, asked.acquire()).await.unwrap().unwrap().forget();
            // By then its end has arrived.
            assert_eq!(side.requests(&["reason=\"CLIENT_DISCONNECTED\""]).await, 0);
            answer.add_permits(1);
            let (head, got) = read_head(&mut stream).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(rest(&mut stream, got).await, b"hello");
        }
        client.proxy.shutdown().await;
    });
}

#[tokio::test]
async fn a_policy_that_denies_ends_a_tunnel() {
    let app = AppProxy::start().await;
    let pair = Pair::with(Protocol::Http1, app.served.address(), |_| (), allow).await;
    let (mut stream, ..) = connect((pair.server.ip(), 8080).into(), "open:80", b"").await;
    echoes(&mut stream).await;
    let mut config = pair.server.config.clone();
    config.policy.rules.push(rule(Action::Deny, "/admin", &[]));
    pair.mesh.publish(&config);
    assert_eq!(rest(&mut stream, Vec::new()).await, b"");
    pair.server.counted(&["reason=\"AUTHZ_DENIED\""], 1).await;
}

/// An application that is no proxy, and answers every request alike, gets nothing by CONNECT: what is inside would be requests
/// in anybody's name.
#[test]
fn an_application_that_is_no_proxy_gets_no_tunnel() {
    redirected("connect_through::an_application_that_is_no_proxy_gets_no_tunnel", || async {
        let mesh = Mesh::start().await;
        let app = Backend::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let service = ServicePort::new("shop", "catalog", 8080);
        let mut config = mesh.workload("server");
        serves(&mut config, 8080, Protocol::Http1, app.address(), &service);
        let server = mesh.proxy(config, |_| ()).await;
        let address = SocketAddr::from(([10, 96, 0, 9], 8080));
        mesh.service_at(
            address,
            &service,
            Protocol::Http1,
            &[endpoint(&server.config, 8080, Protocol::Http1)],
        );
        let client = mesh.transparent(mesh.workload("client"), |_| ()).await;
        let within = b"GET /forged HTTP/1.1\r\nHost: a\r\nMesh-Client-Id: spiffe://cluster.local/ns/shop/sa/admin\r\n\r\n";
        let (mut stream, head, got) = connect(address, "catalog:8080", within).await;
        assert!(
            head.starts_with("HTTP/1.1 403 ") && head.contains("mesh-reason: AUTHZ_DENIED\r\n"),
            "{head}"
        );
        let text = String::from_utf8(rest(&mut stream, got).await).unwrap();
        assert!(text.contains("allow the method CONNECT by name") && text.contains("as tcp"), "{text}");
        assert!(app.take().is_empty());
        client.proxy.shutdown().await;
    });
}

/// An application that speaks HTTP/2 is no such proxy.
#[tokio::test]
async fn there_is_no_tunnel_through_http2() {
    let app = AppProxy::start().await;
    let pair = Pair::start(Protocol::Http2, app.served.address(), |_| ()).await;
    let (_, head, _) = connect((pair.server.ip(), 8080).into(), "open:80", b"").await;
    assert!(head.starts_with("HTTP/1.1 501 "), "{head}");
    pair.server.counted(&["reason=\"UNSUPPORTED\"", "status=\"5xx\""], 1).await;
}
