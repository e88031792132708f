//! What one caller cannot take from others.

use std::time::Instant;

use mesh_testkit::net::fresh_ip;
use tokio::io::AsyncReadExt as _;

use super::*;

#[tokio::test]
async fn whoever_holds_connections_does_not_lock_the_api_server_out() {
    let rig = Rig::recent().await;
    let (greedy, other) = (fresh_ip(), fresh_ip());
    let mut held = Vec::new();
    for _ in 0..MAX_OF_ONE {
        held.push(rig.connect_from(greedy, NAME, b"h2").await.unwrap());
    }
    for _ in 0..MAX_CONNECTIONS {
        assert!(rig.connect_from(greedy, NAME, b"h2").await.is_err(), "it has more than its share");
    }
    let text = rig.metrics.render();
    let line = format!("refused_total{{port=\"webhook\",reason=\"too_many\"}} {MAX_CONNECTIONS}\n");
    assert!(text.contains(&line), "{text}");
    rig.connect_from(other, NAME, b"h2").await.unwrap();
    assert_eq!(rig.inject(&plain(), true).await["allowed"], true);
    drop(held);
    let again = || async { rig.connect_from(greedy, NAME, b"h2").await.ok() };
    eventually(PATIENCE, "its places are free again", again).await;
}

#[tokio::test]
async fn connections_without_requests_end() {
    let idle = Duration::from_millis(300);
    let rig = Rig::start_with("34", false, Duration::from_secs(3600), idle).await;
    let begin = Instant::now();
    // One says nothing at all, one speaks HTTP/2 and answers pings, one has had its answer.
    let mut silent = rig.connect(NAME, b"h2").await.unwrap();
    let io = TokioIo::new(rig.connect(NAME, b"h2").await.unwrap());
    let (_sender, polite) = http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io).await.unwrap();
    let io = TokioIo::new(rig.connect(NAME, b"h2").await.unwrap());
    let (mut sender, answered) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let answered = tokio::spawn(answered);
    let get = Request::get("https://x/inject").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(sender.send_request(get).await.unwrap().status(), 405);
    let all = async {
        let _ = silent.read_to_end(&mut Vec::new()).await;
        let _ = polite.await;
        let _ = answered.await;
    };
    timeout(PATIENCE, all).await.expect("a connection without requests stays");
    assert!(begin.elapsed() >= idle);
    assert_eq!(rig.inject(&plain(), true).await["allowed"], true);
}

#[tokio::test]
async fn a_namespace_is_not_looked_at_for_every_pod() {
    let rig = Rig::recent().await;
    for _ in 0..5 {
        assert_eq!(rig.inject(&plain(), false).await["allowed"], true);
    }
    assert_eq!(rig.told().len(), 1, "it was there a moment ago");
}
