//! A client and a server, each with a sidecar that has an admin socket.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use http::StatusCode;
use mesh_testkit::{
    app::{HttpApp, TcpApp},
    net::fresh_ip,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::common::{Mesh, PATIENCE, Sidecar, binary, eventually, get};

/// Where the client's application finds the server's bytes.
pub(crate) const UPSTREAM: u16 = 17_000;

pub(crate) struct Stage {
    pub(crate) mesh: Mesh,
    pub(crate) client: Sidecar,
    pub(crate) server: Sidecar,
    pub(crate) web: HttpApp,
    pub(crate) bytes: TcpApp,
}

impl Stage {
    /// Starts both sides; returns when a call from end to end was answered.
    pub(crate) async fn start() -> Self {
        let (client_ip, server_ip) = (fresh_ip(), fresh_ip());
        let web = HttpApp::start("catalog", (server_ip, 9080).into()).await;
        let bytes = TcpApp::start((server_ip, 9081).into()).await;
        let yaml = include_str!("../data/life.yaml")
            .replace("CLIENT", &client_ip.to_string())
            .replace("SERVER", &server_ip.to_string());
        let mesh = Mesh::start(fresh_ip(), &yaml).await;
        let mut sides = Vec::new();
        for (name, ip) in [("client", client_ip), ("catalog", server_ip)] {
            let workload = format!("test/{name}");
            let mut command = mesh.proxy_command(&workload, name, ip);
            command.arg("--admin-socket").arg(mesh.path(&format!("{name}.sock")));
            let mut sidecar = mesh.sidecar(command, &workload, ip);
            sidecar.await_ready().await;
            sides.push(sidecar);
        }
        let (server, client) = (sides.pop().expect("two"), sides.pop().expect("two"));
        let answers =
            eventually(PATIENCE, async || client.get("catalog", "/").await.status == StatusCode::OK).await;
        assert!(answers, "{:?}", client.get("catalog", "/").await);
        Self { mesh, client, server, web, bytes }
    }

    /// The admin socket of the sidecar beside `client` or `catalog`.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.mesh.path(&format!("{name}.sock"))
    }

    /// Runs a command of the proxy's binary against the sidecar beside `name`.
    pub(crate) async fn tell(&self, name: &str, command: &str) -> Output {
        let mut process = tokio::process::Command::new(binary("mesh-proxy"));
        process.arg(command).arg("--admin-socket").arg(self.socket(name));
        process.stdin(Stdio::null()).output().await.expect("mesh-proxy")
    }

    /// A connection of the client's application to the server's bytes.
    pub(crate) async fn bytes(&self) -> TcpStream {
        TcpStream::connect(self.client.at(UPSTREAM)).await.expect("the upstream's listener stands")
    }
}

/// Sends bytes and waits until they have come back; false: the connection is broken.
pub(crate) async fn echoes(stream: &mut TcpStream) -> bool {
    let mut echoed = [0; 5];
    stream.write_all(b"hello").await.is_ok()
        && stream.read_exact(&mut echoed).await.is_ok()
        && &echoed == b"hello"
}

/// Whether a proxy says that it is ready.
pub(crate) async fn is_ready(sidecar: &Sidecar) -> bool {
    let health: SocketAddr = sidecar.at(mesh_core::ports::HEALTH);
    get(health, "localhost", "/ready").await.is_some_and(|reply| reply.status == StatusCode::OK)
}

/// `kill -SIGNAL`.
pub(crate) fn signal(sidecar: &Sidecar, signal: &str) {
    signal_to(sidecar.process.pid(), signal);
}

/// `kill -SIGNAL PID`.
pub(crate) fn signal_to(pid: u32, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "cannot signal");
}
