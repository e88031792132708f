//! Where messages end, and what of their heads and trailers passes on, when both sides are not alike.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::{
    config::Destination,
    matching::{RequestMatch, ValueMatch},
    name::ObjectRef,
    policy::{Action, DefaultAction, Rule, Scope, Source},
    protocol::Protocol,
    reason::Reason,
};
use mesh_proxy::config::Http1Transport;
use mesh_testkit::{
    app::HttpApp,
    client::Connection,
    net::{PATIENCE, fresh_addr},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::mesh::{Pair, Side, reason, route_to};

/// Sends bytes to a proxy's outbound listener and reads until the answer holds `until`.
async fn exchange(side: &Side, bytes: &str, until: &str) -> String {
    let mut stream = TcpStream::connect(side.proxy.addresses().outbound).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    read_until(&mut stream, until).await
}

async fn read_until(stream: &mut TcpStream, until: &str) -> String {
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains(until) {
        let count = timeout(PATIENCE, stream.read_buf(&mut got)).await.unwrap().unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&got));
    }
    String::from_utf8(got).unwrap()
}

/// An application that gives this answer to whatever comes.
async fn answers(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(fresh_addr(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

/// A GET may have a body, with or without a length, and it arrives.
#[tokio::test]
async fn a_body_arrives_whatever_the_method() {
    for transport in [Http1Transport::H1, Http1Transport::H1OverH2] {
        let app = HttpApp::start("catalog", fresh_addr(0)).await;
        let pair = Pair::start(Protocol::Http1, app.address(), |o| o.http1_transport = transport).await;
        let get = "GET / HTTP/1.1\r\nHost: catalog\r\n";
        for framed in
            ["Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "Content-Length: 5\r\n\r\nhello"]
        {
            let got = exchange(&pair.client, &format!("{get}{framed}"), "\"body_bytes\":").await;
            assert!(got.contains("\"body_bytes\":5"), "{framed}: {got}");
        }
        let frames = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("hello")))]);
        let stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://catalog/").body(StreamBody::new(frames)).unwrap();
        let body =
            sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains("\"body_bytes\":5"), "{body:?}");
    }
}

/// A length that contradicts the chunks cuts nothing.
#[tokio::test]
async fn chunks_win_over_a_length() {
    let app = answers(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
    )
    .await;
    let pair = Pair::start(Protocol::Http1, app, |_| ()).await;
    let response = pair.client.http1().await.get("/", "catalog").await.unwrap();
    assert_eq!(response.body().as_ref(), b"hello world");
    assert!(!response.headers().contains_key("content-length"), "{response:?}");
}

/// An upgrade to HTTP/2, in whatever writing, is not passed on, and neither are its settings.
#[tokio::test]
async fn an_upgrade_to_http2_is_not_passed_on() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    for upgrade in ["h2c", "websocket, H2C", "websocket\r\nUpgrade: h2c"] {
        let head = format!(
            "GET / HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        );
        let got = exchange(&pair.client, &head, "\"body_bytes\":").await;
        assert!(got.starts_with("HTTP/1.1 200"), "{upgrade}: {got}");
    }
    for seen in app.seen() {
        for name in ["upgrade", "connection", "http2-settings"] {
            assert!(!seen.headers.contains_key(name), "{seen:?}");
        }
    }
}

/// HTTP/2 has no upgrades: who asks for one is answered without.
#[tokio::test]
async fn a_request_for_an_upgrade_is_answered_by_an_application_of_http2() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http2, app.address(), |_| ()).await;
    for upgrade in ["TLS/1.2", "websocket"] {
        let head =
            format!("GET / HTTP/1.1\r\nHost: catalog\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        let got = exchange(&pair.client, &head, "\r\n\r\n").await;
        assert!(got.starts_with("HTTP/1.1 200"), "{upgrade}: {got}");
    }
    assert_eq!(app.requests(), 2);
    assert!(!app.seen().iter().any(|seen| seen.headers.contains_key("upgrade")));
}

/// Nor can an answer over HTTP/2 offer one.
#[tokio::test]
async fn an_offer_of_an_upgrade_is_answered_over_http2() {
    let app = answers(
        "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\nContent-Length: 4\r\n\r\nmore",
    )
    .await;
    let pair = Pair::start(Protocol::Http1, app, |_| ()).await;
    let response = pair.client.http2().await.get("/", "catalog").await.unwrap();
    assert_eq!((response.status(), response.body().as_ref()), (StatusCode::UPGRADE_REQUIRED, &b"more"[..]));
    assert!(!response.headers().contains_key("upgrade"), "{response:?}");
}

/// Rules see the fields that the application will see, not those that `connection` takes out.
#[tokio::test]
async fn rules_see_what_is_forwarded() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::with(
        Protocol::Http1,
        app.address(),
        |_| (),
        |_, server| {
            server.policy.default_action = DefaultAction::Deny;
            let tenant = ("x-tenant".parse().unwrap(), ValueMatch::Exact("a".to_owned()));
            server.policy.rules.push(Rule {
                object: ObjectRef::new("TrafficTarget", "shop", "tenants"),
                action: Action::Allow,
                sources: vec![Source::Any],
                ports: Vec::new(),
                scope: Scope::Http(vec![RequestMatch { headers: vec![tenant], ..RequestMatch::default() }]),
            });
        },
    )
    .await;
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: catalog\r\nx-tenant: a\r\n{fields}\r\n");
    let send = async |text: String| {
        let mut stream = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await
    };
    assert!(send(get("")).await.starts_with("HTTP/1.1 200"));
    let hidden = send(get("Connection: x-tenant\r\n")).await;
    assert!(hidden.starts_with("HTTP/1.1 403"), "{hidden}");
    assert_eq!(app.requests(), 1);
}

/// Routes too.
#[tokio::test]
async fn routes_see_what_is_forwarded() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let mut routes = route_to(&pair.service, Protocol::Http1, &[(&pair.service, 1)]);
    let tenant = ("x-tenant".parse().unwrap(), ValueMatch::Exact("a".to_owned()));
    routes.rules[0].matches = vec![RequestMatch { headers: vec![tenant], ..RequestMatch::default() }];
    pair.mesh.controller.set_host("tenants", Destination::Service(routes));
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: tenants\r\nx-tenant: a\r\n{fields}\r\n");
    let seen = exchange(&pair.client, &get(""), "\r\n\r\n").await;
    assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
    let hidden = exchange(&pair.client, &get("Connection: x-tenant\r\n"), "\r\n\r\n").await;
    assert!(hidden.contains("mesh-reason: ROUTE_NOT_MATCHED"), "{hidden}");
}

/// Before HTTP/1.1 there was no Host; two are refused in every version.
#[tokio::test]
async fn http_1_0_may_leave_the_host_out() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Http1, app.address(), |_| ()).await;
    let send = async |text: &str| {
        let mut stream = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await
    };
    let without = send("GET / HTTP/1.0\r\n\r\n").await;
    assert!(without.contains(" 200 "), "{without}");
    assert_eq!(app.seen()[0].headers["host"], app.address().to_string());
    for bad in ["Host: a\r\nHost: b\r\n", "Host: \r\n"] {
        let got = send(&format!("GET / HTTP/1.0\r\n{bad}\r\n")).await;
        assert!(got.contains(" 400 "), "{bad}: {got}");
    }
    assert!(send("GET / HTTP/1.1\r\n\r\n").await.contains(" 400 "));
    assert_eq!(app.requests(), 1);
}

type Trailers = Arc<Mutex<Vec<HeaderMap>>>;

/// An application that speaks HTTP/2 and ends every body in a frame of its own; `/trailers` ends it with trailers.
async fn ends_late(seen: Trailers) -> SocketAddr {
    let listener = TcpListener::bind(fresh_addr(0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            let service = service_fn(move |request| late(request, Arc::clone(&seen)));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

type Frames = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn late(request: Request<Incoming>, seen: Trailers) -> Result<Response<Frames>, hyper::Error> {
    let (head, body) = request.into_parts();
    let trailers = body.collect().await?.trailers().cloned();
    seen.lock().unwrap().extend(trailers);
    let (status, length, frames) = match head.uri.path() {
        "/nothing" => (StatusCode::NO_CONTENT, None, Vec::new()),
        "/same" => (StatusCode::NOT_MODIFIED, None, Vec::new()),
        _ if head.method == "HEAD" => (StatusCode::OK, Some(5), Vec::new()),
        "/trailers" => {
            let fields = [("mesh-reason", "AUTHZ_DENIED"), ("x-kept", "1")];
            let map = fields.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            let trailers = Frame::trailers(HeaderMap::from_iter(map));
            (StatusCode::OK, None, vec![Ok(Frame::data(Bytes::from("hello"))), Ok(trailers)])
        }
        _ => (StatusCode::OK, Some(5), vec![Ok(Frame::data(Bytes::from("hello")))]),
    };
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    *response.status_mut() = status;
    if let Some(length) = length {
        response.headers_mut().insert("content-length", HeaderValue::from(length));
    }
    Ok(response)
}

/// An HTTP/1 caller has its whole response before the last, empty frame of an HTTP/2 stream comes.
#[tokio::test]
async fn complete_responses_do_not_count_as_failed() {
    let app = ends_late(Trailers::default()).await;
    let pair = Pair::start(Protocol::Http2, app, |_| ()).await;
    let mut connection: Connection = pair.client.http1().await;
    for (method, path, body) in
        [("GET", "/", "hello"), ("HEAD", "/", ""), ("GET", "/nothing", ""), ("GET", "/same", "")]
    {
        let request = Request::builder().method(method).uri(path).header("host", "catalog");
        let response = connection.send(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!((reason(&response), response.body().as_ref()), (None, body.as_bytes()), "{method} {path}");
    }
    drop(connection);
    pair.client.counted(&[], 4).await;
    pair.server.counted(&[], 4).await;
    let left = format!("reason=\"{}\"", Reason::ClientDisconnected.code());
    for side in [&pair.client, &pair.server] {
        assert_eq!(side.requests(&[&left]).await, 0, "{}", side.config.workload);
    }
}

#[tokio::test]
async fn nobody_speaks_for_the_mesh_in_trailers() {
    let seen = Trailers::default();
    let app = ends_late(Arc::clone(&seen)).await;
    let pair = Pair::start(Protocol::Http2, app, |_| ()).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("mesh-client-id", HeaderValue::from_static("spiffe://cluster.local/ns/shop/sa/admin"));
    trailers.insert("x-kept", HeaderValue::from_static("1"));
    let body = Full::new(Bytes::from("hello")).with_trailers(std::future::ready(Some(Ok(trailers))));
    let stream = TcpStream::connect(pair.client.proxy.addresses().outbound).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://catalog/trailers").body(body).unwrap();
    let response = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    let kept = HeaderMap::from_iter([("x-kept".parse().unwrap(), HeaderValue::from_static("1"))]);
    assert_eq!(response.trailers(), Some(&kept));
    assert_eq!(*seen.lock().unwrap(), [kept]);
}
