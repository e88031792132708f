//! Idle connections to an application are closed before it closes them itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use mesh_core::protocol::Protocol;
use mesh_testkit::{
    net::{eventually, fresh_addr},
    serve::Served,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::mesh::Pair;

/// An HTTP/1.1 application that closes connections which are idle for too long, and counts who closes.
struct Impatient {
    served: Served,
    by_itself: Arc<AtomicU64>,
    by_peer: Arc<AtomicU64>,
}

impl Impatient {
    /// Closes after `limit`; `says` is written into its responses' heads.
    async fn start(limit: Duration, says: &'static str) -> Self {
        let (by_itself, by_peer) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (own, peer) = (Arc::clone(&by_itself), Arc::clone(&by_peer));
        let served = Served::start(fresh_addr(0), move |stream, _| {
            let (own, peer) = (Arc::clone(&own), Arc::clone(&peer));
            async move {
                let closed = if serve(stream, limit, says).await { own } else { peer };
                closed.fetch_add(1, SeqCst);
            }
        });
        Self { served: served.await, by_itself, by_peer }
    }

    fn ended(&self) -> (u64, u64) {
        (self.by_itself.load(SeqCst), self.by_peer.load(SeqCst))
    }
}

/// Serves a connection. True: it was idle for too long.
async fn serve(mut stream: TcpStream, limit: Duration, says: &str) -> bool {
    let answer = format!("HTTP/1.1 200 OK\r\n{says}content-length: 2\r\n\r\nok");
    let mut head = Vec::new();
    loop {
        match timeout(limit, stream.read_u8()).await {
            Err(_) => return true,
            Ok(Err(_)) => return false,
            Ok(Ok(byte)) => head.push(byte),
        }
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

/// Sends a request past the client's proxy.
async fn request(pair: &Pair) {
    let mut stream = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: catalog\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// Waits until so many connections have ended; how many the application closed.
async fn ended(app: &Impatient, count: u64) -> u64 {
    let all = || async { Some(app.ended()).filter(|(own, peer)| own + peer == count) };
    eventually(Duration::from_secs(30), "idle connections end", all).await.0
}

#[tokio::test]
async fn a_stated_limit_is_kept_from_the_first_response_on() {
    // Shorter than the proxy keeps connections of servers that say nothing, which is four seconds.
    let app = Impatient::start(Duration::from_secs(3), "keep-alive: timeout=3, max=100\r\n").await;
    let pair = Pair::start(Protocol::Http1, app.served.address(), |_| ()).await;
    for _ in 0..3 {
        request(&pair).await;
    }
    assert_eq!((app.served.accepted(), app.ended()), (1, (0, 0)), "the connection is used again");
    assert_eq!(ended(&app, 1).await, 0, "the proxy closes first");
}

#[tokio::test]
async fn no_request_meets_the_end_of_a_connection_whose_limit_was_stated() {
    let app = Impatient::start(Duration::from_secs(1), "Keep-Alive: timeout=1\r\n").await;
    let pair = Pair::start(Protocol::Http1, app.served.address(), |_| ()).await;
    // POST, which is not sent again: each must find a connection that works.
    for pause in (900..1_100).step_by(20) {
        request(&pair).await;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

#[tokio::test]
async fn a_limit_that_is_only_seen_is_kept_too() {
    let app = Impatient::start(Duration::from_millis(1_500), "").await;
    let pair = Pair::start(Protocol::Http1, app.served.address(), |_| ()).await;
    for count in 1..=2 {
        request(&pair).await;
        assert_eq!(ended(&app, count).await, count, "the application is first as long as nothing is known");
        // It is seen once the pool is looked through.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
    }
    for count in 3..=5 {
        request(&pair).await;
        assert_eq!(ended(&app, count).await, 2, "the proxy closes first");
    }
}
