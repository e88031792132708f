//! A small API server for tests: lists and watches by plural, and objects that are created, replaced and applied.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use kube::{Client, client::Body};
use mesh_testkit::net::{PATIENCE, eventually};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

/// Most events that wait in one watch.
const EVENTS: usize = 64;

type Answer = BoxBody<Bytes, Infallible>;

/// The server.
#[derive(Default)]
pub(crate) struct Fake {
    kinds: Mutex<HashMap<String, Kind>>,
    /// How many requests changed something, or would have.
    writes: AtomicUsize,
    /// What is answered about tokens.
    review: Mutex<Value>,
}

#[derive(Default)]
struct Kind {
    objects: BTreeMap<String, Value>,
    /// What is answered in place of lists and watches.
    failure: Option<u16>,
    /// After how many more times that ends; None: it does not by itself.
    failures_left: Option<usize>,
    /// How often that was answered since it began.
    failed: usize,
    watches: Vec<mpsc::Sender<Bytes>>,
    /// Requests that changed something.
    writes: u64,
    /// All events so far; their numbers are the versions.
    history: Vec<Bytes>,
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let fake = Arc::clone(self);
        let answer = move |request: Request<Body>| {
            let fake = Arc::clone(&fake);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap_or_default();
                Ok::<_, Infallible>(fake.answer(&head, &body))
            }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    /// Adds or changes an object.
    pub(crate) fn put(&self, plural: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.with(plural, |kind| {
            let known = kind.objects.insert(name, object.clone()).is_some();
            kind.tell(if known { "MODIFIED" } else { "ADDED" }, object);
        });
    }

    pub(crate) fn remove(&self, plural: &str, name: &str) {
        self.with(plural, |kind| {
            let object = kind.objects.remove(name).unwrap();
            kind.tell("DELETED", object);
        });
    }

    /// Lists and watches that are asked for from now on fail.
    pub(crate) fn fail(&self, plural: &str, status: Option<u16>) {
        self.with(plural, |kind| (kind.failure, kind.failures_left, kind.failed) = (status, None, 0));
    }

    /// So many fail.
    pub(crate) fn fail_times(&self, plural: &str, status: u16, times: usize) {
        self.with(plural, |kind| {
            (kind.failure, kind.failures_left, kind.failed) = (Some(status), Some(times), 0);
        });
    }

    /// Waits until so many have failed.
    pub(crate) async fn failed(&self, plural: &str, times: usize) {
        let failed = || async { self.with(plural, |kind| (kind.failed >= times).then_some(())) };
        eventually(PATIENCE, "so many failures", failed).await;
    }

    /// Ends the watches that stand, with an error if one is given.
    pub(crate) fn end_watches(&self, plural: &str, status: Option<u16>) {
        self.with(plural, |kind| {
            if let Some(status) = status {
                kind.send(&json!({"type": "ERROR", "object": failure(status)}));
            }
            kind.watches.clear();
        });
    }

    fn with<T>(&self, plural: &str, work: impl FnOnce(&mut Kind) -> T) -> T {
        work(self.kinds.lock().unwrap().entry(plural.to_owned()).or_default())
    }

    /// What TokenReviews are answered with.
    pub(crate) fn review(&self, status: Value) {
        *self.review.lock().unwrap() = status;
    }

    /// An object as it is now; null: there is none.
    pub(crate) fn object(&self, plural: &str, name: &str) -> Value {
        self.with(plural, |kind| kind.objects.get(name).cloned().unwrap_or_default())
    }

    /// How many versions of objects of a kind there were.
    pub(crate) fn versions(&self, plural: &str) -> usize {
        self.with(plural, |kind| kind.history.len())
    }

    /// How many requests changed something, or would have.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Relaxed)
    }

    fn answer(&self, request: &Parts, body: &[u8]) -> Response<Answer> {
        let Target { plural, name, part } = Target::of(request.uri.path());
        if request.method != Method::GET {
            self.writes.fetch_add(1, Relaxed);
        }
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let review = (plural == "tokenreviews").then(|| self.review.lock().unwrap().clone());
        let is_watch = request.uri.query().unwrap_or_default().contains("watch=true");
        self.with(plural, |kind| match kind.fails() {
            Some(status) => reply(status, &failure(status)),
            None if review.is_some() => reply(201, &json!({"spec": sent["spec"], "status": review})),
            None if part == Some("status") => kind.write_status(name.unwrap_or_default(), &sent),
            None if request.method != Method::GET => kind.write(&request.method, name, sent),
            None if name.is_some() => match kind.objects.get(name.unwrap_or_default()) {
                Some(object) => reply(200, object),
                None => reply(404, &failure(404)),
            },
            None if is_watch => {
                let (send, events) = mpsc::channel(EVENTS);
                let mut pairs = request.uri.query().into_iter().flat_map(|query| query.split('&'));
                let since = pairs.find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap();
                for missed in kind.history.iter().skip(since.parse().unwrap()) {
                    send.try_send(missed.clone()).unwrap();
                }
                kind.watches.push(send);
                let frames = ReceiverStream::new(events).map(|line| Ok(Frame::data(line)));
                Response::new(BodyExt::boxed(StreamBody::new(frames)))
            }
            None => {
                let items: Vec<&Value> = kind.objects.values().collect();
                let version = kind.history.len().to_string();
                reply(200, &json!({"metadata": {"resourceVersion": version}, "items": items}))
            }
        })
    }
}

/// What a path names.
struct Target<'a> {
    plural: &'a str,
    name: Option<&'a str>,
    /// A subresource.
    part: Option<&'a str>,
}

impl<'a> Target<'a> {
    fn of(path: &'a str) -> Self {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let parts = &parts[if parts[0] == "api" { 2 } else { 3 }..];
        let parts = if parts[0] == "namespaces" && parts.len() > 2 { &parts[2..] } else { parts };
        Self { plural: parts[0], name: parts.get(1).copied(), part: parts.get(2).copied() }
    }
}

impl Kind {
    /// What is answered to this request in place of what was asked for.
    fn fails(&mut self) -> Option<u16> {
        let failure = self.failure?;
        self.failed += 1;
        if let Some(left) = &mut self.failures_left {
            *left -= 1;
            if *left == 0 {
                (self.failure, self.failures_left) = (None, None);
            }
        }
        Some(failure)
    }

    /// Creates (POST), replaces (PUT, only the version that is there) or applies (PATCH).
    fn write(&mut self, method: &Method, name: Option<&str>, mut object: Value) -> Response<Answer> {
        let name = name.or_else(|| object["metadata"]["name"].as_str()).unwrap().to_owned();
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        let known = self.objects.get(&name);
        match (method.as_str(), known) {
            ("POST", Some(_)) => return reply(409, &failure(409)),
            ("PUT", None) => return reply(404, &failure(404)),
            ("PUT", Some(known)) if version(known) != version(&object) => return reply(409, &failure(409)),
            ("POST", None) | ("PUT" | "PATCH", _) => {}
            (other, _) => panic!("{other} is not served"),
        }
        self.writes += 1;
        object["metadata"]["resourceVersion"] = json!(format!("w{}", self.writes));
        self.objects.insert(name, object.clone());
        reply(200, &object)
    }

    /// Applies a status, and tells those who watch.
    fn write_status(&mut self, name: &str, sent: &Value) -> Response<Answer> {
        let Some(known) = self.objects.get_mut(name) else { return reply(404, &failure(404)) };
        if known["metadata"]["uid"] != sent["metadata"]["uid"] {
            return reply(409, &failure(409));
        }
        known["status"] = sent["status"].clone();
        let object = known.clone();
        self.tell("MODIFIED", object.clone());
        reply(200, &object)
    }

    fn tell(&mut self, event: &str, mut object: Value) {
        object["metadata"]["resourceVersion"] = json!((self.history.len() + 1).to_string());
        let event = json!({"type": event, "object": object});
        self.history.push(Bytes::from(format!("{event}\n")));
        self.send(&event);
    }

    fn send(&mut self, event: &Value) {
        let line = Bytes::from(format!("{event}\n"));
        self.watches.retain(|watch| watch.try_send(line.clone()).is_ok());
    }
}

fn failure(status: u16) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("fails with {status}"), "reason": if status == 404 { "NotFound" } else { "Test" }, "code": status})
}

fn reply(status: u16, body: &Value) -> Response<Answer> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
