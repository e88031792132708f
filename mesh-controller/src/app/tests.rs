//! A whole controller: how it leaves, and how it notices that it is not whole any more.

use std::io;

use mesh_testkit::net::eventually;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

async fn start(dir: &Path) -> Controller {
    let source = dir.join("source");
    std::fs::create_dir(&source).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        source: Origin::Directory(source),
        data_dir: dir.join("data"),
        listen: any,
        view: any,
        health: any,
        trust_domain: "cluster.local".parse().unwrap(),
        cluster_domain: "cluster.local".into(),
        leaf_lifetime: Duration::from_secs(3600),
        webhook: None,
        inject_config: None,
    };
    Controller::start(config).await.unwrap()
}

async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn who_leaves_says_so_and_serves_on_for_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = start(dir.path()).await;
    controller.linger = Duration::from_secs(3);
    let Addresses { control, health, .. } = controller.addresses();
    assert_eq!(get(health, "/ready").await.unwrap(), "200");
    let begin = Instant::now();
    let leaving = tokio::spawn(controller.shutdown());
    let not_ready = || async { (get(health, "/ready").await.ok()? == "503").then_some(()) };
    eventually(Duration::from_secs(2), "not ready", not_ready).await;
    assert_eq!(get(health, "/live").await.unwrap(), "200");
    TcpStream::connect(control).await.expect("it serves on");
    leaving.await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(3));
    assert!(TcpStream::connect(control).await.is_err(), "it listens still");
}

#[tokio::test]
async fn a_part_that_ends_by_itself_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let mut controller = start(dir.path()).await;
    let whole = timeout(Duration::from_millis(200), controller.broken()).await;
    assert!(whole.is_err(), "{whole:?}");
    // As a panic ends it.
    let id = controller.workers.tasks.spawn(async {}).id();
    controller.workers.names.insert(id, "a part");
    assert_eq!(timeout(Duration::from_secs(10), controller.broken()).await, Ok("a part"));
    controller.shutdown().await;
}
