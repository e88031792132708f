//! A small view API on a port of its own, and how `meshctl` is run against it.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use hyper_util::{rt::TokioExecutor, rt::TokioIo, service::TowerToHyperService};
use mesh_proto::view::v1::{self as pb, view_server};
use tempfile::TempDir;
use tonic::{Request, Response, Status};

/// Token of the view API.
pub(crate) const TOKEN: &str = "0123456789abcdef";

/// Version of everything here.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the view API answers.
pub(crate) trait Mesh: Send + Sync + 'static {
    fn status(&self) -> pb::GetStatusResponse;
    fn problems(&self) -> Vec<pb::Problem>;
    fn workloads(&self) -> Vec<pb::Workload>;
    fn services(&self) -> Vec<pb::Service>;
    fn edges(&self) -> Vec<pb::Edge>;
}

struct View(Arc<dyn Mesh>);

impl View {
    fn authorised<T>(&self, request: &Request<T>) -> Result<&dyn Mesh, Status> {
        match request.metadata().get("authorization") {
            Some(value) if value.as_bytes() == format!("Bearer {TOKEN}").as_bytes() => Ok(&*self.0),
            _ => Err(Status::unauthenticated("the view token is missing or wrong")),
        }
    }
}

fn in_namespace(wanted: &str, namespace: &str) -> bool {
    wanted.is_empty() || wanted == namespace
}

#[tonic::async_trait]
impl view_server::View for View {
    async fn get_status(
        &self,
        r: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        Ok(Response::new(self.authorised(&r)?.status()))
    }

    async fn list_problems(
        &self,
        r: Request<pb::ListProblemsRequest>,
    ) -> Result<Response<pb::ListProblemsResponse>, Status> {
        Ok(Response::new(pb::ListProblemsResponse { problems: self.authorised(&r)?.problems() }))
    }

    async fn list_workloads(
        &self,
        r: Request<pb::ListWorkloadsRequest>,
    ) -> Result<Response<pb::ListWorkloadsResponse>, Status> {
        let mut workloads = self.authorised(&r)?.workloads();
        let namespace = r.into_inner().namespace;
        let of = |w: &pb::Workload| w.config.clone().unwrap().workload.unwrap().namespace;
        workloads.retain(|workload| in_namespace(&namespace, &of(workload)));
        Ok(Response::new(pb::ListWorkloadsResponse { workloads }))
    }

    async fn list_services(
        &self,
        r: Request<pb::ListServicesRequest>,
    ) -> Result<Response<pb::ListServicesResponse>, Status> {
        let mut services = self.authorised(&r)?.services();
        let namespace = r.into_inner().namespace;
        let of = |s: &pb::Service| s.destination.clone().unwrap().service.unwrap().namespace;
        services.retain(|service| in_namespace(&namespace, &of(service)));
        Ok(Response::new(pb::ListServicesResponse { services }))
    }

    async fn list_edges(
        &self,
        r: Request<pb::ListEdgesRequest>,
    ) -> Result<Response<pb::ListEdgesResponse>, Status> {
        let edges = self.authorised(&r)?.edges();
        Ok(Response::new(pb::ListEdgesResponse { edges }))
    }
}

/// A running view API, and the data directory that leads to it.
pub(crate) struct Controller {
    pub(crate) address: SocketAddr,
    pub(crate) dir: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Controller {
    /// Starts one.
    pub(crate) fn start(mesh: impl Mesh) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = view_server::ViewServer::new(View(Arc::new(mesh)));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        let dir = data_dir(&address.to_string(), TOKEN);
        Self { address, dir, runtime }
    }

    /// Runs meshctl against it and compares all that it writes with what is expected.
    #[track_caller]
    pub(crate) fn check(&self, args: &[&str], code: i32, stdout: &str, stderr: &str) {
        let output = run(self.dir.path(), args);
        compare(&output, self.dir.path(), &self.address.to_string(), code, stdout, stderr);
    }

    /// Stops it; its data directory stays, as after a kill.
    pub(crate) fn kill(self) -> (SocketAddr, TempDir) {
        self.runtime.shutdown_background();
        // The port must be free again before anybody is told that nothing answers there.
        for _ in 0..200 {
            if std::net::TcpStream::connect(self.address).is_err() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        (self.address, self.dir)
    }
}

/// A data directory that says that the view API is at `view`.
pub(crate) fn data_dir(view: &str, token: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let json = format!("{{\"control\":\"127.0.0.1:1\",\"view\":\"{view}\",\"pid\":1}}");
    fs::write(dir.path().join("controller.json"), json).unwrap();
    fs::write(dir.path().join("view-token"), format!("{token}\n")).unwrap();
    dir
}

/// meshctl with an environment of its own: nothing of the machine's decides.
pub(crate) fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    command.args(args).env_clear().env("MESH_DATA_DIR", dir).stdin(Stdio::null());
    command
}

pub(crate) fn run(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// Compares, with what differs from run to run replaced: the directory by DIR, the address by ADDR, times by TIME.
#[track_caller]
pub(crate) fn compare(output: &Output, dir: &Path, address: &str, code: i32, stdout: &str, stderr: &str) {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let text = text.replace(&dir.display().to_string(), "DIR");
        without_times(if address.is_empty() { text } else { text.replace(address, "ADDR") })
    };
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let expected = |text: &str| text.strip_prefix('\n').unwrap_or(text).to_owned();
    let (wanted_out, wanted_err) = (expected(stdout), expected(stderr));
    let same = out == wanted_out && err == wanted_err && output.status.code() == Some(code);
    assert!(
        same,
        "code {:?}\n--- stdout\n{out}\n--- wanted\n{wanted_out}\n--- stderr\n{err}\n--- wanted\n{wanted_err}\n---",
        output.status.code()
    );
}

/// Replaces RFC 3339 times of the form 2026-01-01T00:00:00Z by TIME.
fn without_times(mut text: String) -> String {
    let shape = "dddd-dd-ddTdd:dd:ddZ";
    let fits = |window: &[u8]| {
        window.iter().zip(shape.bytes()).all(|(c, s)| if s == b'd' { c.is_ascii_digit() } else { *c == s })
    };
    while let Some(at) = text.as_bytes().windows(shape.len()).position(fits) {
        text.replace_range(at..at + shape.len(), "TIME");
    }
    text
}

/// A folder with a file `kubeconfig` for the API server at this address.
pub(crate) fn kubeconfig(address: SocketAddr) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         contexts:\n- {{name: here, context: {{cluster: here, user: me}}}}\n\
         clusters:\n- {{name: here, cluster: {{server: \"http://{address}\"}}}}\n\
         users:\n- {{name: me, user: {{}}}}\n"
    );
    fs::write(dir.path().join("kubeconfig"), text).unwrap();
    dir
}
