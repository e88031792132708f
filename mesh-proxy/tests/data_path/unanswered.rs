//! Servers that are there and do not answer: a connection is given up in the time that is configured, the request goes
//! elsewhere, and no more than allowed wait for one.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, StatusCode};
use mesh_core::{
    protocol::Protocol,
    reason::Reason,
    route::ServiceRoutes,
    settings::{BackendSettings, Breaker, CallSettings, Timeouts},
};
use mesh_testkit::{
    net::{PATIENCE, eventually, fresh_addr, until},
    serve::Served,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    mesh::reason,
    servers::{Two, Way},
};

/// How long a connection may take here; the proxy's own limit is 5 s.
const CONNECT: Duration = Duration::from_millis(300);

/// A listener that accepts nothing, and has no room for another connection: who connects gets no answer.
struct Full {
    address: SocketAddr,
    _waiting: Vec<TcpStream>,
    _listener: TcpListener,
}

impl Full {
    async fn start() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(fresh_addr(0)).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(CONNECT, TcpStream::connect(address)).await {
            waiting.push(connected.unwrap());
            assert!(waiting.len() < 10, "there is always room");
        }
        Self { address, _waiting: waiting, _listener: listener }
    }
}

/// A server that accepts, and is silent from then on.
async fn silent() -> Served {
    Served::start(fresh_addr(0), |stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await
}

fn impatient(routes: &mut ServiceRoutes) {
    let timeouts = Timeouts { connect: Some(CONNECT), ..Timeouts::default() };
    routes.calls = Arc::new(CallSettings { timeouts, ..CallSettings::default() });
}

#[tokio::test]
async fn a_connection_is_given_up_in_time() {
    let (full, silent) = (Full::start().await, silent().await);
    for (way, address) in [
        (Way::Unsecured, full.address),
        (Way::Claimed, full.address),
        // It takes the connection and not the TLS handshake.
        (Way::Claimed, silent.address()),
    ] {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let two = Two::start(protocol, address, way, impatient).await;
            let (mut connection, mut slow) = (two.connect().await, 0);
            for _ in 0..4 {
                let begin = Instant::now();
                let response = connection.send(two.request(&Method::POST)).await.unwrap();
                assert_eq!((response.status(), reason(&response)), (StatusCode::OK, None), "{way:?}");
                assert_eq!(response.body().len(), 20_000, "{way:?}");
                let elapsed = begin.elapsed();
                assert!(elapsed < Duration::from_secs(4), "{way:?} {protocol:?}: {elapsed:?}");
                slow += u64::from(elapsed >= CONNECT);
            }
            let retries = two.client.metric("mesh_retries_total", &["workload=\"shop/bad\""]).await;
            assert!(retries >= 2 && retries <= slow, "{way:?} {protocol:?}: {retries} of {slow}");
            assert_eq!(two.good.requests(), 4, "{way:?}: each came once");
            // Where there is nobody else, the caller is told.
            two.mesh.endpoints(&two.service, std::slice::from_ref(&two.bad));
            let told = || async {
                let begin = Instant::now();
                let response = two.connect().await.send(two.request(&Method::GET)).await.unwrap();
                (response.status() == StatusCode::GATEWAY_TIMEOUT).then_some((response, begin.elapsed()))
            };
            let (response, elapsed) = eventually(PATIENCE, "it is alone", told).await;
            assert_eq!(reason(&response), Some(Reason::UpstreamConnectTimeout), "{way:?}");
            assert!((CONNECT..Duration::from_secs(4)).contains(&elapsed), "{way:?}: {elapsed:?}");
        }
    }
}

fn one_pending(routes: &mut ServiceRoutes) {
    let breaker = Breaker { pending: Some(1), ..Breaker::default() };
    let settings = BackendSettings { breaker, ..BackendSettings::default() };
    routes.rules[0].backends[0].settings = Some(Arc::new(settings));
    let timeouts = Timeouts { connect: Some(PATIENCE * 3), ..Timeouts::default() };
    routes.calls = Arc::new(CallSettings { timeouts, ..CallSettings::default() });
}

#[tokio::test]
async fn no_more_than_allowed_wait_for_a_connection() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let silent = silent().await;
        let two = Two::start(protocol, silent.address(), Way::Claimed, one_pending).await;
        two.mesh.endpoints(&two.service, std::slice::from_ref(&two.bad));
        // Asked for the first time, the Service has one endpoint already.
        let (mut connection, request) = (two.connect().await, two.request(&Method::POST));
        let first = tokio::spawn(async move { connection.send(request).await.unwrap() });
        until("somebody waits", || silent.accepted() == 1).await;
        for count in 1..=3 {
            let response = two.connect().await.send(two.request(&Method::POST)).await.unwrap();
            let told = (response.status(), reason(&response));
            assert_eq!(told, (StatusCode::SERVICE_UNAVAILABLE, Some(Reason::CircuitOpen)), "{protocol:?}");
            two.client.counted(&["reason=\"CIRCUIT_OPEN\""], count).await;
        }
        assert!(!first.is_finished(), "nobody waited for it");
        assert_eq!((silent.accepted(), two.good.requests()), (1, 0), "nobody else was called");
        // Who waited does no longer, and another one may.
        silent.stop().await;
        let response = first.await.unwrap();
        assert_eq!(reason(&response), Some(Reason::TlsHandshakeFailed), "{protocol:?}");
        let response = two.connect().await.send(two.request(&Method::POST)).await.unwrap();
        assert_eq!(reason(&response), Some(Reason::UpstreamConnectFailed), "{protocol:?}");
    }
}
