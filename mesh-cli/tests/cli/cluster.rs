//! A small API server of Kubernetes on a port of its own, with canned objects: plain HTTP, as a kubeconfig may name it.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    process::Output,
    sync::{Arc, Mutex},
};

use base64::Engine as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::{
    forward::{self, Ports},
    shop::Shop,
    support::{Controller, TOKEN, command, kubeconfig},
};

/// Objects by the path of their collection, as in `/api/v1/pods`; all that is not there is answered with 404.
pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) address: std::net::SocketAddr,
    /// Method and path of what was asked.
    asked: Arc<Mutex<Vec<String>>>,
    ports: Ports,
    runtime: tokio::runtime::Runtime,
    /// What its controller's pod leads to.
    _controller: Option<Controller>,
}

/// What is answered, what was asked, and where ports of pods lead.
struct Server {
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
    ports: Ports,
}

/// What is answered: status code and JSON or text.
type Answers = BTreeMap<String, (u16, String)>;

/// A list with these objects.
fn list(items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
        .to_string()
}

impl Cluster {
    /// Starts one. Objects are found in their collections in all namespaces, in that of their own, and by name; `answers`
    /// adds others.
    pub(crate) fn start(objects: &[(&str, &str, Value)], answers: &[(&str, u16, Value)]) -> Self {
        let mut all: Answers = BTreeMap::new();
        let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (group, plural, object) in objects {
            let namespace = object["metadata"]["namespace"].as_str();
            let within = namespace.map(|ns| format!("{group}/namespaces/{ns}/{plural}"));
            let whole = format!("{group}/{plural}");
            let own = format!(
                "{}/{}",
                within.as_ref().unwrap_or(&whole),
                object["metadata"]["name"].as_str().unwrap()
            );
            all.insert(own, (200, object.to_string()));
            for path in within.into_iter().chain([whole]) {
                lists.entry(path).or_default().push(object.clone());
            }
        }
        all.extend(lists.into_iter().map(|(path, items)| (path, (200, list(&items)))));
        let version = json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        all.insert("/version".into(), (200, version.to_string()));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        all.extend(answers.iter().map(|(path, code, answer)| ((*path).to_owned(), (*code, text(answer)))));
        Self::serve(all)
    }

    /// Starts one that has a mesh, which says what the shop says, and these objects beside.
    pub(crate) fn in_mesh(objects: &[(&str, &str, Value)], answers: &[(&str, u16, Value)]) -> Self {
        Self::with_shop(Shop::healthy(), objects, answers)
    }

    /// As [`Self::in_mesh`], with another shop.
    pub(crate) fn with_shop(
        shop: Shop,
        objects: &[(&str, &str, Value)],
        answers: &[(&str, u16, Value)],
    ) -> Self {
        let labels =
            json!({"app.kubernetes.io/name": "mesh-controller", "app.kubernetes.io/part-of": "mesh"});
        let metadata =
            |name: &str| json!({"namespace": "mesh-system", "name": name, "labels": labels, "uid": "1"});
        let token = base64::engine::general_purpose::STANDARD.encode(TOKEN);
        let mesh = [
            (
                "/api/v1",
                "pods",
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata("mesh-controller-1"),
                "spec": {"containers": [{"name": "controller", "image": "i"}]},
                "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
            ),
            (
                "/api/v1",
                "secrets",
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata("mesh-view-token"),
                "data": {"token": token}}),
            ),
            (
                "/apis/apps/v1",
                "deployments",
                json!({"apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": metadata("mesh-controller"), "spec": {"replicas": 1}, "status": {"readyReplicas": 1}}),
            ),
        ];
        let all: Vec<_> = mesh.into_iter().chain(objects.iter().cloned()).collect();
        let controller = Controller::start(shop);
        let cluster = Self::start(&all, answers);
        cluster.lead("mesh-system/mesh-controller-1:15080", controller.address);
        Self { _controller: Some(controller), ..cluster }
    }

    fn serve(answers: Answers) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let server = Arc::new(Server { answers, asked: Arc::default(), ports: Ports::default() });
        let (asked, ports) = (Arc::clone(&server.asked), Arc::clone(&server.ports));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = Arc::clone(&server);
                let service = service_fn(move |request| answer(Arc::clone(&server), request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move {
                    let _ended =
                        connection.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        let dir = kubeconfig(address);
        Self { dir, address, asked, ports, runtime, _controller: None }
    }

    /// Leads a pod's port, as in `shop/cart-1:15000`, to a socket.
    pub(crate) fn lead(&self, port: &str, to: std::net::SocketAddr) {
        self.ports.lock().unwrap().insert(port.to_owned(), to);
    }

    /// Gives a pod a proxy whose admin answers with JSON by path.
    pub(crate) fn proxy(&self, pod: &str, answers: &[(&str, Value)]) {
        let address = self.runtime.block_on(forward::admin(answers));
        self.lead(&format!("{pod}:15000"), address);
    }

    /// Runs meshctl against it.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let kubeconfig = self.dir.path().join("kubeconfig");
        command(self.dir.path(), args).arg("--kubeconfig").arg(kubeconfig).output().unwrap()
    }

    /// What was asked, as `GET /path`.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    server: Arc<Server>,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    server.asked.lock().unwrap().push(format!("{} {path}", request.method()));
    if let Some(response) = forward::answer(&server.ports, &mut request) {
        return Ok(response);
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let _body = request.into_body().collect().await;
    let answers = &server.answers;
    // Some answers are for one query only.
    let (code, text) = answers.get(&format!("{path}?{query}")).or_else(|| answers.get(&path)).cloned().unwrap_or_else(|| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
            "code": 404, "message": format!("{path} is not there"), "metadata": {}, "details": {}});
        (404, status.to_string())
    });
    let answer = Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(text)));
    Ok(answer.unwrap())
}
