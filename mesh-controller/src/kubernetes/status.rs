//! Status conditions: what `kubectl get` and `kubectl describe` say of an object of the mesh. The leader looks every two
//! seconds at what is in force and what proxies have, and writes where an object says something else.
//!
//! *Invariant:* an object is written at most once in [`TICK`], and only if what is said of it has changed in substance; one
//! that takes no writes, or forgets them, is left alone for a while, and keeps no other one waiting.

mod conditions;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt as _;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::{DynamicObject, ObjectMeta},
};
use mesh_k8s::Problem;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{sync::watch, time::MissedTickBehavior};

use self::conditions::Condition;
use super::{ClusterError, MANAGER, ask};
use crate::{
    publish::{Proxies, Snapshot, Standing},
    source::Observed,
};

/// How often it is looked whether anything has changed.
const TICK: Duration = Duration::from_secs(2);
/// How often it is looked though nothing has: for counts, and for what was left alone.
const ANYWAY: Duration = Duration::from_secs(30);
/// How long an object is left alone after a write that failed, the first time; then twice as long each time.
const PAUSE: Duration = Duration::from_secs(30);
/// And how long at most, or if its kind has no status, or does not keep what is written there.
const LONG_PAUSE: Duration = Duration::from_secs(600);
/// Most writes in one [`TICK`], and at a time.
const MAX_WRITES: usize = 100;
const MAX_AT_ONCE: usize = 8;

/// The conditions that objects have, as the watches of the source show them; by place.
#[derive(Debug, Default)]
pub(crate) struct Noted(Mutex<Notes>);

#[derive(Debug, Default)]
struct Notes {
    all: BTreeMap<Arc<str>, Vec<Condition>>,
    /// How often they have changed.
    changes: u64,
}

impl Noted {
    /// Notes what an object says.
    pub(crate) fn put(&self, place: &Arc<str>, object: &Value) {
        let conditions = conditions::noted(object);
        let mut notes = self.lock();
        if notes.all.get(place) != Some(&conditions) {
            notes.all.insert(Arc::clone(place), conditions);
            notes.changes += 1;
        }
    }

    /// Forgets an object.
    pub(crate) fn remove(&self, place: &str) {
        self.lock().all.remove(place);
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        // Notes that somebody panicked over are still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes conditions.
pub(super) struct Statuses {
    client: Client,
    noted: Arc<Noted>,
    /// When this replica began to lead: who wrote before then is not known.
    since: Instant,
    /// What was written last to each object, by uid.
    written: HashMap<Arc<str>, Write>,
    /// The place that was written last: the next ones come first, so that each has its turn.
    last: Arc<str>,
}

/// What became of a write.
struct Write {
    at: Instant,
    /// How long it is not repeated.
    pause: Duration,
    /// None: it failed.
    conditions: Option<[Condition; 2]>,
}

/// A write that is due.
struct Due {
    place: Arc<str>,
    observed: Arc<Observed>,
    conditions: [Condition; 2],
}

/// All that conditions are made from.
#[derive(PartialEq)]
struct Seen {
    /// Which snapshot: there is another one for each change.
    at: Instant,
    proxies: Vec<u64>,
    noted: u64,
}

impl Statuses {
    pub(super) fn new(client: Client, noted: Arc<Noted>) -> Self {
        Self { client, noted, since: Instant::now(), written: HashMap::new(), last: "".into() }
    }

    /// Keeps them true, for as long as this replica leads.
    pub(super) async fn keep(mut self, snapshots: watch::Receiver<Arc<Snapshot>>, proxies: Arc<Proxies>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut done: Option<(Seen, Instant)> = None;
        while snapshots.has_changed().is_ok() {
            ticks.tick().await;
            let snapshot = Arc::clone(&snapshots.borrow());
            let (proxies, noted) = (proxies.generations(), self.noted.lock().changes);
            let seen = Seen { at: snapshot.at, proxies, noted };
            if done.as_ref().is_some_and(|(old, at)| *old == seen && at.elapsed() < ANYWAY) {
                continue;
            }
            let due = self.due(&snapshot.standings, &snapshot.problems, &seen.proxies);
            done = due.is_empty().then(|| (seen, Instant::now()));
            self.write(due).await;
        }
    }

    async fn write(&mut self, due: Vec<Due>) {
        self.written.retain(|_, write| write.at.elapsed() < LONG_PAUSE * 2);
        let writes = due.into_iter().map(|due| {
            let client = self.client.clone();
            async move {
                let outcome = write(client, &due).await;
                (due, outcome)
            }
        });
        let mut writes = futures_util::stream::iter(writes).buffered(MAX_AT_ONCE);
        let mut failures = Vec::new();
        while let Some((due, outcome)) = writes.next().await {
            let uid = Arc::clone(&due.observed.uid);
            let failed = self.written.get(&uid).filter(|last| last.conditions.is_none());
            let pause = match &outcome {
                Err(error) if error.code() != Some(404) => {
                    failed.map_or(PAUSE, |last| (last.pause * 2).min(LONG_PAUSE))
                }
                Ok(()) | Err(_) => LONG_PAUSE,
            };
            let conditions = outcome.is_ok().then_some(due.conditions);
            self.written.insert(uid, Write { at: Instant::now(), pause, conditions });
            self.last = due.place;
            // What is gone, is another by now, or has no status is nothing wrong.
            failures.extend(outcome.err().filter(|error| !matches!(error.code(), Some(404 | 409))));
            if failures.iter().filter(|error| error.is_away()).count() >= MAX_AT_ONCE {
                // There is no use in asking for all of them now.
                break;
            }
        }
        if let Some(error) = failures.first() {
            tracing::warn!(%error, failures = failures.len(), "conditions of objects are not written");
        }
    }

    /// What to write now.
    fn due(
        &self,
        standings: &BTreeMap<Arc<str>, Standing>,
        problems: &[Problem],
        proxies: &[u64],
    ) -> Vec<Due> {
        let mut by_place: HashMap<&str, Vec<&Problem>> = HashMap::new();
        for problem in problems {
            by_place.entry(&problem.place.file).or_default().push(problem);
        }
        let now = now();
        let notes = self.noted.lock();
        let due = |(place, standing): (&Arc<str>, &Standing)| {
            let noted = notes.all.get(place)?;
            let problems = by_place.get(&**place).map(Vec::as_slice).unwrap_or_default();
            let wanted = conditions::wanted(standing, problems, proxies);
            let observed = Arc::clone(&standing.state.observed);
            let conditions = self.next(&observed, noted, wanted, &now)?;
            Some(Due { place: Arc::clone(place), observed, conditions })
        };
        let last: &str = &self.last;
        let after = standings.range::<str, _>((Bound::Excluded(last), Bound::Unbounded));
        let before = standings.range::<str, _>((Bound::Unbounded, Bound::Included(last)));
        after.chain(before).filter_map(due).take(MAX_WRITES).collect()
    }

    /// What to write to one object; None: nothing, or not yet.
    fn next(
        &self,
        observed: &Observed,
        noted: &[Condition],
        wanted: [Condition; 2],
        now: &str,
    ) -> Option<[Condition; 2]> {
        let last = self.written.get(&observed.uid);
        let since = last.map_or(self.since, |write| write.at).elapsed();
        let pauses = |write: &Write| match &write.conditions {
            _ if since >= write.pause => false,
            None => true,
            // The watch has not shown it yet, or the server does not keep it.
            Some(conditions) => conditions::next(conditions, wanted.clone(), since, now).is_none(),
        };
        if last.is_some_and(pauses) {
            return None;
        }
        conditions::next(noted, wanted, since, now)
    }
}

async fn write(client: Client, due: &Due) -> Result<(), ClusterError> {
    let Observed { reference, resource, uid, generation } = &*due.observed;
    let api: Api<DynamicObject> = Api::namespaced_with(client, &reference.namespace, resource);
    let metadata = ObjectMeta {
        name: Some(reference.name.to_string()),
        // Another object of its name is left alone.
        uid: Some(uid.to_string()),
        ..ObjectMeta::default()
    };
    let object = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "status": {"observedGeneration": generation, "conditions": due.conditions},
    });
    let how = PatchParams::apply(MANAGER).force();
    let what = || format!("write the status of {reference}");
    ask(what, api.patch_status(&reference.name, &how, &Patch::Apply(&object))).await.map(drop)
}

/// The time, as Kubernetes writes it.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or_default();
    let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    now.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests;
