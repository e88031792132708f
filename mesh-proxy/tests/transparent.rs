//! Interception: real firewall rules in network namespaces lead an unaware application's connections through proxies.
//!
//! Needs root, `ip`, `nft`, `nsenter` and `unshare`. Without root it says that it was left out, and fails in CI.
//! The test runs itself again in other roles: as the hub between the namespaces, as the server's applications, and as
//! the client, which knows nothing of the mesh.
//!
//! ```text
//! namespace a: client, proxy          hub: controller           namespace b: applications, proxy
//!          10.99.1.2 ──────────── 10.99.1.1  10.99.2.1 ──────────── 10.99.2.2
//! ```

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails ends its test"
)]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use mesh_core::{
    addr::{EndpointAddr, OrigDst},
    config::{Destination, Endpoint, InboundPort, WorkloadConfig},
    name::{ObjectRef, ServicePort, WorkloadRef},
    policy::{DefaultAction, PolicySet, TlsMode},
    protocol::Protocol,
    resource::{DestinationKey, ResourceName},
    route::{Backend, RouteRule, ServiceRoutes},
};
use mesh_proto::convert::ResourceBody;
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

#[test]
fn redirected_connections_find_their_way() {
    match std::env::var(ROLE).as_deref() {
        Ok("hub") => return runtime().block_on(hub()),
        Ok("server") => return runtime().block_on(server()),
        Ok("client") => return client(),
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
        run("ip", &format!("link set {name} up"));
        namespace.run("ip", "link set lo up");
        namespace.run("ip", &format!("addr add 10.99.{network}.2/24 dev up0"));
        namespace.run("ip", "link set up0 up");
        namespace.run("ip", &format!("route add default via 10.99.{network}.1"));
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

    fn rules(&self, rules: &str) {
        let mut nft = self.enter(&[]).args(["nft", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{rules}");
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
    let (a, b) = (Namespace::start("to-a", 1), Namespace::start("to-b", 2));
    a.rules(
        "table ip t { chain output { type nat hook output priority -100;
           meta skuid != 0 ip daddr != 127.0.0.0/8 tcp dport != 15020 redirect to :15001; }\n}",
    );
    b.rules(
        "table ip t { chain prerouting { type nat hook prerouting priority -100;
           iifname up0 tcp dport != 15020 redirect to :15006; }\n}",
    );
    let ca = Arc::new(TestCa::new("cluster.local"));
    let controller = FakeController::start("0.0.0.0:0".parse().unwrap(), Arc::clone(&ca)).await;
    resources(&controller);
    let dir = tempfile::tempdir().unwrap();
    let _proxies = [("client", &a, 1), ("server", &b, 2)].map(|(name, namespace, network)| {
        controller.allow_token(&format!("token-{name}"), ca.id("shop", name));
        let token = dir.path().join(name);
        std::fs::write(&token, format!("token-{name}")).unwrap();
        let proxy = namespace
            .enter(&[])
            .args([env!("CARGO_BIN_EXE_mesh-proxy"), "run", "--mode", "transparent", "--log", "debug"])
            .args(["--workload", &format!("shop/{name}")])
            .args(["--controller", &format!("10.99.{network}.1:{}", controller.address().port())])
            .args(["--trust-pin", &format!("sha256:{}", ca.root_sha256())])
            .arg("--token-file")
            .arg(token)
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
    from_outside().await;
    metrics();
}

/// What somebody without a proxy can and cannot do.
async fn from_outside() {
    let plain = ask("10.99.2.2:8080", "/plain").unwrap();
    assert!(plain.starts_with("HTTP/1.1 200"), "permissive mode: {plain}");
    assert!(!plain.contains("spiffe"), "{plain}");
    let denied = ["10.99.2.2:15006", "10.99.2.2:15001", "10.99.2.2:15000", "10.99.2.2:9999"];
    for target in denied {
        let answer = ask(target, "/config");
        assert!(answer.as_ref().is_none_or(|text| text.contains(" 502 ")), "{target}: {answer:?}");
    }
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
    let loops =
        far.lines().find(|l| l.starts_with("mesh_refused_total{") && l.contains("LOOP_DETECTED")).unwrap();
    assert!(loops.ends_with(" 3"), "{loops}");
}

fn resources(controller: &FakeController) {
    let web = ServicePort::new("shop", "web", 80);
    let workload = |name: &str, address: &str| WorkloadConfig {
        workload: WorkloadRef::new("shop", name),
        identity: controller.ca().id("shop", name),
        address: address.parse().unwrap(),
        zone: "".into(),
        inbound: Vec::new(),
        upstreams: Vec::new(),
        policy: PolicySet {
            tls_mode: TlsMode::Permissive,
            default_action: DefaultAction::Allow,
            default_source: ObjectRef::new("Namespace", "", "shop"),
            rules: Vec::new(),
        },
    };
    let (client, mut server) = (workload("client", "10.99.1.2"), workload("server", "10.99.2.2"));
    server.inbound.push(InboundPort {
        port: 8080,
        name: "http".to_owned(),
        protocol: Protocol::Http1,
        app_address: None,
        services: vec![web.clone()],
        limits: mesh_core::settings::InboundLimits::default(),
    });
    let endpoint = Endpoint {
        address: EndpointAddr("10.99.2.2:8080".parse().unwrap()),
        identity: Some(server.identity.clone()),
        workload: server.workload.clone(),
        protocol: Protocol::Http1,
        zone: "".into(),
    };
    let rule = RouteRule::new(ObjectRef::new("Service", "shop", "web"), vec![Backend::new(web.clone(), 1)]);
    let routes = ServiceRoutes::new(web.clone(), Protocol::Http1, vec![rule]);
    for config in [client, server] {
        controller.set_for(&config.workload.clone(), ResourceName::Workload, ResourceBody::Workload(config));
    }
    let at =
        |address: &str| ResourceName::Destination(DestinationKey::Addr(OrigDst(address.parse().unwrap())));
    controller.set(ResourceName::Endpoints(web), ResourceBody::Endpoints(vec![endpoint]));
    controller.set(at(SERVICE), ResourceBody::Destination(Destination::Service(routes)));
    controller.set(at("10.99.2.1:9000"), ResourceBody::Destination(Destination::Passthrough));
}

/// The applications of namespace b: one on its address, one that is meant for its own host only; one in the hub is
/// outside the mesh.
async fn server() {
    let _web = HttpApp::start("web", "10.99.2.2:8080".parse().unwrap()).await;
    let _private = HttpApp::start("private", "127.0.0.1:9999".parse().unwrap()).await;
    std::future::pending::<()>().await;
}

/// An application that knows nothing of the mesh.
fn client() {
    let answer = ask(SERVICE, "/hello").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    println!("{answer}");
    // Nobody has ever heard of it.
    assert_eq!(ask("10.96.0.99:80", "/"), None);
    // Outside the mesh, and known to be: what it sends first and what it sends back come through.
    let mut stream = TcpStream::connect("10.99.2.1:9000").unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut got = [0; 13];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"220 hi\r\nhello");
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
