//! A small API server of Kubernetes that keeps what is applied, and whose controllers are at work at once: Deployments and
//! DaemonSets are ready as soon as they are there, unless a test says how they stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    process::Output,
    sync::{Arc, Mutex, MutexGuard},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, body::Bytes, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::support::{command, kubeconfig};

/// What it holds, by the path of each object.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Value>,
    /// What changed something, as in `PATCH /api/v1/namespaces/a/configmaps/b`, in its order.
    pub(crate) changes: Vec<String>,
    /// Status of objects, as a test has set it.
    held: BTreeMap<String, Value>,
    faults: Vec<Fault>,
    /// What must not be done, as in `delete daemonsets`.
    pub(crate) denied: BTreeSet<String>,
    /// What comes of deleting an object: another one goes, or is as that.
    after_delete: BTreeMap<String, (String, Option<Value>)>,
    /// What is there after a change that ended so.
    after_patch: BTreeMap<String, (String, Value)>,
    /// What an object is after it was read so many times.
    after_reads: BTreeMap<String, (usize, Value)>,
}

/// What is answered instead: a status code, so often, to what begins so (`METHOD PATH`), once a change has ended so.
struct Fault {
    after: String,
    start: String,
    code: u16,
    times: usize,
}

/// The server, and a kubeconfig that leads to it.
pub(crate) struct Living {
    dir: tempfile::TempDir,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

/// A path without its name.
struct Place {
    group: String,
    namespace: Option<String>,
    plural: String,
    name: Option<String>,
}

impl Living {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let serving = Arc::clone(&state);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&serving);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        let dir = kubeconfig(address);
        Self { dir, state, _runtime: runtime }
    }

    /// One that has the mesh, with its keys; what was done for that is forgotten.
    #[track_caller]
    pub(crate) fn with_mesh(args: &[&str]) -> Self {
        let cluster = Self::start();
        cluster.check(&[&["install"], args].concat(), 0, &["is ready"]);
        let keys = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mesh-ca"}});
        cluster.put("/api/v1/namespaces/mesh-system/secrets/mesh-ca", keys);
        cluster.state().changes.clear();
        cluster
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Puts an object there as it is; its status stays.
    pub(crate) fn put(&self, path: &str, object: Value) {
        let mut state = self.state();
        state.held.insert(path.to_owned(), object["status"].clone());
        state.objects.insert(path.to_owned(), object);
    }

    /// What it holds.
    #[track_caller]
    pub(crate) fn object(&self, path: &str) -> Value {
        let found = self.state().objects.get(path).cloned();
        assert!(found.is_some(), "there is no {path}");
        found.unwrap()
    }

    /// Lets a status be what it is set to, whatever is applied.
    pub(crate) fn hold(&self, path: &str, status: Value) {
        let mut state = self.state();
        if let Some(object) = state.objects.get_mut(path) {
            object["status"] = status.clone();
        }
        state.held.insert(path.to_owned(), status);
    }

    /// When one object is deleted, another goes, or is as that.
    pub(crate) fn after_delete(&self, path: &str, other: &str, becomes: Option<Value>) {
        self.state().after_delete.insert(path.to_owned(), (other.to_owned(), becomes));
    }

    /// When something that ends so is applied, another object is there.
    pub(crate) fn after_patch(&self, end: &str, other: &str, becomes: Value) {
        self.state().after_patch.insert(end.to_owned(), (other.to_owned(), becomes));
    }

    /// After it was read so many times, an object is as that.
    pub(crate) fn after_reads(&self, path: &str, times: usize, becomes: Value) {
        self.state().after_reads.insert(path.to_owned(), (times, becomes));
    }

    /// Answers so, as often, to what begins so, once a change has ended so.
    pub(crate) fn fail(&self, after: &str, start: &str, code: u16, times: usize) {
        let (after, start) = (after.to_owned(), start.to_owned());
        self.state().faults.push(Fault { after, start, code, times });
    }

    /// True if there is one.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.state().objects.contains_key(path)
    }

    /// Which place of what was changed begins so, and ends so.
    #[track_caller]
    pub(crate) fn turn(&self, method: &str, end: &str) -> usize {
        let state = self.state();
        let found = state.changes.iter().position(|told| told.starts_with(method) && told.ends_with(end));
        assert!(found.is_some(), "{method} {end}: {:#?}", state.changes);
        found.unwrap()
    }

    /// Runs meshctl against it.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let kubeconfig = self.dir.path().join("kubeconfig");
        command(self.dir.path(), args).arg("--kubeconfig").arg(kubeconfig).output().unwrap()
    }

    /// Runs meshctl against it: its exit code is that, and it says these. Gives all that it says.
    #[track_caller]
    pub(crate) fn check(&self, args: &[&str], code: i32, parts: &[&str]) -> String {
        let output = self.run(args);
        let told = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert_eq!(output.status.code(), Some(code), "{told}");
        for part in parts {
            assert!(told.contains(part), "{part:?} is not said:\n{told}");
        }
        told
    }
}

impl Place {
    fn of(path: &str) -> Option<Self> {
        let mut parts = path.trim_start_matches('/').split('/').map(ToOwned::to_owned);
        let first = parts.next()?;
        let group = match first.as_str() {
            "api" => format!("/api/{}", parts.next()?),
            "apis" => format!("/apis/{}/{}", parts.next()?, parts.next()?),
            _ => return None,
        };
        let rest: Vec<String> = parts.collect();
        Some(match rest.as_slice() {
            [plural] => Self { group, namespace: None, plural: plural.clone(), name: None },
            [plural, name] => {
                Self { group, namespace: None, plural: plural.clone(), name: Some(name.clone()) }
            }
            [_, namespace, plural, name @ ..] => Self {
                group,
                namespace: Some(namespace.clone()),
                plural: plural.clone(),
                name: name.first().cloned(),
            },
            [] => return None,
        })
    }

    fn holds(&self, path: &str) -> bool {
        Self::of(path).is_some_and(|other| {
            let same = self.group == other.group && self.plural == other.plural;
            same && other.name.is_some() && (self.namespace.is_none() || self.namespace == other.namespace)
        })
    }
}

impl State {
    fn failing(&mut self, what: &str) -> Option<u16> {
        let changes = &self.changes;
        let fault = self.faults.iter_mut().find(|fault| {
            let is_on = fault.after.is_empty() || changes.iter().any(|change| change.ends_with(&fault.after));
            is_on && fault.times > 0 && what.starts_with(&fault.start)
        })?;
        fault.times -= 1;
        Some(fault.code)
    }

    fn list(&self, place: &Place, query: &str) -> Value {
        let selector = query.split('&').find_map(|part| part.strip_prefix("labelSelector="));
        let selector =
            selector.unwrap_or_default().replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
        let fits = |object: &Value| {
            selector
                .split(',')
                .filter_map(|part| part.split_once('='))
                .all(|(name, value)| object["metadata"]["labels"][name] == value)
        };
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, object)| place.holds(path) && fits(object))
            .map(|(_, object)| object)
            .collect();
        json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
    }

    fn apply(&mut self, path: &str, mut object: Value, dry_run: bool) -> Value {
        let before = self.objects.get(path).cloned().unwrap_or_default();
        let generation = before["metadata"]["generation"].as_i64().unwrap_or(0);
        let is_new = before["spec"] != object["spec"];
        object["metadata"]["generation"] = json!(generation + i64::from(is_new));
        // What others have noted stays.
        for (name, value) in before["metadata"]["annotations"].as_object().into_iter().flatten() {
            object["metadata"]["annotations"][name] = value.clone();
        }
        match self.held.get(path) {
            Some(status) => object["status"] = status.clone(),
            None => settle(&mut object),
        }
        if !dry_run {
            self.objects.insert(path.to_owned(), object.clone());
            self.changes.push(format!("PATCH {path}"));
            let found = self.after_patch.iter().find(|(end, _)| path.ends_with(end.as_str()));
            if let Some((_, (other, becomes))) = found {
                self.objects.insert(other.clone(), becomes.clone());
            }
        }
        object
    }

    fn delete(&mut self, path: &str) -> bool {
        let was_there = self.objects.remove(path).is_some();
        if was_there {
            self.changes.push(format!("DELETE {path}"));
        }
        match self.after_delete.get(path).cloned() {
            Some((other, Some(object))) => drop(self.objects.insert(other, object)),
            Some((other, None)) => drop(self.objects.remove(&other)),
            None => {}
        }
        was_there
    }

    fn read(&mut self, path: &str) -> Option<Value> {
        if let Some((times, object)) = self.after_reads.get_mut(path) {
            *times = times.saturating_sub(1);
            if *times == 0 {
                let object = object.clone();
                self.objects.insert(path.to_owned(), object);
            }
        }
        self.objects.get(path).cloned()
    }
}

/// What the cluster's and the mesh's controllers make of an object.
fn settle(object: &mut Value) {
    let generation = object["metadata"]["generation"].clone();
    match object["kind"].as_str().unwrap() {
        "CustomResourceDefinition" => {
            object["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        }
        "Deployment" => {
            let count = object["spec"]["replicas"].clone();
            object["status"] = json!({"observedGeneration": generation, "replicas": count,
                "updatedReplicas": count, "availableReplicas": count, "readyReplicas": count});
        }
        "DaemonSet" => {
            object["status"] = json!({"observedGeneration": generation, "desiredNumberScheduled": 2,
                "updatedNumberScheduled": 2, "numberReady": 2, "currentNumberScheduled": 2});
        }
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            for hook in object["webhooks"].as_array_mut().unwrap() {
                hook["clientConfig"]["caBundle"] = json!("cm9vdA==");
            }
        }
        _ => {}
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    let (code, answer) = respond(&mut state.lock().unwrap(), &parts.method, path, query, body);
    let answer = Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(answer.to_string())));
    Ok(answer.unwrap())
}

fn respond(state: &mut State, method: &Method, path: &str, query: &str, body: Value) -> (u16, Value) {
    let status = |code: u16, message: &str| {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "",
            "code": code, "message": message, "metadata": {}, "details": {}});
        (code, status)
    };
    if let Some(code) = state.failing(&format!("{method} {path}")) {
        return status(code, "it is out of order");
    }
    if path == "/version" {
        let version = json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "",
            "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        return (200, version);
    }
    if path.ends_with("/selfsubjectaccessreviews") {
        let mut review = body;
        let asked = &review["spec"]["resourceAttributes"];
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let is_allowed = !state.denied.contains(&format!("{} {}", text("verb"), text("resource")));
        review["status"] = json!({"allowed": is_allowed});
        return (201, review);
    }
    let Some(place) = Place::of(path) else { return status(404, "there is no such path") };
    let absent = || status(404, &format!("{path} is not there"));
    match *method {
        Method::GET if place.name.is_none() => (200, state.list(&place, query)),
        Method::GET => state.read(path).map_or_else(absent, |object| (200, object)),
        Method::PATCH => (200, state.apply(path, body, query.contains("dryRun"))),
        Method::DELETE if state.delete(path) => {
            (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {}}))
        }
        _ => absent(),
    }
}
