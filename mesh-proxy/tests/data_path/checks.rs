//! Active health checks by connection and by gRPC: who fails them gets no calls, as long as that lasts, and not sooner than
//! the thresholds say.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use mesh_core::{
    protocol::Protocol,
    reason::Reason,
    route::ServiceRoutes,
    settings::{BackendSettings, Balance, HealthCheck, HealthKind, InboundLimits},
};
use mesh_testkit::{
    app::TcpApp,
    net::{PATIENCE, eventually, fresh_addr},
};
use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use crate::{
    grpc_app::{Answer, GrpcApp, call, message},
    mesh::{Several, reason},
};

/// The service that is asked for: its name is longer than a length of one byte can say.
const SERVICE: &str = "shop.catalog.v1.Catalog.with.a.name.that.is.long.enough.to.need.two.bytes.for.its.length.\
                       as.generated.names.of.packages.sometimes.are.Catalog";

const OUT: &str = "mesh_endpoints_left_out_total";

fn check(kind: HealthKind) -> HealthCheck {
    HealthCheck {
        kind,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        unhealthy: 2,
        healthy: 2,
    }
}

fn checked(health: HealthCheck) -> impl FnOnce(&mut ServiceRoutes) {
    let balance = Balance::RoundRobin;
    let settings = BackendSettings { balance, health: Some(health), ..BackendSettings::default() };
    move |routes| routes.rules[0].backends[0].settings = Some(Arc::new(settings))
}

async fn start(protocol: Protocol, apps: &[std::net::SocketAddr], health: HealthCheck) -> Several {
    Several::start(protocol, apps, checked(health), &InboundLimits::default()).await
}

/// Who greets on a new connection; empty: it is closed.
async fn greeted(several: &Several) -> String {
    let mut stream = TcpStream::connect((several.client.ip(), 17_000)).await.unwrap();
    let mut byte = [0; 1];
    match timeout(PATIENCE, stream.read(&mut byte)).await.unwrap() {
        Ok(1) => char::from(byte[0]).to_string(),
        _ => String::new(),
    }
}

/// Who greets on 6 connections, each once.
async fn who_greets(several: &Several) -> Vec<String> {
    let mut all = Vec::new();
    for _ in 0..6 {
        all.push(greeted(several).await);
    }
    all.sort();
    all.dedup();
    all
}

#[tokio::test]
async fn a_port_that_takes_no_connections_gets_none() {
    let (a, b) = (
        TcpApp::speaking_first(fresh_addr(0), b"a").await,
        TcpApp::speaking_first(fresh_addr(0), b"b").await,
    );
    let at = b.address();
    let several = start(Protocol::Opaque, &[a.address(), at], check(HealthKind::Tcp)).await;
    assert_eq!(who_greets(&several).await, ["a", "b"], "good until proved otherwise");
    b.stop().await;
    let uses = |wanted: &'static [&'static str]| {
        let several = &several;
        move || async move { (who_greets(several).await == wanted).then_some(()) }
    };
    eventually(Duration::from_secs(30), "b gets no connections", uses(&["a"])).await;
    for _ in 0..4 {
        assert_eq!(who_greets(&several).await, ["a"]);
    }
    let _b = TcpApp::speaking_first(at, b"b").await;
    eventually(Duration::from_secs(30), "b gets connections again", uses(&["a", "b"])).await;
    assert_eq!(several.client.metric(OUT, &["cause=\"checks\""]).await, 1);
}

/// An application says nothing to one who only connects: that must not be waited for. HTTP's ports can be asked like this
/// too.
#[tokio::test]
async fn a_connection_that_stands_is_good_however_short_the_time_is() {
    for protocol in [Protocol::Opaque, Protocol::Grpc] {
        let app = TcpApp::start(fresh_addr(0)).await;
        let health =
            HealthCheck { timeout: Duration::from_millis(150), unhealthy: 5, ..check(HealthKind::Tcp) };
        let several = start(protocol, &[app.address()], health).await;
        // The first call makes the endpoint known; this application cannot answer one of gRPC.
        let mut connection = several.client.http2().await;
        match protocol {
            Protocol::Opaque => drop(TcpStream::connect((several.client.ip(), 17_000)).await.unwrap()),
            _ => drop(timeout(PATIENCE, connection.send(call("Any", message(b"x")))).await.unwrap()),
        }
        let asked = || async { (app.connections() >= 20).then_some(()) };
        eventually(Duration::from_secs(30), "it is asked often", asked).await;
        assert_eq!(several.client.metric(OUT, &[]).await, 0, "{protocol}");
    }
}

/// What a server says of its health, by number; calls are answered with its name.
async fn server(name: &'static str, health: Arc<AtomicU8>) -> GrpcApp {
    GrpcApp::start(move |path| match (path, health.load(SeqCst)) {
        ("/grpc.health.v1.Health/Check", 0) => Answer::Read(of_service),
        ("/grpc.health.v1.Health/Check", 1) => Answer::Message(b"\x08\x02".as_slice().into(), "0"),
        ("/grpc.health.v1.Health/Check", 2) => Answer::Message("".into(), "0"),
        ("/grpc.health.v1.Health/Check", 3) => Answer::Only("5"),
        ("/grpc.health.v1.Health/Check", 4) => Answer::Late("12"),
        ("/grpc.health.v1.Health/Check", _) => Answer::Hangs,
        _ => Answer::Message(name.into(), "0"),
    })
    .await
}

/// SERVING, if it is asked for the right service.
fn of_service(question: &[u8]) -> Answer {
    let length = u8::try_from(SERVICE.len() - 128).unwrap() | 0x80;
    match question == message(&[&[0x0a, length, 1], SERVICE.as_bytes()].concat()) {
        true => Answer::Message(b"\x08\x01".as_slice().into(), "0"),
        false => Answer::Only("5"),
    }
}

/// Who answers 8 calls.
async fn who_answers(several: &Several) -> Vec<String> {
    let mut connection = several.client.http2().await;
    let mut all = Vec::new();
    for _ in 0..8 {
        let response = connection.send(call("Any", message(b"x"))).await.unwrap();
        assert_eq!((&response.headers()["grpc-status"], reason(&response)), (&"0".parse().unwrap(), None));
        all.push(String::from_utf8_lossy(&response.body()[5..]).into_owned());
    }
    all.sort();
    all.dedup();
    all
}

#[tokio::test]
async fn a_server_that_does_not_say_that_it_serves_gets_no_calls() {
    let health = [Arc::<AtomicU8>::default(), Arc::<AtomicU8>::default()];
    let (a, b) = (server("a", Arc::clone(&health[0])).await, server("b", Arc::clone(&health[1])).await);
    let asks = HealthCheck { timeout: Duration::from_millis(500), ..check(HealthKind::Grpc(SERVICE.into())) };
    let several = start(Protocol::Grpc, &[a.address(), b.address()], asks).await;
    let uses = |wanted: &'static [&'static str]| {
        let several = &several;
        move || async move { (who_answers(several).await == wanted).then_some(()) }
    };
    for bad in 1..=5 {
        eventually(Duration::from_secs(30), "both get calls", uses(&["a", "b"])).await;
        health[1].store(bad, SeqCst);
        eventually(Duration::from_secs(30), "b gets no calls", uses(&["a"])).await;
        for _ in 0..3 {
            assert_eq!(who_answers(&several).await, ["a"], "health {bad}");
        }
        health[1].store(0, SeqCst);
    }
    eventually(Duration::from_secs(30), "both get calls", uses(&["a", "b"])).await;
    // Checks that got no answer have left nothing behind.
    let few = || async { (b.open() <= 4).then_some(()) };
    eventually(PATIENCE, "few connections to b are open", few).await;
    // Under a load of others one more answer may have been late.
    assert!(several.client.metric(OUT, &["cause=\"checks\""]).await >= 5);
    health.iter().for_each(|health| health.store(1, SeqCst));
    let none = || async {
        let response = several.client.http2().await.send(call("Any", message(b"x"))).await.unwrap();
        (reason(&response) == Some(Reason::NoHealthyEndpoint)).then_some(())
    };
    eventually(Duration::from_secs(30), "nobody is left", none).await;
}

/// An endpoint whose checks end so, again and again, one after the other: true is good. How often it is left out.
async fn left_out(pattern: &'static [bool], unhealthy: u32, healthy: u32) -> u64 {
    let asked = Arc::<AtomicU64>::default();
    let count = Arc::clone(&asked);
    let app = GrpcApp::start(move |path| match path {
        "/grpc.health.v1.Health/Check" => {
            let at = count.fetch_add(1, SeqCst) as usize;
            let good = pattern[at % pattern.len()];
            Answer::Message([8, if good { 1 } else { 2 }].as_slice().to_vec().into(), "0")
        }
        _ => Answer::Echo,
    })
    .await;
    // No answer is ever late.
    let timeout = Duration::from_secs(60);
    let health = HealthCheck { unhealthy, healthy, timeout, ..check(HealthKind::Grpc("".into())) };
    let several = start(Protocol::Grpc, &[app.address()], health).await;
    let _known = several.client.http2().await.send(call("Any", message(b"x"))).await;
    // Counted when the next one is asked: four rounds.
    let rounds = || async { (asked.load(SeqCst) > 4 * pattern.len() as u64).then_some(()) };
    eventually(Duration::from_secs(60), "four rounds of checks", rounds).await;
    several.client.metric(OUT, &["cause=\"checks\""]).await
}

#[tokio::test]
async fn thresholds_are_kept() {
    const GOOD: bool = true;
    assert_eq!(left_out(&[GOOD, !GOOD, !GOOD], 3, 1).await, 0, "two failures in a row");
    let three = left_out(&[GOOD, !GOOD, !GOOD, !GOOD], 3, 1).await;
    assert!(three >= 4, "three failures in a row, four times: {three}");
    assert_eq!(left_out(&[!GOOD, GOOD], 1, 2).await, 1, "it never comes back");
    let two = left_out(&[!GOOD, GOOD, GOOD], 1, 2).await;
    assert!(two >= 4, "it comes back each time: {two}");
}
