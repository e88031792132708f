//! Bytes through two proxies, and TLS that is the application's own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_core::{
    config::WorkloadConfig,
    policy::{DefaultAction, TlsMode},
    protocol::Protocol,
};
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    client::Connection,
    net::{PATIENCE, eventually, fresh_addr, until},
    serve::Served,
    tls,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::mesh::{Pair, upstream};

async fn pair(app: &TcpApp) -> Pair {
    Pair::with(Protocol::Opaque, app.address(), |_| (), |client, _| upstream(client, 17_000, "catalog:8080"))
        .await
}

#[tokio::test]
async fn bytes_and_half_closes_pass_and_a_connection_counts_once() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = pair(&app).await;
    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    let sent = vec![5u8; 200_000];
    let (mut read, mut write) = stream.split();
    let echo = async {
        let mut echoed = Vec::new();
        read.read_to_end(&mut echoed).await.unwrap();
        echoed
    };
    let send = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (echoed, ()) = tokio::join!(echo, send);
    assert_eq!(echoed.len(), sent.len());
    for side in [&pair.client, &pair.server] {
        side.counted(&["protocol=\"tcp\"", "secured=\"true\"", "reason=\"\""], 1).await;
        assert_eq!(side.metric("mesh_request_bytes_total", &[]).await, 200_000);
        assert_eq!(side.metric("mesh_response_bytes_total", &[]).await, 200_000);
    }
}

#[tokio::test]
async fn the_server_may_speak_first() {
    let app = TcpApp::speaking_first(fresh_addr(0), b"220 ready\r\n").await;
    let pair = pair(&app).await;
    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
}

#[tokio::test]
async fn a_denied_connection_never_reaches_the_application() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::with(
        Protocol::Opaque,
        app.address(),
        |_| (),
        |client, server| {
            upstream(client, 17_000, "catalog:8080");
            server.policy.default_action = DefaultAction::Deny;
        },
    )
    .await;
    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got).await;
    assert!(got.is_empty());
    pair.server.counted(&["reason=\"AUTHZ_DENIED\""], 1).await;
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn a_change_of_policy_ends_a_live_connection() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = pair(&app).await;
    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    stream.read_exact(&mut echoed).await.unwrap();
    let mut config = pair.server.config.clone();
    config.policy.default_action = DefaultAction::Deny;
    pair.mesh.publish(&config);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    pair.server.counted(&["reason=\"AUTHZ_DENIED\""], 1).await;
    until("the application sees the end", || app.open_connections() == 0).await;
}

/// An HTTPS application that an ordinary client calls keeps its handshake, through the inbound proxy.
#[tokio::test]
async fn tls_of_the_application_is_untouched() {
    for declared in [Protocol::Undeclared, Protocol::Opaque] {
        let mesh = crate::mesh::Mesh::start().await;
        let web = mesh.ca.web("shop.example");
        let app = HttpApp::start_tls("shop", fresh_addr(0), &web).await;
        let mut config = mesh.workload("server");
        let service = mesh_core::name::ServicePort::new("shop", "web", 8443);
        crate::mesh::serves(&mut config, 8443, declared, app.address(), &service);
        let server = mesh.proxy(config, |_| ()).await;
        let config = tls::web_client(&mesh.ca, &[b"http/1.1"]);
        let stream = tls::connect((server.ip(), 8443).into(), "shop.example", config).await.unwrap();
        let response = Connection::http1(stream).await.get("/", "shop.example").await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(app.requests(), 1);
        server.counted(&["protocol=\"tcp\"", "secured=\"false\""], 1).await;
    }
}

#[tokio::test]
async fn strict_mode_lets_no_tls_of_others_in() {
    let app = TcpApp::start(fresh_addr(0)).await;
    let pair = Pair::with(
        Protocol::Opaque,
        app.address(),
        |_| (),
        |_, server| {
            server.policy.tls_mode = TlsMode::Strict;
        },
    )
    .await;
    let mut stream = TcpStream::connect((pair.server.ip(), 8080)).await.unwrap();
    stream.write_all(b"plain bytes").await.unwrap();
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got).await;
    assert!(got.is_empty());
    pair.server.counted(&["reason=\"TLS_REQUIRED\""], 1).await;
    assert_eq!(app.connections(), 0);
}

/// A caller that never reads holds up its application, not the proxies' memory.
#[tokio::test]
async fn a_peer_that_never_reads_stops_the_other() {
    let written = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&written);
    let app = Served::start(fresh_addr(0), move |mut stream, _| {
        let count = Arc::clone(&count);
        async move {
            let block = vec![7; 64 * 1024];
            while let Ok(length) = stream.write(&block).await {
                count.fetch_add(length as u64, Ordering::SeqCst);
            }
        }
    })
    .await;
    let change =
        |client: &mut WorkloadConfig, _: &mut WorkloadConfig| upstream(client, 17_000, "catalog:8080");
    let pair = Pair::with(Protocol::Opaque, app.address(), |_| (), change).await;
    let mut stream = TcpStream::connect((pair.client.ip(), 17_000)).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 7);
    let mut last = 0;
    let stopped = || {
        let now = written.load(Ordering::SeqCst);
        let same = now == std::mem::replace(&mut last, now);
        async move {
            tokio::time::sleep(Duration::from_millis(250)).await;
            same.then_some(now)
        }
    };
    let held = eventually(PATIENCE, "nothing more is taken", stopped).await;
    // Socket buffers of three connections, and at most 64 KiB in each proxy.
    assert!(held < 64 * 1024 * 1024, "{held} bytes are on their way");
    drop(stream);
    until("the application sees the end", || app.open() == 0).await;
}
