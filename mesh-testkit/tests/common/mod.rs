//! A real mesh of real processes: the controller and proxies as they are shipped, driven through their flags.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long anything may take to start or to change.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Finds a binary of the workspace beside this test's own.
pub(crate) fn binary(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("a test knows its own file");
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    let path = dir.join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    path
}

/// A child that does not outlive the test.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn spawn(mut command: Command, log: &Path) -> Self {
        let file = fs::File::create(log).expect("log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("log file"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self { child, log: log.to_owned() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(status.is_ok_and(|s| s.success()), "cannot signal {}", self.child.id());
    }

    /// Waits for the end; false: it still runs.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> bool {
        eventually(limit, async || matches!(self.child.try_wait(), Ok(Some(_)))).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log());
        }
    }
}

/// Tries until it holds; false when `limit` has passed.
pub(crate) async fn eventually(limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds().await {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One standalone mesh.
pub(crate) struct Mesh {
    dir: tempfile::TempDir,
    /// Address of the controller and of nothing else.
    ip: IpAddr,
    controller: Option<Process>,
}

impl Mesh {
    /// Starts a controller at `ip` over `yaml` and waits until it is ready.
    pub(crate) async fn start(ip: IpAddr, yaml: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(dir.path().join("source")).expect("source directory");
        let mut mesh = Self { dir, ip, controller: None };
        mesh.write("mesh.yaml", yaml);
        mesh.start_controller().await;
        mesh
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join("data").join(name)
    }

    /// Replaces a source file, as an editor does.
    pub(crate) fn write(&self, file: &str, yaml: &str) {
        let (new, old) = (self.path(&format!("{file}.new")), self.path("source").join(file));
        fs::write(&new, yaml).expect("write source");
        fs::rename(new, old).expect("replace source");
    }

    pub(crate) fn control(&self) -> SocketAddr {
        SocketAddr::new(self.ip, mesh_core::ports::CONTROL)
    }

    pub(crate) async fn start_controller(&mut self) {
        let mut command = Command::new(binary("mesh-controller"));
        command.arg("run").arg("--source").arg(self.path("source")).arg("--data-dir").arg(self.path("data"));
        for (flag, port) in [("--listen", 15010), ("--view", 15080), ("--health", 15014)] {
            command.arg(flag).arg(SocketAddr::new(self.ip, port).to_string());
        }
        let mut process = Process::spawn(command, &self.path("controller.log"));
        let health = SocketAddr::new(self.ip, 15014);
        let ready = eventually(PATIENCE, async || {
            assert!(process.is_running(), "the controller ended:\n{}", process.log());
            get(health, "localhost", "/ready").await.is_some_and(|r| r.status == StatusCode::OK)
        })
        .await;
        assert!(ready, "the controller is not ready:\n{}", process.log());
        self.controller = Some(process);
    }

    pub(crate) fn kill_controller(&mut self) {
        self.controller.take().expect("a running controller").kill();
    }

    /// A command that runs a proxy for `workload` (NAMESPACE/NAME) under `account` at `ip`.
    pub(crate) fn proxy_command(&self, workload: &str, account: &str, ip: IpAddr) -> Command {
        self.proxy_command_via(self.control(), workload, account, ip)
    }

    /// As [`Mesh::proxy_command`], with the controller at another address.
    pub(crate) fn proxy_command_via(
        &self,
        controller: SocketAddr,
        workload: &str,
        account: &str,
        ip: IpAddr,
    ) -> Command {
        let (namespace, _) = workload.split_once('/').expect("NAMESPACE/NAME");
        let mut command = Command::new(binary("mesh-proxy"));
        command.args(["run", "--mode", "explicit", "--workload", workload]);
        command.arg("--address").arg(ip.to_string());
        command.arg("--controller").arg(controller.to_string());
        command.arg("--trust-bundle").arg(self.data("trust-bundle.pem"));
        command.arg("--token-file").arg(self.data("tokens").join(namespace).join(account));
        command
    }

    /// Runs a proxy and waits until it is ready.
    pub(crate) async fn proxy(&self, workload: &str, account: &str, ip: IpAddr) -> Sidecar {
        let command = self.proxy_command(workload, account, ip);
        let mut sidecar = self.sidecar(command, workload, ip);
        sidecar.await_ready().await;
        sidecar
    }

    /// Runs a proxy without waiting.
    pub(crate) fn sidecar(&self, command: Command, workload: &str, ip: IpAddr) -> Sidecar {
        let log = self.path(&format!("{}.log", workload.replace('/', "-")));
        Sidecar { process: Process::spawn(command, &log), ip }
    }
}

/// A proxy beside a workload, in explicit mode.
pub(crate) struct Sidecar {
    pub(crate) process: Process,
    ip: IpAddr,
}

impl Sidecar {
    pub(crate) fn outbound(&self) -> SocketAddr {
        SocketAddr::new(self.ip, mesh_core::ports::OUTBOUND)
    }

    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }

    pub(crate) async fn await_ready(&mut self) {
        let health = self.at(mesh_core::ports::HEALTH);
        let mut last = String::new();
        let ready = eventually(PATIENCE, async || {
            assert!(self.process.is_running(), "the proxy ended:\n{}", self.process.log());
            let reply = get(health, "localhost", "/ready").await;
            last = reply.as_ref().map(|r| r.text()).unwrap_or_default();
            reply.is_some_and(|r| r.status == StatusCode::OK)
        })
        .await;
        assert!(ready, "not ready: {last}\n{}", self.process.log());
    }

    /// A request of the application beside this proxy.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Reply {
        get(self.outbound(), host, path).await.expect("the proxy answers")
    }

    /// Sum of all series of a metric whose labels contain every one of `labels` (as in `reason="X"`).
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let reply = get(self.at(mesh_core::ports::HEALTH), "localhost", "/metrics").await.expect("metrics");
        sum(&reply.text(), name, labels)
    }
}

/// Adds up the series of a metric in Prometheus text.
pub(crate) fn sum(text: &str, name: &str, labels: &[&str]) -> f64 {
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// An HTTP answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn reason(&self) -> &str {
        self.headers.get(mesh_core::reason::REASON_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// One GET over a connection of its own; None when there is no complete answer.
pub(crate) async fn get(address: SocketAddr, host: &str, path: &str) -> Option<Reply> {
    let request = Request::get(path).header("host", host).body(Empty::<Bytes>::new()).expect("a request");
    let exchange = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.ok()?;
        let (head, body) = response.into_parts();
        Some(Reply {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.ok()?.to_bytes(),
        })
    };
    tokio::time::timeout(PATIENCE, exchange).await.ok().flatten()
}
