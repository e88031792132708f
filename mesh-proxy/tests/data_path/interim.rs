//! What is said before a response, and bodies that wait to be asked for, between callers and applications of both versions
//! of HTTP, in both ways in which HTTP/1 travels between proxies.

use std::{fmt::Write as _, future::poll_fn, net::SocketAddr};

use ::h2::{RecvStream, SendStream, client, server};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use mesh_core::{name::ServicePort, protocol::Protocol};
use mesh_proxy::config::Http1Transport;
use mesh_testkit::{
    net::{PATIENCE, fresh_addr},
    serve::Served,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::mesh::{Mesh, Pair, endpoint, serves};

/// What an application says to the heads of these requests, before it reads their bodies. `200` answers with the body.
const APP: &[(&str, &[u16])] = &[
    ("/none", &[200]),
    ("/hints", &[102, 103, 103, 200]),
    ("/most", &[103; 16]),
    ("/many", &[103; 17]),
    ("/asks", &[100, 200]),
    ("/asks-twice", &[100, 100, 200]),
    ("/hints-and-asks", &[103, 100, 103, 200]),
    ("/is-silent", &[200]),
    ("/refuses", &[103, 417]),
];

/// One more than is passed on.
const MANY: &[u16] = &[103, 103, 103, 103, 103, 103, 103, 103, 103, 103, 103, 103, 103, 103, 103, 103, 502];

/// Method and path, whether the caller waits with its body, and what it is told in the end, whatever is between.
const CASES: &[(&str, &str, bool, &[u16])] = &[
    ("GET", "/none", false, &[200]),
    ("GET", "/hints", false, &[102, 103, 103, 200]),
    ("POST", "/hints", false, &[102, 103, 103, 200]),
    ("GET", "/most", false, &[103; 16]),
    ("GET", "/many", false, MANY),
    ("POST", "/asks", true, &[100, 200]),
    ("POST", "/asks-twice", true, &[100, 200]),
    ("POST", "/hints-and-asks", true, &[103, 100, 103, 200]),
    // The proxy asks in its place, after a second.
    ("POST", "/is-silent", true, &[100, 200]),
    ("POST", "/refuses", true, &[103, 417]),
];

/// What is said to a request. What is not in the list is 404.
fn said(path: &str) -> Vec<u16> {
    let list = APP.iter().find(|(of, _)| *of == path).map_or(&[404][..], |(_, list)| list);
    let end = (!list.iter().any(|status| *status >= 200)).then_some(200);
    list.iter().copied().chain(end).collect()
}

const LINK: &str = "</style.css>; rel=preload";

/// Applications of HTTP/1.
async fn http1_app() -> Served {
    Served::start(fresh_addr(0), |mut stream, _| async move {
        let mut read = Vec::new();
        while let Some(head) = head(&mut stream, &mut read).await {
            let path = head.split(' ').nth(1).unwrap_or_default();
            let length: usize = if head.contains("content-length: 5\r\n") { 5 } else { 0 };
            for status in said(path) {
                if status < 200 {
                    let fields = format!(
                        "link: {LINK}\r\nmesh-reason: X\r\nconnection: x-hop, upgrade\r\nx-hop: 1\r\nupgrade: x\r\n"
                    );
                    let text = format!("HTTP/1.1 {status} X\r\n{fields}\r\n");
                    stream.write_all(text.as_bytes()).await.unwrap();
                    continue;
                }
                while status == 200 && read.len() < length {
                    if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let body = String::from_utf8(read.drain(..length.min(read.len())).collect()).unwrap();
                let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// Takes a head off what was read. None: the connection ended.
async fn head(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = read.windows(4).position(|part| part == b"\r\n\r\n") {
            return Some(String::from_utf8(read.drain(..end + 4).collect()).unwrap());
        }
        if timeout(PATIENCE, stream.read_buf(read)).await.unwrap().unwrap_or(0) == 0 {
            return None;
        }
    }
}

/// Applications of HTTP/2.
async fn http2_app() -> Served {
    Served::start(fresh_addr(0), |stream, _| async move {
        let Ok(mut connection) = server::handshake(stream).await else { return };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let (head, mut body) = request.into_parts();
                for status in said(head.uri.path()) {
                    let response = Response::builder().status(status);
                    if status < 200 {
                        let response = response.header("link", LINK).header("mesh-reason", "X");
                        respond.send_informational(response.body(()).unwrap()).unwrap();
                        continue;
                    }
                    let text = if status == 200 { all(&mut body).await } else { Bytes::new() };
                    let response = response.header("content-length", text.len()).body(()).unwrap();
                    let Ok(mut stream) = respond.send_response(response, false) else { return };
                    let _ = stream.send_data(text, true);
                }
            });
        }
    })
    .await
}

/// Reads a body to its end.
async fn all(body: &mut RecvStream) -> Bytes {
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        all.extend_from_slice(&data);
    }
    all.into()
}

/// What a caller was told: statuses in their order, then the body.
type Told = (Vec<u16>, String);

fn check_fields(status: u16, link: Option<&str>, all: &str) {
    let expected = (100..200).contains(&status) && status != 100;
    assert!(!expected || link == Some(LINK), "{all}");
    assert!(!all.contains("x-hop") && !all.contains("mesh-reason: X") && !all.contains("upgrade"), "{all}");
}

/// Asks over HTTP/1. A body that waits is sent only when it was asked for.
async fn ask_http1(to: SocketAddr, method: &str, path: &str, waits: bool) -> Told {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: catalog\r\n");
    let has_body = method == "POST";
    if has_body {
        let _ = write!(text, "Content-Length: 5\r\n");
    }
    text += match (has_body, waits) {
        (_, true) => "Expect: 100-continue\r\n\r\n",
        (true, false) => "\r\nhello",
        (false, false) => "\r\n",
    };
    stream.write_all(text.as_bytes()).await.unwrap();
    let (mut read, mut statuses) = (Vec::new(), Vec::new());
    loop {
        let head = head(&mut stream, &mut read).await.unwrap();
        let status: u16 = head[9..12].parse().unwrap();
        statuses.push(status);
        let link = head.lines().find_map(|line| line.strip_prefix("link: "));
        check_fields(status, link, &head);
        match status {
            100 if waits => stream.write_all(b"hello").await.unwrap(),
            ..200 => {}
            _ => {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.unwrap().parse().unwrap();
                while read.len() < length {
                    assert_ne!(timeout(PATIENCE, stream.read_buf(&mut read)).await.unwrap().unwrap(), 0);
                }
                return (statuses, String::from_utf8(read).unwrap());
            }
        }
    }
}

/// As [`ask_http1`], over HTTP/2.
async fn ask_http2(to: SocketAddr, method: &str, path: &str, waits: bool) -> Told {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(format!("http://catalog{path}"));
    if waits {
        request = request.header("expect", "100-continue");
    }
    let has_body = method == "POST";
    if has_body {
        request = request.header("content-length", "5");
    }
    let request = request.body(()).unwrap();
    let (mut responding, mut body) = sender.send_request(request, !has_body).unwrap();
    let send = |body: &mut SendStream<Bytes>| body.send_data(Bytes::from_static(b"hello"), true).unwrap();
    if has_body && !waits {
        send(&mut body);
    }
    let mut statuses = Vec::new();
    loop {
        let next = timeout(PATIENCE, poll_fn(|cx| responding.poll_informational(cx))).await;
        let Some(said) = next.unwrap() else { break };
        let said = said.unwrap();
        statuses.push(said.status().as_u16());
        let link = said.headers().get("link").map(|link| link.to_str().unwrap());
        check_fields(said.status().as_u16(), link, &format!("{said:?}"));
        if said.status() == StatusCode::CONTINUE && waits {
            send(&mut body);
        }
    }
    let response = timeout(PATIENCE, responding).await.unwrap().unwrap();
    statuses.push(response.status().as_u16());
    let text = timeout(PATIENCE, all(&mut response.into_body())).await.unwrap();
    driver.abort();
    (statuses, String::from_utf8(text.to_vec()).unwrap())
}

async fn ask(caller: Version, to: SocketAddr, method: &str, path: &str, waits: bool) -> Told {
    match caller {
        Version::HTTP_2 => ask_http2(to, method, path, waits).await,
        _ => ask_http1(to, method, path, waits).await,
    }
}

/// Callers, applications and what is between them.
const WAYS: [(Version, Protocol, Http1Transport); 5] = [
    (Version::HTTP_11, Protocol::Http1, Http1Transport::H1),
    (Version::HTTP_11, Protocol::Http1, Http1Transport::H1OverH2),
    (Version::HTTP_11, Protocol::Http2, Http1Transport::H1),
    (Version::HTTP_2, Protocol::Http1, Http1Transport::H1),
    (Version::HTTP_2, Protocol::Http2, Http1Transport::H1),
];

async fn app(protocol: Protocol) -> Served {
    if protocol == Protocol::Http2 { http2_app().await } else { http1_app().await }
}

#[tokio::test]
async fn what_is_said_before_a_response_arrives() {
    for (caller, protocol, transport) in WAYS {
        let app = app(protocol).await;
        let pair = Pair::start(protocol, app.address(), |o| o.http1_transport = transport).await;
        let outbound = pair.client.proxy.addresses().outbound;
        for (method, path, waits, statuses) in CASES {
            let what = format!("{caller:?} {transport:?} {protocol} {method} {path}");
            let (told, body) = ask(caller, outbound, method, path, *waits).await;
            let last = statuses.last().filter(|status| **status < 200).map(|_| 200);
            let expected: Vec<u16> = statuses.iter().copied().chain(last).collect();
            assert_eq!(told, expected, "{what}");
            match expected.last() {
                Some(502) => assert!(body.contains("UPSTREAM_PROTOCOL_ERROR"), "{what}: {body}"),
                Some(200) => assert_eq!(body, if *method == "POST" { "hello" } else { "" }, "{what}"),
                _ => assert_eq!(body, "", "{what}"),
            }
        }
    }
}

/// What an application does not get is sent to another: the caller hears what that one says before its response.
#[tokio::test]
async fn a_request_that_went_elsewhere_hears_it_too() {
    for (caller, protocol, transport) in WAYS {
        let mesh = Mesh::start().await;
        let service = ServicePort::new("shop", "catalog", 8080);
        let app = app(protocol).await;
        let (mut one, mut two) = (mesh.workload("one"), mesh.workload("two"));
        serves(&mut one, 8080, protocol, fresh_addr(9), &service);
        serves(&mut two, 8080, protocol, app.address(), &service);
        mesh.service(&service, protocol, &[endpoint(&one, 8080, protocol), endpoint(&two, 8080, protocol)]);
        let (one, _two) = (mesh.proxy(one, |_| ()).await, mesh.proxy(two, |_| ()).await);
        let client = mesh.proxy(mesh.workload("client"), |o| o.http1_transport = transport).await;
        for n in 0..12 {
            let (method, path, waits, expected) = match n % 2 {
                0 => ("GET", "/hints", false, &[102, 103, 103, 200][..]),
                _ => ("POST", "/asks", true, &[100, 200][..]),
            };
            let (told, _) = ask(caller, client.proxy.addresses().outbound, method, path, waits).await;
            assert_eq!(told, expected, "{caller:?} {transport:?} {protocol} {method}");
        }
        assert!(one.requests(&["reason=\"APP_UNAVAILABLE\""]).await > 0, "it had its share");
    }
}

/// HTTP/2 has no 101 (RFC 9113 section 8.6).
#[tokio::test]
async fn nobody_switches_protocols_over_http2() {
    let app = Served::start(fresh_addr(0), |stream, _| async move {
        let Ok(mut connection) = server::handshake(stream).await else { return };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_informational(Response::builder().status(101).body(()).unwrap()).unwrap();
        }
    })
    .await;
    let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
    for caller in [Version::HTTP_11, Version::HTTP_2] {
        let (told, body) = ask(caller, pair.client.proxy.addresses().outbound, "GET", "/", false).await;
        assert_eq!(told, [502], "{body}");
        assert!(body.contains("UPSTREAM_PROTOCOL_ERROR"), "{body}");
    }
}
