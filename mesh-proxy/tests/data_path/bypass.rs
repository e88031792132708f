//! Authorisation sees the path that is forwarded: nobody gets around a rule by writing a path in another way.

use std::net::SocketAddr;

use http::Method;
use mesh_core::{
    matching::{PathMatch, RequestMatch},
    name::ObjectRef,
    policy::{Action, Rule, Scope, Source},
    protocol::Protocol,
};
use mesh_testkit::net::{PATIENCE, eventually};

use crate::{
    corpus::paths::{ANY, CONNECT, HTTP1, HTTP2, Path},
    frames::{Raw, headers},
    mesh::{Pair, Side},
    raw::{Arrived, Backend, send},
    smuggling::refusals,
};

/// The rule, in each way in which it can be written.
fn rules() -> [PathMatch; 3] {
    let pattern = mesh_core::matching::Pattern::whole("/admin(/.*)?").unwrap();
    [
        PathMatch::Prefix("/admin".to_owned()),
        PathMatch::Prefix("/admin/".to_owned()),
        PathMatch::Regex(pattern),
    ]
}

async fn pair(backend: &Backend, path: PathMatch) -> Pair {
    let rule = |action, of| Rule {
        object: ObjectRef::new("AccessPolicy", "shop", "no-admin"),
        action,
        sources: vec![Source::Any],
        ports: Vec::new(),
        scope: Scope::Http(vec![of]),
    };
    let deny = rule(Action::Deny, RequestMatch { path: Some(path), ..RequestMatch::default() });
    // What is denied stays denied.
    let tunnels = RequestMatch { methods: vec![Method::CONNECT], ..RequestMatch::default() };
    let rules = [deny, rule(Action::Allow, tunnels)];
    let change =
        |_: &mut _, server: &mut mesh_core::config::WorkloadConfig| server.policy.rules.extend(rules);
    Pair::with(Protocol::Http1, backend.address(), |_| (), change).await
}

fn verdict(path: Path, arrived: &[Arrived]) -> bool {
    match (path, arrived) {
        (Path::Denied, []) => true,
        (Path::Passes(target), [Ok(message)]) => message.target == target,
        _ => false,
    }
}

async fn http1(to: SocketAddr, target: &str) -> String {
    send(to, format!("GET {target} HTTP/1.1\r\nHost: catalog\r\n\r\n").as_bytes()).await
}

/// Asks for a tunnel, and for what is denied within it.
async fn tunnel(to: SocketAddr, target: &str, host: &str) -> String {
    let within = "GET /admin HTTP/1.1\r\nHost: catalog\r\n\r\n";
    send(to, format!("CONNECT {target} HTTP/1.1\r\nHost: {host}\r\n\r\n{within}").as_bytes()).await
}

async fn http2(to: SocketAddr, path: &str) -> String {
    let mut raw = Raw::connect(to).await;
    let fields: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", b"catalog"),
        (b":path", path.as_bytes()),
    ];
    raw.send(&headers(1, true, &fields), PATIENCE).await;
    format!("{:?}", raw.end_of(1).await)
}

async fn run(to: SocketAddr, judge: &Side, backend: &Backend) {
    let mut failures = Vec::new();
    for (version, cases) in [(1, [ANY, HTTP1]), (2, [ANY, HTTP2])] {
        for (target, path) in cases.into_iter().flatten() {
            let answer = if version == 1 { http1(to, target).await } else { http2(to, target).await };
            let arrived = backend.take();
            if !verdict(*path, &arrived) {
                failures.push(format!("HTTP/{version} {target}: not {path:?}: {answer:?} {arrived:?}"));
            }
        }
    }
    for (target, host) in CONNECT.iter().flat_map(|target| [(target, *target), (target, "catalog")]) {
        let answer = tunnel(to, target, host).await;
        let arrived = backend.take();
        if !arrived.is_empty() {
            failures.push(format!("CONNECT {target}, host {host}: {answer:?} {arrived:?}"));
        }
    }
    assert!(failures.is_empty(), "{} of them\n{}", failures.len(), failures.join("\n"));
    let counted = || async { (refusals(judge).await > 50).then_some(()) };
    eventually(PATIENCE, "refusals are counted", counted).await;
}

#[tokio::test]
async fn nobody_gets_around_a_rule_of_inbound() {
    for rule in rules() {
        let backend = Backend::start().await;
        let pair = pair(&backend, rule).await;
        run((pair.server.ip(), 8080).into(), &pair.server, &backend).await;
    }
}

#[tokio::test]
async fn nobody_gets_around_a_rule_through_both_sides() {
    let backend = Backend::start().await;
    let pair = pair(&backend, PathMatch::Prefix("/admin".to_owned())).await;
    run(pair.client.proxy.addresses().outbound, &pair.server, &backend).await;
}

#[test]
fn the_corpus_is_large() {
    let denied = |cases: &[(&str, Path)]| cases.iter().filter(|(_, path)| *path == Path::Denied).count();
    assert!(denied(ANY) >= 40, "{}", denied(ANY));
}
