//! The services against each other, without a mesh: what they count must agree to the unit.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// A service under test; it ends with the test, because its standard input does.
struct Service {
    child: Child,
    stdin: Option<ChildStdin>,
    listen: SocketAddr,
    stats: SocketAddr,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn start(service: &str, flags: &[&str]) -> Service {
    let (listen, stats) = (free(), free());
    let mut child = Command::new(env!("CARGO_BIN_EXE_shop"))
        .args([service, "--listen", &listen.to_string(), "--stats", &stats.to_string(), "--exit-with-parent"])
        .args(flags)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take();
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(listen).is_err() {
        assert!(Instant::now() < deadline, "{service} does not listen on {listen}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Service { child, stdin, listen, stats }
}

impl Service {
    fn stats(&self) -> Value {
        let mut stream = TcpStream::connect(self.stats).unwrap();
        stream.write_all(b"GET /stats HTTP/1.1\r\nHost: stats\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn served(&self) -> u64 {
        let stats = self.stats();
        stats["served"].as_array().unwrap().iter().map(|served| served["count"].as_u64().unwrap()).sum()
    }
}

fn made(stats: &Value, to: &str) -> (u64, u64) {
    let made = stats["made"].as_array().unwrap().iter().find(|made| made["to"] == to).unwrap();
    (made["count"].as_u64().unwrap(), made["failed"].as_u64().unwrap())
}

fn run(args: &[&str]) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_shop")).args(args).output().unwrap();
    let answer = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), answer)
}

#[test]
fn counts_agree_along_the_whole_path() {
    let inventory = start("inventory", &[]);
    let cart = start("cart", &["--inventory", &inventory.listen.to_string()]);
    let catalog = start("catalog", &["--version", "v2"]);
    let storefront = start(
        "storefront",
        &["--proxy", &catalog.listen.to_string(), "--cart-proxy", &cart.listen.to_string()],
    );
    let target = storefront.listen.to_string();
    let (code, load) = run(&["load", "--target", &target, "--rate", "500", "--count", "400"]);
    assert_eq!((code, &load["failed"]), (Some(0), &Value::from(0)), "{load}");
    assert_eq!(load["requests"], 400);
    assert_eq!(load["statuses"]["200"], 400);
    assert_eq!(load["versions"]["v2"], 400);
    assert_eq!(storefront.served(), 400);
    assert_eq!(made(&storefront.stats(), "catalog"), (400, 0));
    assert_eq!(catalog.served(), 400);
    // Of 20 pages one is watched: that is two calls.
    assert_eq!(made(&storefront.stats(), "cart"), (420, 0));
    assert_eq!(cart.served(), 420);
    let (asked, failed) = made(&cart.stats(), "inventory");
    assert_eq!((asked, failed), (200, 0));
    assert_eq!(inventory.served(), asked);
    // The test's own connection, when it waited for the service, is one more.
    let opened = cart.stats()["connections_opened"].as_u64().unwrap();
    assert_eq!(inventory.stats()["connections_accepted"].as_u64().unwrap(), opened + 1);
    assert!((asked / 25..asked).contains(&opened), "{opened} connections");
}

#[test]
fn without_a_mesh_the_batch_job_reads_the_cart() {
    let inventory = free();
    let cart = start("cart", &["--inventory", &inventory.to_string()]);
    let (code, report) = run(&["batch", "--proxy", &cart.listen.to_string()]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!((report["status"].as_u64(), report["grpc_status"].as_str()), (Some(200), Some("0")));
    assert!(report["mesh_reason"].is_null());
    assert_eq!(cart.served(), 1);
}

#[test]
fn a_target_that_does_not_listen_is_a_failure() {
    let (code, load) = run(&["load", "--target", &free().to_string(), "--rate", "100", "--count", "5"]);
    assert_eq!(code, Some(1));
    assert_eq!((&load["requests"], &load["failed"]), (&Value::from(5), &Value::from(5)));
    assert!(load["errors"][0].as_str().unwrap().contains("cannot connect"), "{load}");
}

#[test]
fn a_service_ends_when_its_standard_input_ends() {
    let mut service = start("catalog", &["--version", "v1"]);
    drop(service.stdin.take());
    let deadline = Instant::now() + Duration::from_secs(5);
    while service.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it is still running");
        std::thread::sleep(Duration::from_millis(10));
    }
}
