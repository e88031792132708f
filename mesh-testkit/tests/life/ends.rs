//! Starting and ending real processes.

use std::{process::Command, time::Duration};

use http::StatusCode;
use tokio::net::TcpStream;

use crate::{
    common::{PATIENCE, binary, eventually, get},
    stage::{Stage, echoes, is_ready, signal},
};

#[tokio::test]
async fn sigterm_leaves_outbound_open_and_a_second_one_ends_at_once() {
    let mut stage = Stage::start().await;
    let mut stream = stage.bytes().await;
    assert!(echoes(&mut stream).await);
    signal(&stage.client, "TERM");
    assert!(eventually(PATIENCE, async || !is_ready(&stage.client).await).await, "it is still ready");
    let live = get(stage.client.at(mesh_core::ports::HEALTH), "localhost", "/live").await.expect("health");
    assert_eq!(live.status, StatusCode::OK);
    // Longer than an application may be silent: it holds a connection.
    for _ in 0..15 {
        assert_eq!(stage.client.get("catalog", "/").await.status, StatusCode::OK);
        assert!(echoes(&mut stream).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(stage.client.process.is_running());
    signal(&stage.client, "TERM");
    assert!(stage.client.process.ended_within(Duration::from_secs(5)).await, "it goes on");
    assert!(!echoes(&mut stream).await);
}

#[tokio::test]
async fn a_proxy_ends_by_itself_when_its_application_is_gone() {
    let mut stage = Stage::start().await;
    let mut stream = stage.bytes().await;
    assert!(echoes(&mut stream).await);
    assert!(stage.tell("client", "drain").await.status.success());
    assert!(eventually(PATIENCE, async || !is_ready(&stage.client).await).await, "it does not drain");
    assert!(echoes(&mut stream).await);
    assert!(stage.client.process.is_running());
    drop(stream);
    assert!(stage.client.process.ended_within(PATIENCE).await, "it stays:\n{}", stage.client.process.log());
}

/// A job calls, and then says that it is done: its exit code is the job's, and the proxy ends though nobody sent a
/// signal, and though somebody else still holds a connection.
#[tokio::test]
async fn a_job_ends_its_proxy() {
    let mut stage = Stage::start().await;
    let held = TcpStream::connect(stage.client.outbound()).await.expect("outbound stands");
    let script = r#"
        exec 3<>"/dev/tcp/$IP/15001"
        printf 'GET /job HTTP/1.1\r\nHost: catalog\r\n\r\n' >&3
        read -r _ status _ <&3
        "$PROXY" quit
        [ "$status" = 200 ] && exit 7
    "#;
    let mut job = Command::new("bash");
    job.args(["-c", script])
        .env("IP", stage.client.outbound().ip().to_string())
        .env("PROXY", binary("mesh-proxy"))
        .env("MESH_ADMIN_SOCKET", stage.socket("client"));
    let output = tokio::process::Command::from(job).output().await.expect("bash");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(stage.web.seen().iter().any(|seen| seen.uri.path() == "/job"));
    assert!(stage.client.process.ended_within(PATIENCE).await, "it stays:\n{}", stage.client.process.log());
    drop(held);
}

/// kill -9 leaves nothing behind that keeps the next one from starting, the socket included.
#[tokio::test]
async fn a_killed_proxy_starts_again() {
    let mut stage = Stage::start().await;
    let ip = stage.client.outbound().ip();
    stage.client.process.kill();
    let mut command = stage.mesh.proxy_command("test/client", "client", ip);
    command.arg("--admin-socket").arg(stage.socket("client"));
    stage.client = stage.mesh.sidecar(command, "test/client", ip);
    stage.client.await_ready().await;
    assert_eq!(stage.client.get("catalog", "/").await.status, StatusCode::OK);
    assert!(stage.tell("client", "quit").await.status.success());
    assert!(stage.client.process.ended_within(PATIENCE).await);
    assert!(is_ready(&stage.server).await, "the other side is not concerned");
}

#[tokio::test]
async fn waiting_ends_when_the_proxy_is_ready() {
    let mut stage = Stage::start().await;
    let ip = stage.client.outbound().ip();
    stage.client.process.kill();
    let wait = |timeout: &'static str| {
        let mut command = tokio::process::Command::new(binary("mesh-proxy"));
        command.args(["wait", "--timeout", timeout]).env("MESH_HEALTH", format!("{ip}:15020"));
        command.kill_on_drop(true);
        async move { command.output().await.expect("mesh-proxy") }
    };
    let output = wait("200ms").await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("does the proxy run"), "{text}");
    // Without a controller it lives, and is not ready.
    stage.mesh.kill_controller();
    let command = stage.mesh.proxy_command("test/client", "client", ip);
    stage.client = stage.mesh.sidecar(command, "test/client", ip);
    let health = stage.client.at(mesh_core::ports::HEALTH);
    let lives = async || get(health, "localhost", "/live").await.is_some();
    assert!(eventually(PATIENCE, lives).await);
    let output = wait("300ms").await;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("no certificate yet"), "{text}");
    let waiting = tokio::spawn(wait("60s"));
    stage.mesh.start_controller().await;
    let output = waiting.await.expect("no panic");
    assert!(output.status.success(), "{output:?}");
    assert!(is_ready(&stage.client).await);
    drop(stage.bytes);
}
