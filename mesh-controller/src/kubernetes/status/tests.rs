//! Statuses at an API server of our own.

use kube::core::{ApiResource, GroupVersionKind};
use mesh_core::name::ObjectRef;
use mesh_k8s::Place;

use super::{super::fake::Fake, *};
use crate::source::{Force, State};

const PLACE: &str = "Workload shop/a";

fn standings(uid: &str, force: Force, generation: i64) -> BTreeMap<Arc<str>, Standing> {
    BTreeMap::from([standing(("Workload", "workloads", "a"), uid, force, generation)])
}

fn standing(
    (kind, plural, name): (&str, &str, &str),
    uid: &str,
    force: Force,
    generation: i64,
) -> (Arc<str>, Standing) {
    let gvk = GroupVersionKind::gvk("meshctl.dev", "v1alpha1", kind);
    let observed = Observed {
        reference: ObjectRef::new(kind, "shop", name),
        resource: ApiResource::from_gvk_with_plural(&gvk, plural),
        uid: uid.into(),
        generation,
    };
    let place = observed.reference.to_string().into();
    (place, Standing { state: State { observed: Arc::new(observed), force }, since: 1 })
}

fn problem() -> Problem {
    Problem {
        object: Some(ObjectRef::new("Workload", "shop", "a")),
        place: Place { file: PLACE.into(), line: 0 },
        field: "spec.address".into(),
        message: "\"x\" is no address".into(),
        remedy: "write one".into(),
        refused: true,
        is_conflict: false,
    }
}

struct Rig {
    fake: Arc<Fake>,
    statuses: Statuses,
}

impl Rig {
    fn new() -> Self {
        let fake = Fake::new();
        let object = json!({"metadata": {"name": "a", "namespace": "shop", "uid": "u1"}, "spec": {}});
        fake.put("workloads", object);
        let statuses = Statuses::new(fake.client(), Arc::default());
        let rig = Self { fake, statuses };
        rig.see();
        rig
    }

    /// As the watch does.
    fn see(&self) {
        self.statuses.noted.put(&PLACE.into(), &self.fake.object("workloads", "a"));
    }

    async fn look(&mut self, standings: &BTreeMap<Arc<str>, Standing>, problems: &[Problem]) {
        let due = self.statuses.due(standings, problems, &[1]);
        self.statuses.write(due).await;
    }

    fn told(&self) -> [String; 2] {
        let object = self.fake.object("workloads", "a");
        [0, 1].map(|i| {
            let one = &object["status"]["conditions"][i];
            format!("{} {} {}", one["type"], one["status"], one["reason"]).replace('"', "")
        })
    }
}

#[tokio::test]
async fn what_became_of_an_object_is_written_once() {
    let mut rig = Rig::new();
    let good = standings("u1", Force::Newest, 1);
    rig.look(&good, &[]).await;
    assert_eq!(rig.told(), ["Accepted True Accepted", "Applied True AllProxies"]);
    // The watch has not shown it yet.
    rig.look(&good, &[]).await;
    rig.see();
    rig.look(&good, &[]).await;
    assert_eq!(rig.fake.writes(), 1);

    let bad = standings("u1", Force::Kept, 2);
    rig.look(&bad, &[problem()]).await;
    rig.see();
    rig.look(&bad, &[problem()]).await;
    assert_eq!(rig.told(), ["Accepted False LastGoodKept", "Applied True AllProxies"]);
    let object = rig.fake.object("workloads", "a");
    let message = object["status"]["conditions"][0]["message"].as_str().unwrap();
    assert_eq!(message, "its last good version stays; spec.address: \"x\" is no address; write one");
    assert_eq!(object["spec"], json!({}), "only the status is written");
    assert_eq!(rig.fake.writes(), 2);
    rig.look(&standings("u1", Force::Newest, 3), &[]).await;
    assert_eq!(rig.told()[0], "Accepted True Accepted");
}

#[tokio::test]
async fn an_object_that_takes_no_status_is_left_alone() {
    let mut rig = Rig::new();
    // Another object of its name.
    let other = standings("u0", Force::Newest, 1);
    for _ in 0..3 {
        rig.look(&other, &[]).await;
    }
    assert_eq!(rig.fake.writes(), 1, "it is not tried again soon");
    assert!(rig.fake.object("workloads", "a")["status"].is_null());

    let good = standings("u1", Force::Newest, 1);
    for status in [404, 403, 500] {
        rig.fake.fail("workloads", Some(status));
        let before = rig.fake.writes();
        rig.statuses.written.clear();
        rig.look(&good, &[]).await;
        rig.look(&good, &[]).await;
        assert_eq!(rig.fake.writes(), before + 1, "{status}");
    }
    rig.fake.fail("workloads", None);
    rig.statuses.written.values_mut().for_each(|write| write.pause = Duration::ZERO);
    rig.look(&good, &[]).await;
    assert_eq!(rig.told()[0], "Accepted True Accepted");
    // Of what the watches have not shown nothing is written.
    rig.statuses.noted.remove(PLACE);
    rig.statuses.written.clear();
    let before = rig.fake.writes();
    rig.look(&standings("u1", Force::Nothing, 2), &[]).await;
    assert_eq!(rig.fake.writes(), before);
}

impl Rig {
    /// Adds objects that say nothing yet.
    fn add(&self, kind: (&str, &str), count: usize) -> BTreeMap<Arc<str>, Standing> {
        let one = |number: usize| {
            let name = format!("n{number:03}");
            let uid = format!("{} {name}", kind.0);
            let metadata = json!({"name": name, "namespace": "shop", "uid": uid});
            let object = json!({"metadata": metadata, "spec": {}});
            let (place, standing) = standing((kind.0, kind.1, &name), &uid, Force::Newest, 1);
            self.statuses.noted.put(&place, &object);
            self.fake.put(kind.1, object);
            (place, standing)
        };
        (0..count).map(one).collect()
    }

    /// As if a long time had passed.
    fn age(&mut self) {
        self.statuses.written.values_mut().for_each(|write| write.pause = Duration::ZERO);
    }
}

#[tokio::test]
async fn many_objects_are_written_some_at_a_time_and_each_once() {
    let mut rig = Rig::new();
    let all = rig.add(("Workload", "workloads"), MAX_WRITES * 2 + 1);
    for expected in [MAX_WRITES, MAX_WRITES * 2, MAX_WRITES * 2 + 1, MAX_WRITES * 2 + 1] {
        rig.look(&all, &[]).await;
        assert_eq!(rig.fake.writes(), expected);
    }
    let fake = Arc::clone(&rig.fake);
    for (place, standing) in &all {
        let object = fake.object("workloads", &standing.state.observed.reference.name);
        assert_eq!(object["status"]["observedGeneration"], 1);
        rig.statuses.noted.put(place, &object);
    }
    rig.age();
    // The next leader finds nothing to do either.
    rig.look(&all, &[]).await;
    let mut next = Statuses::new(fake.client(), Arc::clone(&rig.statuses.noted));
    let due = next.due(&all, &[], &[1, 1, 1]);
    assert!(due.is_empty());
    next.write(due).await;
    assert_eq!(fake.writes(), MAX_WRITES * 2 + 1);
}

#[tokio::test]
async fn objects_that_take_no_writes_keep_no_other_waiting() {
    let mut rig = Rig::new();
    let mut all = rig.add(("ExternalService", "externalservices"), MAX_WRITES + 1);
    all.extend(standings("u1", Force::Newest, 1));
    rig.fake.fail("externalservices", Some(403));
    rig.look(&all, &[]).await;
    rig.age();
    rig.look(&all, &[]).await;
    assert_eq!(rig.told()[0], "Accepted True Accepted");
}

#[tokio::test]
async fn an_object_that_fails_again_waits_twice_as_long() {
    let mut rig = Rig::new();
    let good = standings("u1", Force::Newest, 1);
    rig.fake.fail("workloads", Some(500));
    let mut pauses = Vec::new();
    for _ in 0..6 {
        rig.look(&good, &[]).await;
        let write = rig.statuses.written.get_mut("u1").unwrap();
        pauses.push(write.pause.as_secs());
        write.at -= write.pause;
    }
    assert_eq!(pauses, [30, 60, 120, 240, 480, 600]);
}

#[tokio::test]
async fn an_api_server_that_is_away_is_not_asked_for_all() {
    let mut rig = Rig::new();
    let all = rig.add(("Workload", "workloads"), MAX_WRITES);
    rig.fake.fail("workloads", Some(503));
    rig.look(&all, &[]).await;
    assert!((MAX_AT_ONCE..MAX_AT_ONCE * 2).contains(&rig.fake.writes()), "{}", rig.fake.writes());
    rig.fake.fail("workloads", None);
    rig.age();
    rig.look(&all, &[]).await;
    let told = |name: &str| rig.fake.object("workloads", name)["status"]["observedGeneration"].clone();
    assert_eq!((told("n000"), told("n099")), (json!(1), json!(1)));
}
