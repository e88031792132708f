//! Servers that refuse, go away or break off: what provably never reached the application goes elsewhere whatever its method,
//! what may have reached it is not sent again by itself, and the caller is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use mesh_core::{
    addr::EndpointAddr,
    config::{Destination, Endpoint},
    name::ServicePort,
    protocol::Protocol,
    reason::Reason,
    route::ServiceRoutes,
    settings::{BackendSettings, Balance, CallSettings, Retry, RetryOn},
};
use mesh_testkit::{
    app::HttpApp,
    client::Connection,
    net::{PATIENCE, fresh_addr, until},
    serve::Served,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
};

use crate::{
    frames::{ACK, DATA, END_STREAM, Field, GOAWAY, HEADERS, RST_STREAM, Raw, SETTINGS, frame, headers},
    mesh::{Mesh, Side, endpoint, reason, route_to, serves},
};

/// Requests of one test; every other one is for the bad server first.
const REQUESTS: u64 = 12;
const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;

/// What stands between the client's proxy and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The server's own proxy.
    Sidecar,
    /// Nothing: it is not in the mesh.
    Unsecured,
    /// Nothing, although the bad one is called as if it were a proxy.
    Claimed,
}

/// A Service with two endpoints that are called in turn: a bad server, and a good one.
pub(crate) struct Two {
    pub(crate) mesh: Mesh,
    pub(crate) client: Side,
    /// The proxies beside the servers that have one, the bad one's first.
    pub(crate) sides: Vec<Side>,
    pub(crate) good: HttpApp,
    pub(crate) service: ServicePort,
    pub(crate) bad: Endpoint,
}

impl Two {
    pub(crate) async fn start(
        protocol: Protocol,
        bad: SocketAddr,
        way: Way,
        change: impl FnOnce(&mut ServiceRoutes),
    ) -> Self {
        let mesh = Mesh::start().await;
        let service = ServicePort::new("shop", "catalog", 8080);
        let good = HttpApp::start("good", fresh_addr(0)).await;
        let (mut sides, mut endpoints) = (Vec::new(), Vec::new());
        for (name, app) in [("bad", bad), ("good", good.address())] {
            let mut config = mesh.workload(name);
            serves(&mut config, 8080, protocol, app, &service);
            let mut endpoint = endpoint(&config, 8080, protocol);
            match (way, name) {
                (Way::Sidecar, _) | (Way::Claimed, "good") => sides.push(mesh.proxy(config, |_| ()).await),
                (Way::Unsecured, _) => (endpoint.address, endpoint.identity) = (EndpointAddr(app), None),
                (Way::Claimed, _) => endpoint.address = EndpointAddr(app),
            }
            endpoints.push(endpoint);
        }
        mesh.endpoints(&service, &endpoints);
        let mut routes = route_to(&service, protocol, &[(&service, 1)]);
        let settings = BackendSettings { balance: Balance::RoundRobin, ..BackendSettings::default() };
        routes.rules[0].backends[0].settings = Some(Arc::new(settings));
        change(&mut routes);
        mesh.controller.set_host("catalog", Destination::Service(routes));
        let client = mesh.proxy(mesh.workload("client"), |_| ()).await;
        let bad = endpoints.swap_remove(0);
        Self { mesh, client, sides, good, service, bad }
    }

    /// A connection of a caller that speaks what the servers do.
    pub(crate) async fn connect(&self) -> Connection {
        match self.bad.protocol {
            Protocol::Http1 => self.client.http1().await,
            _ => self.client.http2().await,
        }
    }

    /// A request; a POST has a body.
    pub(crate) fn request(&self, method: &Method) -> Request<Full<Bytes>> {
        let request = Request::builder().method(method);
        let request = match self.bad.protocol {
            Protocol::Http1 => request.uri("/?echo").header("host", "catalog"),
            _ => request.uri("http://catalog/?echo"),
        };
        let body = if *method == Method::POST { vec![b'x'; 20_000] } else { Vec::new() };
        request.body(Full::from(body)).unwrap()
    }

    async fn retries(&self) -> u64 {
        self.client.metric("mesh_retries_total", &["workload=\"shop/bad\""]).await
    }

    /// Sends requests that all succeed, each in the good server once.
    async fn all_succeed(&self, method: &Method, what: &str) {
        let mut connection = self.connect().await;
        for _ in 0..REQUESTS {
            let response = connection.send(self.request(method)).await.unwrap();
            assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None), "{what}");
            let length = if *method == Method::POST { 20_000 } else { 0 };
            assert_eq!(response.body().len(), length, "{what}");
        }
        assert_eq!(self.good.requests(), REQUESTS, "{what}: each came once");
    }

    /// Sends requests of which those that reach the bad server are not sent again.
    async fn failures_are_told(&self, method: &Method, seen: &AtomicU64, what: &str) {
        let (mut connection, mut failed) = (self.connect().await, 0);
        for _ in 0..REQUESTS {
            let response = connection.send(self.request(method)).await.unwrap();
            match response.status() {
                StatusCode::OK => {}
                status => {
                    let told = (status, reason(&response));
                    assert_eq!(told, (StatusCode::BAD_GATEWAY, Some(Reason::UpstreamReset)), "{what}");
                    failed += 1;
                }
            }
        }
        assert!(failed >= REQUESTS / 4, "{what}: the bad server had its share: {failed}");
        assert_eq!(seen.load(SeqCst), failed, "{what}: none was sent to it twice");
        assert_eq!(self.good.requests(), REQUESTS - failed, "{what}: and none elsewhere");
        assert_eq!(self.retries().await, 0, "{what}");
    }
}

/// How a server does not answer a request on HTTP/2.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// RST_STREAM with REFUSED_STREAM.
    Refuses,
    /// GOAWAY with the stream before the request's. The connection stays until the client ends it.
    GoesBefore,
    /// GOAWAY with the request's own stream, and then the connection ends.
    GoesWith,
    /// GOAWAY with the highest stream, as a server that drains begins, and then the connection breaks.
    Drains,
    /// The connection ends without a word.
    Closes,
    /// The connection breaks.
    Resets,
}

fn go_away(last: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat())
}

fn break_off(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A server that answers no request; it counts them.
async fn http2(manner: Manner, seen: &Arc<AtomicU64>) -> Served {
    let seen = Arc::clone(seen);
    Served::start(fresh_addr(0), move |stream, _| {
        let seen = Arc::clone(&seen);
        async move {
            let Some(mut raw) = Raw::accepted(stream, &[]).await else { return };
            while let Some(stream) = raw.request().await {
                seen.fetch_add(1, SeqCst);
                let answer = match manner {
                    Manner::Refuses => frame(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes()),
                    Manner::GoesBefore => go_away(stream.saturating_sub(2)),
                    Manner::GoesWith => go_away(stream),
                    Manner::Drains => go_away(i32::MAX as u32),
                    Manner::Closes | Manner::Resets => Vec::new(),
                };
                let _ = raw.stream.write_all(&answer).await;
                match manner {
                    Manner::Refuses | Manner::GoesBefore => {}
                    Manner::GoesWith | Manner::Closes => return,
                    Manner::Drains | Manner::Resets => return break_off(&raw.stream),
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_a_server_did_not_look_at_goes_elsewhere() {
    for way in [Way::Sidecar, Way::Unsecured] {
        for manner in [Manner::Refuses, Manner::GoesBefore] {
            for method in [Method::POST, Method::GET] {
                let seen = Arc::<AtomicU64>::default();
                let app = http2(manner, &seen).await;
                let two = Two::start(Protocol::Http2, app.address(), way, |_| ()).await;
                let what = format!("{way:?} {manner:?} {method}");
                two.all_succeed(&method, &what).await;
                let seen = seen.load(SeqCst);
                assert!(seen >= REQUESTS / 4, "{what}: it had its share: {seen}");
                assert_eq!(two.retries().await, seen, "{what}");
            }
        }
    }
}

/// A server that takes one request at a time and does not answer it. Told to, it breaks the connection.
async fn one_at_a_time(seen: &Arc<AtomicU64>, broken: &Arc<Notify>) -> Served {
    let (seen, broken) = (Arc::clone(seen), Arc::clone(broken));
    Served::start(fresh_addr(0), move |stream, _| {
        let (seen, broken) = (Arc::clone(&seen), Arc::clone(&broken));
        async move {
            // MAX_CONCURRENT_STREAMS.
            let Some(mut raw) = Raw::accepted(stream, &[0, 3, 0, 0, 0, 1]).await else { return };
            let (mut heads, mut heard) = (0, false);
            loop {
                tokio::select! {
                    next = raw.next() => match next {
                        Some((SETTINGS, 0, ..)) => {
                            let _ = raw.stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await;
                        }
                        Some((SETTINGS, ..)) => heard = true,
                        Some((HEADERS, ..)) => heads += 1,
                        Some(_) => {}
                        None => return,
                    },
                    () = broken.notified() => return break_off(&raw.stream),
                }
                // Only once its settings hold does a request count.
                if heard {
                    seen.fetch_add(std::mem::take(&mut heads), SeqCst);
                }
            }
        }
    })
    .await
}

/// What waits for its turn on a connection that breaks was not sent, whatever nobody says of it.
#[tokio::test]
async fn what_waits_for_a_stream_goes_elsewhere() {
    let (seen, broken) = (Arc::<AtomicU64>::default(), Arc::<Notify>::default());
    let app = one_at_a_time(&seen, &broken).await;
    let two = Two::start(Protocol::Http2, app.address(), Way::Unsecured, |_| ()).await;
    let held = loop {
        let (mut connection, request) = (two.connect().await, two.request(&Method::POST));
        let call = tokio::spawn(async move { connection.send(request).await.unwrap() });
        until("it is answered or held", || call.is_finished() || seen.load(SeqCst) == 1).await;
        if seen.load(SeqCst) == 1 {
            break call;
        }
    };
    let before = two.good.requests();
    // One after the other, on one connection: for the good one, the bad one, and so on. The last one is for the good one.
    let mut raw = Raw::connect(two.client.proxy.addresses().outbound).await;
    let post: [Field<'_>; 4] =
        [(b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"catalog"), (b":path", b"/?echo")];
    let streams = [1, 3, 5, 7, 9];
    let calls = streams.map(|n| [headers(n, false, &post), frame(DATA, END_STREAM, n, b"body")].concat());
    assert!(raw.send(&calls.concat(), PATIENCE).await);
    until("the good one has its own", || two.good.requests() == before + 3).await;
    broken.notify_one();
    until("it has the others too", || two.good.requests() == before + 5).await;
    let told = held.await.unwrap();
    let told = (told.status(), reason(&told));
    assert_eq!(told, (StatusCode::BAD_GATEWAY, Some(Reason::UpstreamReset)), "that one was sent");
    two.client.counted(&["workload=\"shop/good\"", "status=\"2xx\""], before + 5).await;
    assert_eq!((seen.load(SeqCst), two.retries().await), (1, 2));
}

fn again_when_reset(routes: &mut ServiceRoutes) {
    let retry = Retry { retries: 1, on: vec![RetryOn::Reset], ..Retry::default() };
    routes.calls = Arc::new(CallSettings { retry: Some(retry), ..CallSettings::default() });
}

const ENDINGS: [Manner; 4] = [Manner::GoesWith, Manner::Drains, Manner::Closes, Manner::Resets];

#[tokio::test]
async fn what_a_server_may_have_looked_at_is_not_sent_again() {
    for way in [Way::Sidecar, Way::Unsecured] {
        for manner in ENDINGS {
            for (method, configured) in [(Method::POST, false), (Method::GET, false), (Method::POST, true)] {
                let seen = Arc::<AtomicU64>::default();
                let app = http2(manner, &seen).await;
                let change = if configured { again_when_reset } else { |_: &mut ServiceRoutes| () };
                let two = Two::start(Protocol::Http2, app.address(), way, change).await;
                let what = format!("{way:?} {manner:?} {method} {configured}");
                two.failures_are_told(&method, &seen, &what).await;
            }
        }
    }
}

#[tokio::test]
async fn what_may_be_repeated_is_where_that_is_asked_for() {
    for way in [Way::Sidecar, Way::Unsecured] {
        for manner in ENDINGS {
            let seen = Arc::<AtomicU64>::default();
            let app = http2(manner, &seen).await;
            let two = Two::start(Protocol::Http2, app.address(), way, again_when_reset).await;
            let what = format!("{way:?} {manner:?}");
            two.all_succeed(&Method::GET, &what).await;
            assert_eq!(two.retries().await, seen.load(SeqCst), "{what}");
        }
    }
}

/// A server of HTTP/1 that breaks the connection after a request's head has come, on each connection after as many answers
/// as this. It counts what it broke.
async fn http1(answers: u32, broken: &Arc<AtomicU64>) -> Served {
    let broken = Arc::clone(broken);
    Served::start(fresh_addr(0), move |mut stream, _| {
        let broken = Arc::clone(&broken);
        async move {
            for left in (0..=answers).rev() {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                if left == 0 {
                    broken.fetch_add(1, SeqCst);
                    return break_off(&stream);
                }
                let mut body = vec![0; if head.starts_with(b"POST") { 20_000 } else { 0 }];
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                if stream.read_exact(&mut body).await.is_err() || stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_head_that_was_written_is_not_written_again() {
    for way in [Way::Sidecar, Way::Unsecured] {
        for (method, configured) in [(Method::POST, false), (Method::GET, false), (Method::POST, true)] {
            let broken = Arc::<AtomicU64>::default();
            let app = http1(0, &broken).await;
            let change = if configured { again_when_reset } else { |_: &mut ServiceRoutes| () };
            let two = Two::start(Protocol::Http1, app.address(), way, change).await;
            let what = format!("{way:?} {method} {configured}");
            two.failures_are_told(&method, &broken, &what).await;
        }
    }
}

/// A connection that was idle may break just when it is used again: a POST is not repeated for that.
#[tokio::test]
async fn nor_on_a_connection_that_served_before() {
    for way in [Way::Sidecar, Way::Unsecured] {
        let broken = Arc::<AtomicU64>::default();
        let app = http1(1, &broken).await;
        let two = Two::start(Protocol::Http1, app.address(), way, |_| ()).await;
        let (mut connection, mut failed) = (two.connect().await, 0);
        for _ in 0..REQUESTS {
            let response = connection.send(two.request(&Method::POST)).await.unwrap();
            failed += u64::from(response.status() == StatusCode::BAD_GATEWAY);
        }
        assert!(failed >= 2, "{way:?}: {failed}");
        assert_eq!((broken.load(SeqCst), two.retries().await), (failed, 0), "{way:?}");
        assert_eq!(two.good.requests(), REQUESTS / 2, "{way:?}: it had its own and no other");
    }
}
