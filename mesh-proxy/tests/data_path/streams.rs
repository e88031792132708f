//! gRPC through both proxies: the four kinds of calls, their ends, and what travels with them.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, channel::Channel, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2::SendRequest,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::{config::Destination, policy::DefaultAction, protocol::Protocol};
use mesh_testkit::{
    app::HttpApp,
    net::{PATIENCE, fresh_addr, until},
    serve::Served,
};
use tokio::{net::TcpStream, time::timeout};

use crate::mesh::{Pair, Side};

type Body = BoxBody<Bytes, hyper::Error>;

/// What the application saw: heads, and calls that ended before they were answered.
#[derive(Default)]
struct Seen {
    heads: Mutex<Vec<HeaderMap>>,
    cancelled: Mutex<u32>,
}

fn trailers(status: &'static str) -> HeaderMap {
    let fields = [("grpc-status", status), ("x-cost-bin", "AAEC")];
    HeaderMap::from_iter(fields.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))))
}

fn message(text: &str) -> Bytes {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text.as_bytes()].concat().into()
}

/// Notes a call that is dropped.
struct Unfinished(Arc<Seen>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        *self.0.cancelled.lock().unwrap() += 1;
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Seen>) -> Result<Response<Body>, hyper::Error> {
    let (head, body) = request.into_parts();
    seen.heads.lock().unwrap().push(head.headers);
    let ended = || std::future::ready(Some(Ok(trailers("0"))));
    let body: Body = match head.uri.path() {
        "/t.T/Unary" | "/t.T/Client" => {
            let all = body.collect().await?.to_bytes();
            let reply = message(&format!("{} bytes", all.len()));
            Full::new(reply).map_err(|never| match never {}).with_trailers(ended()).boxed()
        }
        "/t.T/Server" => {
            body.collect().await?;
            let frames = (0..100).map(|n| Ok::<_, hyper::Error>(Frame::data(message(&n.to_string()))));
            StreamBody::new(futures_util::stream::iter(frames)).with_trailers(ended()).boxed()
        }
        "/t.T/Bidi" => body.with_trailers(ended()).boxed(),
        "/t.T/Hangs" => {
            let _unfinished = Unfinished(seen);
            std::future::pending().await
        }
        _ => {
            let mut response =
                Response::new(Full::default().map_err(|never: Infallible| match never {}).boxed());
            *response.headers_mut() = trailers("5");
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            return Ok(response);
        }
    };
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

async fn app(seen: &Arc<Seen>) -> Served {
    let seen = Arc::clone(seen);
    Served::start(fresh_addr(0), move |stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            let service = service_fn(move |request| answer(request, Arc::clone(&seen)));
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

async fn client(side: &Side) -> SendRequest<Channel<Bytes>> {
    let stream = TcpStream::connect(side.proxy.addresses().outbound).await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn call(method: &str, body: Channel<Bytes>) -> Request<Channel<Bytes>> {
    Request::post(format!("http://catalog/t.T/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S")
        .header("mesh-client-id", "spiffe://cluster.local/ns/shop/sa/admin")
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn all_kinds_of_calls_work() {
    let seen = Arc::<Seen>::default();
    let app = app(&seen).await;
    let pair = Pair::start(Protocol::Grpc, app.address(), |_| ()).await;
    let mut sender = client(&pair.client).await;
    let hundred: String =
        (0..100).map(|n| String::from_utf8_lossy(&message(&n.to_string())).into_owned()).collect();
    for (method, messages, reply) in [
        ("Unary", 1, String::from_utf8_lossy(&message("8 bytes")).into_owned()),
        ("Client", 500, String::from_utf8_lossy(&message("4000 bytes")).into_owned()),
        ("Server", 1, hundred),
        ("Bidi", 3, String::from_utf8_lossy(&message("abc").repeat(3)).into_owned()),
    ] {
        let (mut pieces, body) = Channel::<Bytes>::new(4);
        let sending = tokio::spawn(async move {
            for _ in 0..messages {
                pieces.send_data(message("abc")).await.unwrap();
            }
        });
        let response = timeout(PATIENCE, sender.send_request(call(method, body))).await.unwrap().unwrap();
        let got = response.into_body().collect().await.unwrap();
        assert_eq!(got.trailers(), Some(&trailers("0")), "{method}");
        assert_eq!(String::from_utf8_lossy(&got.to_bytes()), reply, "{method}");
        sending.await.unwrap();
    }
    let heads = std::mem::take(&mut *seen.heads.lock().unwrap());
    for head in heads {
        // The caller gave 5 s; what is left of them is sent on.
        let left = head["grpc-timeout"].to_str().unwrap().strip_suffix('u').unwrap().parse::<u64>().unwrap();
        assert!((1..=5_000_000).contains(&left), "{left} µs");
        assert_eq!(head["te"], "trailers");
        assert_eq!(head["mesh-client-id"], "spiffe://cluster.local/ns/shop/sa/client");
    }
    pair.server.counted(&["protocol=\"grpc\"", "reason=\"\""], 4).await;
}

/// Each message comes back before the next one is sent: nothing waits for more.
#[tokio::test]
async fn messages_go_both_ways_in_turn() {
    let app = app(&Arc::default()).await;
    let pair = Pair::start(Protocol::Grpc, app.address(), |_| ()).await;
    let mut sender = client(&pair.client).await;
    let (mut pieces, body) = Channel::<Bytes>::new(1);
    pieces.send_data(message("0")).await.unwrap();
    let response = timeout(PATIENCE, sender.send_request(call("Bidi", body))).await.unwrap().unwrap();
    let mut echo = response.into_body();
    for n in 0..20 {
        let frame = timeout(PATIENCE, echo.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message(&n.to_string()));
        pieces.send_data(message(&(n + 1).to_string())).await.unwrap();
    }
    drop(pieces);
    assert_eq!(echo.collect().await.unwrap().trailers(), Some(&trailers("0")));
}

/// A status in the headers stays there, and a call that is given up ends in the application too.
#[tokio::test]
async fn ends_are_passed_on() {
    let seen = Arc::<Seen>::default();
    let app = app(&seen).await;
    let pair = Pair::start(Protocol::Grpc, app.address(), |_| ()).await;
    let mut sender = client(&pair.client).await;
    let response = sender.send_request(call("Missing", Channel::new(1).1)).await.unwrap();
    assert_eq!(
        (&response.headers()["grpc-status"], &response.headers()["x-cost-bin"]),
        (&"5".parse().unwrap(), &"AAEC".parse().unwrap())
    );
    let (_pieces, body) = Channel::new(1);
    let hanging = sender.send_request(call("Hangs", body));
    assert!(timeout(Duration::from_millis(300), hanging).await.is_err(), "dropped, the call is cancelled");
    until("the application sees the end", || *seen.cancelled.lock().unwrap() == 1).await;
    pair.client.counted(&["reason=\"CLIENT_DISCONNECTED\""], 1).await;
}

/// What the proxies themselves say is gRPC, whatever it is.
#[tokio::test]
async fn proxies_speak_grpc() {
    let app = HttpApp::start("catalog", fresh_addr(0)).await;
    let pair = Pair::start(Protocol::Grpc, app.address(), |_| ()).await;
    let unknown = Destination::Unknown("no Service \"nosuch\"".to_owned());
    pair.mesh.controller.set_host("nosuch", unknown);
    let mut sender = client(&pair.client).await;
    let mut check = async |host: &str, status: &str, reason: &str| {
        let mut request = call("Unary", Channel::new(1).1);
        *request.uri_mut() = format!("http://{host}/t.T/Unary").parse().unwrap();
        let response = timeout(PATIENCE, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"application/grpc".parse().unwrap())
        );
        let message = response.headers()["grpc-message"].to_str().unwrap();
        assert!(message.starts_with(&format!("{reason}: ")), "{message}");
        assert_eq!(
            (&response.headers()["mesh-reason"], &response.headers()["grpc-status"]),
            (&reason.parse().unwrap(), &status.parse().unwrap())
        );
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty(), "trailers only");
    };
    check("nosuch", "12", "UNKNOWN_DESTINATION").await;
    check("unanswered", "14", "DISCOVERY_UNAVAILABLE").await;
    check("cat,alog", "3", "BAD_REQUEST").await;
    app.stop().await;
    check("catalog", "14", "APP_UNAVAILABLE").await;
    let mut config = pair.server.config.clone();
    config.policy.default_action = DefaultAction::Deny;
    let answers = pair.mesh.controller.answers().len();
    pair.mesh.publish(&config);
    until("the server has the new policy", || pair.mesh.controller.answers().len() > answers).await;
    check("catalog", "7", "AUTHZ_DENIED").await;
}
