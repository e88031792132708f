//! A small API server: lists and watches, by plural.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

/// Most events that wait in one watch.
const EVENTS: usize = 64;

type Answer = BoxBody<Bytes, Infallible>;

/// The server.
#[derive(Default)]
pub(super) struct Fake {
    kinds: Mutex<HashMap<String, Kind>>,
}

#[derive(Default)]
struct Kind {
    objects: BTreeMap<String, Value>,
    /// What is answered in place of lists and watches.
    failure: Option<u16>,
    watches: Vec<mpsc::Sender<Bytes>>,
    /// All events so far; their numbers are the versions.
    history: Vec<Bytes>,
}

impl Fake {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(super) fn client(self: &Arc<Self>) -> Client {
        let fake = Arc::clone(self);
        let answer = move |request: Request<Body>| {
            let answer = fake.answer(&request);
            async move { Ok::<_, Infallible>(answer) }
        };
        Client::new(tower::service_fn(answer), "default")
    }

    /// Adds or changes an object.
    pub(super) fn put(&self, plural: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.with(plural, |kind| {
            let known = kind.objects.insert(name, object.clone()).is_some();
            kind.tell(if known { "MODIFIED" } else { "ADDED" }, object);
        });
    }

    pub(super) fn remove(&self, plural: &str, name: &str) {
        self.with(plural, |kind| {
            let object = kind.objects.remove(name).unwrap();
            kind.tell("DELETED", object);
        });
    }

    /// Lists and watches that are asked for from now on fail.
    pub(super) fn fail(&self, plural: &str, status: Option<u16>) {
        self.with(plural, |kind| kind.failure = status);
    }

    /// Ends the watches that stand, with an error if one is given.
    pub(super) fn end_watches(&self, plural: &str, status: Option<u16>) {
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

    fn answer(&self, request: &Request<Body>) -> Response<Answer> {
        let plural = request.uri().path().rsplit('/').next().unwrap();
        let is_watch = request.uri().query().unwrap_or_default().contains("watch=true");
        self.with(plural, |kind| match kind.failure {
            Some(status) => reply(status, &failure(status)),
            None if is_watch => {
                let (send, events) = mpsc::channel(EVENTS);
                let mut pairs = request.uri().query().into_iter().flat_map(|query| query.split('&'));
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

impl Kind {
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
        "message": format!("fails with {status}"), "reason": "Test", "code": status})
}

fn reply(status: u16, body: &Value) -> Response<Answer> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}
