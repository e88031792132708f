//! What happens when the controller goes away: traffic goes on, and nothing is ever sent in plaintext instead.

#![allow(clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "a test that cannot go on ends")]

mod common;

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use common::{Mesh, PATIENCE, Process, Sidecar, binary, eventually, get};
use http::StatusCode;
use mesh_testkit::net::fresh_ip;

/// A client and a catalog, each with a sidecar, and the catalog itself.
struct Pair {
    mesh: Mesh,
    client: Sidecar,
    server: Sidecar,
    _app: Process,
}

async fn pair() -> Pair {
    let (client_ip, server_ip) = (fresh_ip(), fresh_ip());
    let app: SocketAddr = (server_ip, 9080).into();
    let yaml = include_str!("data/pair.yaml")
        .replace("CLIENT", &client_ip.to_string())
        .replace("SERVER", &server_ip.to_string());
    let mesh = Mesh::start(fresh_ip(), &yaml).await;
    let mut command = Command::new(binary("shop"));
    command.args(["catalog", "--version", "v1", "--listen", &app.to_string()]);
    let app = Process::spawn(command, &mesh.path("app.log"));
    let client = mesh.proxy("test/client", "client", client_ip).await;
    let server = mesh.proxy("test/catalog", "catalog", server_ip).await;
    let answers =
        eventually(PATIENCE, async || client.get("catalog", "/items").await.status == StatusCode::OK).await;
    assert!(answers, "{:?}", client.get("catalog", "/items").await);
    Pair { mesh, client, server, _app: app }
}

#[tokio::test]
async fn traffic_goes_on_without_the_controller_and_proxies_reconnect() {
    let mut pair = pair().await;
    pair.mesh.kill_controller();
    for _ in 0..100 {
        assert_eq!(pair.client.get("catalog", "/items").await.status, StatusCode::OK);
    }
    let connected = async |sidecar: &Sidecar| sidecar.metric("mesh_discovery_connected", &[]).await;
    assert!(
        eventually(PATIENCE, async || connected(&pair.client).await == 0.0).await,
        "the loss is not seen"
    );

    pair.mesh.start_controller().await;
    for sidecar in [&pair.client, &pair.server] {
        assert!(eventually(PATIENCE, async || connected(sidecar).await == 1.0).await, "does not reconnect");
    }
    // What changed after the restart arrives.
    let deny = include_str!("data/pair-denied.yaml");
    pair.mesh.write("denied.yaml", deny);
    let denied =
        eventually(PATIENCE, async || pair.client.get("catalog", "/items").await.reason() == "AUTHZ_DENIED")
            .await;
    assert!(denied, "a change after the restart does not arrive");
}

#[tokio::test]
async fn a_proxy_that_starts_without_controller_refuses_and_sends_nothing() {
    let mut pair = pair().await;
    pair.client.process.kill();
    pair.mesh.kill_controller();
    let before = pair.server.metric("mesh_requests_total", &[]).await;
    let ip = pair.client.outbound().ip();
    let command = pair.mesh.proxy_command("test/client", "client", ip);
    let client = pair.mesh.sidecar(command, "test/client", ip);
    let start = Instant::now();
    let listening =
        eventually(PATIENCE, async || get(client.outbound(), "catalog", "/items").await.is_some());
    assert!(listening.await, "the outbound listener does not stand:\n{}", client.process.log());
    let reply = client.get("catalog", "/items").await;
    assert_eq!((reply.status, reply.reason()), (StatusCode::SERVICE_UNAVAILABLE, "DISCOVERY_UNAVAILABLE"));
    assert!(start.elapsed() < Duration::from_secs(10), "refusing took {:?}", start.elapsed());
    assert_eq!(pair.server.metric("mesh_requests_total", &[]).await, before, "something reached the server");
    assert!(client.metric("mesh_requests_total", &["reason=\"DISCOVERY_UNAVAILABLE\""]).await >= 1.0);
    // And it recovers by itself.
    pair.mesh.start_controller().await;
    let recovered =
        eventually(PATIENCE, async || client.get("catalog", "/items").await.status == StatusCode::OK).await;
    assert!(recovered, "does not recover:\n{}", client.process.log());
}

#[tokio::test]
async fn the_first_request_after_a_start_is_answered_within_a_second() {
    let mut pair = pair().await;
    pair.client.process.kill();
    let ip = pair.client.outbound().ip();
    // Other tests share the machine: what the proxy can do is the best of a few starts.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let command = pair.mesh.proxy_command("test/client", "client", ip);
        let start = Instant::now();
        let mut client = pair.mesh.sidecar(command, "test/client", ip);
        let answered = eventually(PATIENCE, async || {
            get(client.outbound(), "catalog", "/items").await.is_some_and(|r| r.status == StatusCode::OK)
        });
        assert!(answered.await, "no answer:\n{}", client.process.log());
        best = best.min(start.elapsed());
        client.process.kill();
        if best < Duration::from_secs(1) {
            return;
        }
    }
    panic!("the first answer took {best:?}");
}

#[tokio::test]
async fn a_proxy_ends_at_sigterm_and_lets_requests_end() {
    let mut pair = pair().await;
    pair.client.process.terminate();
    assert!(pair.client.process.ended_within(Duration::from_secs(5)).await, "an idle proxy does not end");
}
