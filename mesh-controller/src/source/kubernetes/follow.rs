//! Follows one kind: lists it, watches it, and lists it again when the watch breaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use kube::{
    Api, Client, Resource,
    core::{ApiResource, DynamicObject, PartialObjectMeta},
    runtime::watcher::{self, Event, watcher},
};
use mesh_core::{identity::CONTROLLER, name::ObjectRef};
use serde_json::{Map, Value, json};

use super::{
    inbox::{Inbox, Standing},
    kinds::Followed,
};
use crate::{
    kubernetes::{WATCH, told},
    source::{last_good::File, state::Observed},
};

/// Objects that are listed at a time: what the server sends of them is larger than what is kept.
const PAGE: u32 = 100;
/// A watch that stood for so long was none that fails at once.
const STOOD: Duration = Duration::from_secs(30);
/// How often in a row a kind that was there must be missing to be believed gone.
const GONE: u32 = 3;

/// How fast things are tried again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// The first pause after a failure; the next are twice as long each.
    pub(super) first: Duration,
    /// The longest pause.
    pub(super) longest: Duration,
    /// How soon a kind is looked for again that was there and is missing.
    pub(super) soon: Duration,
    /// How often it is looked whether a kind has come that was missing.
    pub(super) again: Duration,
}

/// As in a real cluster.
pub(super) const PACE: Pace = Pace {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(15),
    soon: Duration::from_secs(1),
    again: Duration::from_secs(3),
};

/// What is known of a kind.
struct Follower {
    kind: &'static Followed,
    resource: ApiResource,
    inbox: Arc<Inbox>,
    /// Places of its objects.
    known: BTreeSet<Arc<str>>,
    /// Since when the watch stands.
    since: Option<Instant>,
}

/// Follows `kind` for ever.
pub(super) async fn run(kind: &'static Followed, client: Client, inbox: Arc<Inbox>, pace: Pace) {
    let mut follower =
        Follower { kind, resource: kind.resource(), inbox, known: BTreeSet::new(), since: None };
    let (mut failures, mut missing) = (0, 0);
    loop {
        let ended = if kind.is_metadata {
            follower.follow::<PartialObjectMeta<DynamicObject>>(&client).await
        } else {
            follower.follow::<DynamicObject>(&client).await
        };
        if let Some(since) = follower.since.take() {
            // It was there just now: what it was like before does not count.
            missing = 0;
            if since.elapsed() > STOOD {
                failures = 0;
            }
        }
        let Err(error) = ended else { continue };
        if kind.is_optional && status(&error) == Some(404) {
            failures = 0;
            missing += 1;
            if follower.known.is_empty() || missing >= GONE {
                follower.clear();
            }
            let pause = if follower.known.is_empty() { pace.again } else { pace.soon };
            tokio::time::sleep(jittered(pause, fastrand::f64())).await;
        } else {
            missing = 0;
            follower.inbox.stands(kind.kind, &Standing::Broken(told(&error).into()));
            tokio::time::sleep(pace.pause(failures, fastrand::f64())).await;
            failures += 1;
        }
    }
}

impl Follower {
    /// Lists and watches until that fails.
    async fn follow<K>(&mut self, client: &Client) -> Result<(), watcher::Error>
    where
        K: Resource<DynamicType = ApiResource>
            + Clone
            + Debug
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        let api = Api::<K>::all_with(client.clone(), &self.resource);
        let mut config = watcher::Config::default().page_size(PAGE).timeout(WATCH);
        config.label_selector = self.kind.labels.map(str::to_owned);
        config.field_selector = self.kind.fields.map(str::to_owned);
        let mut events = pin!(watcher(api, config));
        let mut listed = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event? {
                Event::Init => listed.clear(),
                Event::InitApply(object) => listed.extend(self.read(&object)),
                Event::InitDone => self.replace(std::mem::take(&mut listed)),
                Event::Apply(object) => {
                    if let Some((place, file)) = self.read(&object) {
                        self.known.insert(Arc::clone(&place));
                        self.inbox.put([(place, Some(file))]);
                    }
                }
                Event::Delete(object) => {
                    let place = self.place(object.meta());
                    if self.known.remove(&place) {
                        self.inbox.put([(place, None)]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes a whole list: what is not on it is gone.
    fn replace(&mut self, listed: BTreeMap<Arc<str>, File>) {
        let before = std::mem::replace(&mut self.known, listed.keys().cloned().collect());
        let gone = before.difference(&self.known).map(|place| (Arc::clone(place), None));
        self.inbox.put(gone.chain(listed.into_iter().map(|(place, file)| (place, Some(file)))));
        self.since = Some(Instant::now());
        self.inbox.stands(self.kind.kind, &Standing::Followed);
    }

    /// The cluster does not have the kind.
    fn clear(&mut self) {
        self.inbox.put(std::mem::take(&mut self.known).into_iter().map(|place| (place, None)));
        self.inbox.stands(self.kind.kind, &Standing::Absent);
    }

    fn place(&self, metadata: &kube::core::ObjectMeta) -> Arc<str> {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        ObjectRef::new(self.kind.kind, namespace, name).to_string().into()
    }

    fn observed(&self, metadata: &kube::core::ObjectMeta) -> Observed {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        Observed {
            reference: ObjectRef::new(
                self.kind.kind,
                namespace,
                metadata.name.as_deref().unwrap_or_default(),
            ),
            resource: self.resource.clone(),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            generation: metadata.generation.unwrap_or_default(),
        }
    }

    /// Reads an object as a document of a file is read. None: it is the controller's own, which needs no identity.
    fn read<K: Resource + serde::Serialize>(&self, object: &K) -> Option<(Arc<str>, File)> {
        let metadata = object.meta();
        let place = self.place(metadata);
        let own = (metadata.namespace.as_deref(), metadata.name.as_deref());
        if self.kind.kind == "ServiceAccount" && own == (Some(CONTROLLER.0), Some(CONTROLLER.1)) {
            return None;
        }
        let mut json = match serde_json::to_value(object) {
            Ok(Value::Object(json)) => json,
            _ => Map::new(),
        };
        json.insert("apiVersion".into(), Value::from(&*self.resource.api_version));
        json.insert("kind".into(), Value::from(self.kind.kind));
        json.insert("metadata".into(), slim(metadata, self.kind.has_uid));
        let json = Value::Object(json);
        let observed = self.kind.has_status.then(|| {
            self.inbox.note(&place, &json);
            self.observed(metadata)
        });
        let file = File::of_object(&place, &json, observed);
        Some((place, file))
    }
}

/// What is read of metadata, without what others note there for themselves.
fn slim(metadata: &kube::core::ObjectMeta, has_uid: bool) -> Value {
    let mut slim = Map::new();
    let uid = metadata.uid.as_deref().filter(|_| has_uid);
    slim.extend(uid.map(|uid| ("uid".to_owned(), Value::from(uid))));
    let created = metadata.creation_timestamp.as_ref().filter(|_| has_uid);
    slim.extend(created.map(|time| ("creationTimestamp".to_owned(), json!(time))));
    slim.extend(metadata.name.as_deref().map(|name| ("name".to_owned(), Value::from(name))));
    slim.extend(metadata.namespace.as_deref().map(|name| ("namespace".to_owned(), Value::from(name))));
    slim.extend(metadata.labels.as_ref().map(|labels| ("labels".to_owned(), json!(labels))));
    let is_ours = |(key, _): &(&String, &String)| key.starts_with(mesh_k8s::labels::PREFIX);
    let ours: BTreeMap<_, _> = metadata.annotations.iter().flatten().filter(is_ours).collect();
    if !ours.is_empty() {
        slim.insert("annotations".to_owned(), json!(ours));
    }
    Value::Object(slim)
}

/// The HTTP status of a failure, if the server gave one.
fn status(error: &watcher::Error) -> Option<u16> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status.code),
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchStartFailed(_)
        | watcher::Error::WatchFailed(_)
        | watcher::Error::NoResourceVersion => None,
    }
}

impl Pace {
    /// How long to wait after so many failures in a row; `random` is from 0 to 1.
    pub(super) fn pause(self, failures: u32, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(failures.min(16)));
        jittered(doubled.min(self.longest), random)
    }
}

/// Half of it more or less, so that not all ask at once.
fn jittered(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(0.5 + random)
}
