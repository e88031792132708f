//! The adaptive limit of requests at a time, under load: an application that can do four things at once is asked for more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use mesh_core::{
    name::ObjectRef,
    protocol::Protocol,
    reason::Reason,
    settings::{AdaptiveConcurrency, InboundLimits},
};
use mesh_testkit::{
    net::{PATIENCE, eventually, fresh_addr, until},
    serve::Served,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};

use crate::{
    grpc_app::{Answer, GrpcApp, call, message},
    mesh::{Several, Side, reason},
};

/// What the application can do at once, and how long one thing takes it.
const HANDS: usize = 4;
const WORK: Duration = Duration::from_millis(50);
/// Callers that do not wait for each other.
const CALLERS: usize = 32;

/// An application of HTTP/1 that lets requests wait for a free hand.
struct Busy {
    served: Served,
    hands: Arc<Semaphore>,
    /// Requests within it, and most of them since somebody looked.
    within: Arc<[AtomicU64; 2]>,
}

impl Busy {
    async fn start() -> Self {
        let hands = Arc::new(Semaphore::new(HANDS));
        let within = Arc::<[AtomicU64; 2]>::default();
        let state = (Arc::clone(&hands), Arc::clone(&within));
        let served = Served::start(fresh_addr(0), move |mut stream, _| {
            let (hands, within) = state.clone();
            async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    head.clear();
                    within[1].fetch_max(within[0].fetch_add(1, SeqCst) + 1, SeqCst);
                    let hand = hands.acquire().await;
                    sleep(WORK).await;
                    drop(hand);
                    within[0].fetch_sub(1, SeqCst);
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { served, hands, within }
    }

    /// Most requests within it at a time, since the last time.
    fn most_within(&self) -> u64 {
        self.within[1].swap(0, SeqCst)
    }
}

/// What callers got.
#[derive(Default)]
struct Got {
    /// Of those that were answered, sorted.
    latencies: Vec<Duration>,
    refused: usize,
}

impl Got {
    fn median(&self) -> Duration {
        self.latencies[self.latencies.len() / 2]
    }
}

/// So many callers, each with one request after the other.
async fn load(side: &Side, callers: usize, time: Duration) -> Got {
    let until = Instant::now() + time;
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let mut connection = side.http1().await;
        tasks.spawn(async move {
            let mut got = Got::default();
            while Instant::now() < until {
                let began = Instant::now();
                let response = connection.get("/", "catalog").await.unwrap();
                if response.status() == StatusCode::OK {
                    got.latencies.push(began.elapsed());
                    continue;
                }
                let outcome = (response.status(), reason(&response));
                assert_eq!(outcome, (StatusCode::SERVICE_UNAVAILABLE, Some(Reason::Overloaded)));
                got.refused += 1;
                sleep(WORK / 2).await;
            }
            got
        });
    }
    let mut all = Got::default();
    while let Some(got) = tasks.join_next().await {
        let got = got.unwrap();
        all.latencies.extend(got.latencies);
        all.refused += got.refused;
    }
    all.latencies.sort_unstable();
    all
}

fn limits(min: u32, max: u32) -> InboundLimits {
    let object = ObjectRef::new("TrafficPolicy", "shop", "catalog");
    InboundLimits { rates: Vec::new(), concurrency: Some(AdaptiveConcurrency { object, min, max }) }
}

async fn start(app: &Busy, limits: &InboundLimits) -> Several {
    Several::start(Protocol::Http1, &[app.served.address()], |_| (), limits).await
}

#[tokio::test]
async fn what_is_let_in_is_answered_in_time_and_the_rest_is_told() {
    let time = Duration::from_secs(2);
    let app = Busy::start().await;
    // Without a limit all wait for each other.
    let open = start(&app, &InboundLimits::default()).await;
    let crowded = load(&open.client, CALLERS, time).await;
    assert_eq!((crowded.refused, app.most_within() as usize), (0, CALLERS));
    drop(open);

    let several = start(&app, &limits(2, 200)).await;
    // What is usual shows while nothing waits.
    let calm = load(&several.client, HANDS / 2, time).await;
    assert_eq!(calm.refused, 0);
    // The limit finds the application's own first.
    load(&several.client, CALLERS, time).await;
    let settled = app.most_within();
    let got = load(&several.client, CALLERS, time).await;
    let (most, median) = (app.most_within() as usize, got.median());
    assert!(got.refused > 0 && got.latencies.len() > 50, "{} {}", got.refused, got.latencies.len());
    assert!(median * 2 < crowded.median(), "{median:?}, without the limit {:?}", crowded.median());
    assert!(most >= HANDS / 2, "{most} at a time ({settled} before)");
    let refused = several.servers[0].requests(&["reason=\"OVERLOADED\"", "status=\"5xx\""]).await;
    assert!(refused as usize >= got.refused, "{refused} {}", got.refused);

    // Quick again: soon all are let in.
    app.hands.add_permits(1000);
    let more = CALLERS / 2;
    assert!(most < more, "{most} are fewer than {more}, which are now let in");
    let all = || async { (load(&several.client, more, time / 4).await.refused == 0).then_some(()) };
    eventually(Duration::from_secs(60), "all are let in", all).await;
}

#[tokio::test]
async fn callers_of_grpc_are_told_in_their_own_way() {
    let app = GrpcApp::start(|path| if path.ends_with("Hangs") { Answer::Hangs } else { Answer::Echo }).await;
    let several = Several::start(Protocol::Grpc, &[app.address()], |_| (), &limits(1, 1)).await;
    let mut connection = several.client.http2().await;
    let held = tokio::spawn(async move { connection.send(call("Hangs", message(b"x"))).await });
    until("the call has come", || app.calls() == 1).await;
    let mut connection = several.client.http2().await;
    let refused = connection.send(call("Any", message(b"x"))).await.unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["grpc-status"]),
        (StatusCode::OK, &"14".parse().unwrap())
    );
    assert_eq!((reason(&refused), app.calls()), (Some(Reason::Overloaded), 1));
    several.client.counted(&["reason=\"OVERLOADED\""], 1).await;
    several.servers[0].counted(&["reason=\"OVERLOADED\""], 1).await;
    // The call that hangs is given up, and its place is free.
    held.abort();
    let free = || async {
        let response = several.client.http2().await.send(call("Any", message(b"x"))).await.unwrap();
        (response.headers()["grpc-status"] == "0").then_some(())
    };
    eventually(PATIENCE, "its place is free", free).await;
}
