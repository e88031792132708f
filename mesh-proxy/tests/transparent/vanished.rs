//! Peers that vanish: nothing says so, and what was sent to them stays unacknowledged.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    time::Duration,
};

use mesh_testkit::net::{PATIENCE, eventually};

use super::{Namespace, run};

/// For how long the proxies wait.
pub(crate) const PEER_TIMEOUT: &str = "3s";
/// Makes the hub deaf to what namespace a sends to its application, and to what namespace b's sends.
const DEAF: &str = "add table inet vanished; \
    add chain inet vanished input { type filter hook input priority 0; }; \
    add rule inet vanished input tcp dport 9000 drop; \
    add rule inet vanished input tcp sport 8080 drop";

/// The hub vanishes for both: connections that a proxy opened and that one accepted end, although nobody ends them.
pub(crate) async fn peers_are_given_up(a: &Namespace, b: &Namespace, as_nobody: &[&str]) {
    let mut command = a.again("vanish", as_nobody);
    let mut application = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(application.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.contains("greeted")), "a connection stands");
    let mut caller = TcpStream::connect("10.99.2.2:8080").unwrap();
    let port = caller.local_addr().unwrap().port();
    let accepted = |count| move || async move { (connections(b, port) == count).then_some(()) };
    eventually(PATIENCE, "it is accepted", accepted(1)).await;
    let nft = std::process::Command::new("nft").arg(DEAF).output().unwrap();
    assert!(nft.status.success(), "{}", String::from_utf8_lossy(&nft.stderr));
    // What is said to the hub is lost from now on; what it says is heard.
    application.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    caller.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").unwrap();
    eventually(PATIENCE, "what was accepted is given up", accepted(0)).await;
    let rest: Vec<String> = said.collect();
    assert!(application.wait().unwrap().success(), "what was opened is not given up: {rest:?}");
    run("nft", "delete table inet vanished");
}

/// Connections in a namespace that stand with this port of the hub.
fn connections(namespace: &Namespace, port: u16) -> usize {
    let table = namespace.enter(&[]).args(["cat", "/proc/net/tcp"]).output().unwrap();
    // Addresses are written as little-endian numbers; 1 is ESTABLISHED.
    let with = format!(" 0102630A:{port:04X} 01 ");
    String::from_utf8_lossy(&table.stdout).lines().filter(|line| line.contains(&with)).count()
}

/// The application in namespace a: it has a connection with a server whose host vanishes, and says something on it.
pub(crate) fn vanish() {
    let mut stream = TcpStream::connect("10.99.2.1:9000").unwrap();
    stream.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    let mut said = [0; 8];
    stream.read_exact(&mut said).unwrap();
    println!("greeted");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let begin = std::time::Instant::now();
    stream.write_all(b"hello").unwrap();
    // Closed or reset.
    let end = stream.read(&mut said);
    assert!(!matches!(end, Ok(1..)), "{end:?}");
    let elapsed = begin.elapsed();
    assert!((Duration::from_secs(2)..PATIENCE).contains(&elapsed), "{elapsed:?}");
}
