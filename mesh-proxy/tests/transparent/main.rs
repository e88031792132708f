//! Interception: the rules of `mesh-proxy init` in network namespaces lead an unaware application's connections
//! through proxies, in both directions, for IPv4 and IPv6.
//!
//! Needs root, `ip`, `nsenter` and `unshare`. Without root it says that it was left out, and fails in CI.
//! The test runs itself again in other roles: as the hub between the namespaces, as the server's applications, and as
//! the client, which knows nothing of the mesh.
//!
//! ```text
//! namespace a: client, proxy          hub: controller           namespace b: applications, proxy
//!          10.99.1.2 ──────────── 10.99.1.1  10.99.2.1 ──────────── 10.99.2.2
//!         fd99:1::2                                                  fd99:2::2
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails ends its test"
)]

mod resources;
mod upgrade;
mod vanished;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use mesh_testkit::{
    app::{HttpApp, TcpApp},
    ca::TestCa,
    control::FakeController,
    net::{PATIENCE, eventually},
};

/// Says which role this process has.
const ROLE: &str = "MESH_TEST_ROLE";
/// Address of a Service; no host has it.
const SERVICE: &str = "10.96.0.10:80";
const SERVICE_V6: &str = "[fd96::10]:80";

#[test]
fn redirected_connections_find_their_way() {
    match std::env::var(ROLE).as_deref() {
        Ok("hub") => return runtime().block_on(hub()),
        Ok("server") => return runtime().block_on(server()),
        Ok("client") => return client(),
        Ok("itself") => return itself(),
        Ok("load") => return upgrade::load(),
        Ok("vanish") => return vanished::vanish(),
        Ok("circle") => return assert_eq!(ask("10.99.2.1:9000", "/"), None, "it goes nowhere"),
        _ => {}
    }
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        assert!(std::env::var_os("CI").is_none(), "interception is not tested: CI must run as root");
        println!("LEFT OUT: interception is not tested, for that needs root");
        return;
    }
    let hub = Command::new("unshare")
        .args(["--net", "--kill-child", "--fork"])
        .args(again())
        .env(ROLE, "hub")
        .output();
    let hub = hub.expect("unshare(1) runs");
    let text = [hub.stdout, hub.stderr].concat();
    assert!(hub.status.success(), "{}", String::from_utf8_lossy(&text));
}

/// This test again, as a command.
fn again() -> Vec<String> {
    let own = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let name = "redirected_connections_find_their_way";
    [own.as_str(), name, "--exact", "--nocapture", "--test-threads=1"].map(str::to_owned).to_vec()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn run(program: &str, args: &str) {
    let outcome = Command::new(program).args(args.split_whitespace()).output();
    let outcome = outcome.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(outcome.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&outcome.stderr));
}

/// A network namespace with one link to the hub, as long as this lives.
struct Namespace {
    holder: Child,
}

impl Namespace {
    fn start(name: &str, network: u8) -> Self {
        let holder = Command::new("unshare").args(["--net", "sleep", "600"]).spawn().unwrap();
        let namespace = Self { holder };
        let pid = namespace.holder.id();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let path = format!("/proc/{pid}/ns/net");
        while std::fs::read_link(&path).unwrap() == own {
            std::thread::sleep(Duration::from_millis(5));
        }
        run("ip", &format!("link add {name} type veth peer name up0"));
        run("ip", &format!("link set up0 netns {pid}"));
        run("ip", &format!("addr add 10.99.{network}.1/24 dev {name}"));
        run("ip", &format!("addr add fd99:{network}::1/64 dev {name} nodad"));
        run("ip", &format!("link set {name} up"));
        namespace.run("ip", "link set lo up");
        namespace.run("ip", &format!("addr add 10.99.{network}.2/24 dev up0"));
        namespace.run("ip", &format!("addr add fd99:{network}::2/64 dev up0 nodad"));
        namespace.run("ip", "link set up0 up");
        namespace.run("ip", &format!("route add default via 10.99.{network}.1"));
        namespace.run("ip", &format!("-6 route add default via fd99:{network}::1"));
        namespace
    }

    fn enter(&self, options: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.holder.id().to_string()]).args(options).arg("--");
        command
    }

    fn run(&self, program: &str, args: &str) {
        let outcome = self.enter(&[]).arg(program).args(args.split_whitespace()).output().unwrap();
        assert!(outcome.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&outcome.stderr));
    }

    fn init(&self, flags: &str) {
        let mut init = self.enter(&[]);
        init.args([env!("CARGO_BIN_EXE_mesh-proxy"), "init"]).args(flags.split_whitespace());
        let outcome = init.output().unwrap();
        assert!(outcome.status.success(), "{flags}: {}", String::from_utf8_lossy(&outcome.stderr));
    }

    fn again(&self, role: &str, options: &[&str]) -> Command {
        let mut command = self.enter(options);
        command.args(again()).env(ROLE, role);
        command
    }
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

async fn hub() {
    run("ip", "link set lo up");
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    let (a, b) = (Namespace::start("to-a", 1), Namespace::start("to-b", 2));
    // The test and the proxies run as root; their applications do not.
    a.init("--proxy-uid 0");
    b.init("--proxy-uid 0");
    let ca = Arc::new(TestCa::new("cluster.local"));
    let controller = FakeController::start("0.0.0.0:0".parse().unwrap(), Arc::clone(&ca)).await;
    resources::resources(&controller);
    let dir = tempfile::tempdir().unwrap();
    let _proxies = [("client", &a, 1), ("server", &b, 2)].map(|(name, namespace, network)| {
        controller.allow_token(&format!("token-{name}"), ca.id("shop", name));
        let token = dir.path().join(name);
        std::fs::write(&token, format!("token-{name}")).unwrap();
        let proxy = namespace
            .enter(&[])
            .args([env!("CARGO_BIN_EXE_mesh-proxy"), "run", "--mode", "transparent", "--log", "info"])
            .args(["--peer-timeout", vanished::PEER_TIMEOUT])
            .args(["--workload", &format!("shop/{name}")])
            .args(["--controller", &format!("10.99.{network}.1:{}", controller.address().port())])
            .args(["--trust-pin", &format!("sha256:{}", ca.root_sha256())])
            .arg("--token-file")
            .arg(token)
            .arg("--admin-socket")
            .arg(dir.path().join(format!("{name}.sock")))
            .spawn();
        Running(proxy.unwrap())
    });
    let _outside = TcpApp::speaking_first("10.99.2.1:9000".parse().unwrap(), b"220 hi\r\n").await;
    let _server = Running(b.again("server", &[]).spawn().unwrap());
    for (network, what) in [(1, "client's proxy"), (2, "server's proxy")] {
        let ready = || async move {
            ask(&format!("10.99.{network}.2:15020"), "/ready").filter(|t| t.contains(" 200 "))
        };
        eventually(PATIENCE, what, ready).await;
    }
    let as_nobody = ["--setuid", "65534", "--setgid", "65534"];
    let client = a.again("client", &as_nobody).output().unwrap();
    let text = String::from_utf8_lossy(&[client.stdout, client.stderr].concat()).into_owned();
    assert!(client.status.success(), "{text}");
    assert!(
        text.contains("spiffe://cluster.local/ns/shop/sa/client"),
        "the application knows its caller: {text}"
    );
    // The server calls the Service that it is the endpoint of, and its proxy's own ports.
    let itself = b.again("itself", &as_nobody).output().unwrap();
    let text = String::from_utf8_lossy(&[itself.stdout, itself.stderr].concat()).into_owned();
    assert!(itself.status.success() && text.contains("spiffe://cluster.local/ns/shop/sa/server"), "{text}");
    from_outside();
    metrics();
    circle(&a, &as_nobody);
    a.init("--proxy-uid 0");
    vanished::peers_are_given_up(&a, &b, &as_nobody).await;
    upgrade::under_load(&a, &b, dir.path(), &as_nobody);
}

/// Rules that do not know the proxy lead what it sends back to it: it notices, and nothing goes round for ever.
fn circle(a: &Namespace, as_nobody: &[&str]) {
    a.init("--proxy-uid 4242");
    let outcome = a.again("circle", as_nobody).output().unwrap();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stdout));
    let (loops, calls) = (refused(&a_metrics()), 1);
    assert!((calls..=calls + 10).contains(&loops), "{loops} connections went round");
}

fn a_metrics() -> String {
    ask("10.99.1.2:15020", "/metrics").unwrap()
}

/// Connections that were refused because they would have gone round.
fn refused(metrics: &str) -> u64 {
    let loops =
        metrics.lines().filter(|l| l.starts_with("mesh_refused_total{") && l.contains("LOOP_DETECTED"));
    loops.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

/// What somebody without a proxy can and cannot do.
fn from_outside() {
    let plain = ask("10.99.2.2:8080", "/plain").unwrap();
    assert!(plain.starts_with("HTTP/1.1 200"), "permissive mode: {plain}");
    assert!(!plain.contains("spiffe"), "{plain}");
    let plain = ask("[fd99:2::2]:8080", "/plain").unwrap();
    assert!(plain.starts_with("HTTP/1.1 200"), "by IPv6: {plain}");
    for host in ["10.99.2.2", "[fd99:2::2]"] {
        for port in [15000, 15001, 15006] {
            let target = format!("{host}:{port}");
            let error = TcpStream::connect(&target).expect_err(&target);
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{target}");
        }
        let live = ask(&format!("{host}:15020"), "/live").unwrap();
        assert!(live.starts_with("HTTP/1.1 200"), "{host}: {live}");
        // The proxy takes it, and finds nobody at that address.
        let private = ask(&format!("{host}:9999"), "/").unwrap();
        assert!(private.starts_with("HTTP/1.1 502"), "{host}: {private}");
    }
    // Loopback addresses of others are sent to nobody, and taken by nobody.
    run("ip", "route add 127.9.0.0/16 via 10.99.2.2");
    assert!(ask("127.9.0.1:9999", "/").is_none());
}

fn metrics() {
    let near = ask("10.99.1.2:15020", "/metrics").unwrap();
    let far = ask("10.99.2.2:15020", "/metrics").unwrap();
    let find = |text: &str, labels: &[&str]| {
        text.lines()
            .any(|l| l.starts_with("mesh_requests_total{") && labels.iter().all(|label| l.contains(label)))
    };
    assert!(find(&near, &["secured=\"true\"", "service=\"shop/web:80\"", "status=\"2xx\""]), "{near}");
    assert!(
        find(&near, &["secured=\"false\"", "service=\"\"", "protocol=\"tcp\""]),
        "pass-through counts: {near}"
    );
    assert!(
        find(&far, &["secured=\"true\"", "source=\"spiffe://cluster.local/ns/shop/sa/client\""]),
        "{far}"
    );
    assert!(find(&far, &["secured=\"false\"", "source=\"\"", "status=\"2xx\""]), "{far}");
    let own_ports = 6;
    assert_eq!(refused(&far), own_ports, "{far}");
}

/// The applications of namespace b: one on its address, one that is meant for its own host only; one in the hub is
/// outside the mesh.
async fn server() {
    let _web = HttpApp::start("web", "10.99.2.2:8080".parse().unwrap()).await;
    let _web6 = HttpApp::start("web6", "[fd99:2::2]:8080".parse().unwrap()).await;
    let _private = HttpApp::start("private", "127.0.0.1:9999".parse().unwrap()).await;
    for address in ["10.99.2.2:8080", "[fd99:2::2]:8080"] {
        let socket = tokio::net::UdpSocket::bind(address).await.unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(&buffer[..length], from).await;
            }
        });
    }
    std::future::pending::<()>().await;
}

/// An application that knows nothing of the mesh.
fn client() {
    let answer = ask(SERVICE, "/hello").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    println!("{answer}");
    let answer = ask(SERVICE_V6, "/hello").expect("an answer by IPv6");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("sa/client"), "{answer}");
    // Nobody has ever heard of it.
    assert_eq!(ask("10.96.0.99:80", "/"), None);
    // Outside the mesh, and known to be: what it sends first and what it sends back come through.
    let mut stream = TcpStream::connect("10.99.2.1:9000").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut got = [0; 13];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"220 hi\r\nhello");
    // UDP goes past both proxies: the port of the application answers, which knows the caller's own address.
    for (from, to) in [("10.99.1.2:0", "10.99.2.2:8080"), ("[fd99:1::2]:0", "[fd99:2::2]:8080")] {
        let socket = std::net::UdpSocket::bind(from).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect(to).unwrap();
        for size in [1, 1400] {
            let (sent, mut got) = (vec![7; size], [0; 2048]);
            socket.send(&sent).unwrap();
            let length = socket.recv(&mut got).expect("an answer by UDP");
            assert!(got[..length] == sent, "{to}: {length} of {size} bytes");
        }
    }
}

/// An application that calls the Service that it serves itself, and knocks at its proxy's doors.
fn itself() {
    for service in [SERVICE, SERVICE_V6] {
        let answer = ask(service, "/itself").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        println!("{answer}");
    }
    // Directly it is not led anywhere: loopback is its own.
    let private = ask("127.0.0.1:9999", "/").unwrap();
    assert!(private.starts_with("HTTP/1.1 200") && !private.contains("spiffe"), "{private}");
    let doors = [
        "127.0.0.1:15001",
        "[::1]:15001",
        "127.0.0.1:15006",
        "[::1]:15006",
        "10.99.2.2:15006",
        "[fd99:2::2]:15006",
    ];
    for door in doors {
        assert_eq!(ask(door, "/"), None, "{door}");
    }
}

/// One request on one connection; None: there was no answer.
fn ask(address: &str, path: &str) -> Option<String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    (!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
}
