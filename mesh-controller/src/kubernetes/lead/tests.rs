//! Two replicas at an API server of our own: the one that leads writes, and the other one from where it ended.

use std::time::{Duration, Instant};

use mesh_core::config::TrustBundle;
use mesh_k8s::Settings;
use serde_json::{Value, json};

use super::{
    super::{Reviews, Secrets, fake::Fake, tests::cluster},
    *,
};
use crate::{
    ca::Ca,
    edges::Edges,
    grpc::Proofs,
    metrics::Metrics,
    publish::{Proxies, Publisher},
    source::Source,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A replica, until it is dropped.
struct Replica {
    shared: Arc<Shared>,
    _stop: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Replica {
    async fn start(fake: &Arc<Fake>, name: &str) -> Self {
        let cluster = Arc::new(cluster(fake, name));
        let metrics = Metrics::new();
        let lifetime = Duration::from_secs(3600);
        let ca = Ca::open_in(Secrets::new(&cluster), "cluster.local", lifetime).await.unwrap();
        let settings = Settings {
            trust_domain: "cluster.local".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
        };
        let bundle = TrustBundle { trust_domain: settings.trust_domain.clone(), roots: Vec::new() };
        let (source, outcome) = Source::of_cluster(&cluster, settings, &metrics).await.unwrap();
        let bundles = Arc::new(Bundles::new(&cluster, ca.root_pem()));
        let shared = Arc::new(Shared {
            trust_domain: bundle.trust_domain.clone(),
            ca: Arc::new(ca),
            proofs: Proofs::Kubernetes(Box::new(Reviews::new(&cluster.client, &metrics))),
            bundles: Some(Arc::clone(&bundles)),
            publisher: Publisher::new(bundle, outcome),
            proxies: Arc::new(Proxies::default()),
            edges: Edges::default(),
            metrics,
            started: Instant::now(),
            source: String::new(),
        });
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let publisher = Arc::clone(&shared);
        tasks.spawn(source.run(move |outcome| drop(publisher.publisher.publish(outcome))));
        let (leader, stopped) = (Arc::clone(&shared), stop.subscribe());
        tasks.spawn(async move { run(&leader, cluster, bundles, stopped).await });
        Self { shared, _stop: stop, _tasks: tasks }
    }

    fn leads(&self) -> bool {
        self.shared.metrics.is_leader.get() == 1
    }
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

fn put(fake: &Fake, address: &str, generation: i64) {
    let metadata = json!({"name": "a", "namespace": "shop", "uid": "u1", "generation": generation});
    let status = fake.object("workloads", "a")["status"].clone();
    let object = json!({"metadata": metadata, "spec": {"address": address}, "status": status});
    fake.put("workloads", object);
}

/// Waits until the object says so.
async fn says(fake: &Fake, generation: i64, reason: &str) -> Value {
    let accepted = || fake.object("workloads", "a")["status"]["conditions"][0].clone();
    let what = format!("{reason} of version {generation}");
    until(&what, || accepted()["reason"] == reason && accepted()["observedGeneration"] == generation).await;
    accepted()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_says_what_became_of_objects_and_hands_that_over() {
    let fake = Fake::new();
    put(&fake, "192.0.2.1", 1);
    let first = Replica::start(&fake, "a").await;
    let before = says(&fake, 1, "Accepted").await;
    let second = Replica::start(&fake, "b").await;
    put(&fake, "nowhere", 2);
    let told = says(&fake, 2, "LastGoodKept").await;
    assert!(told["message"].as_str().unwrap().contains("spec.address: \"nowhere\""), "{told}");
    assert!(first.leads() && !second.leads());

    // The Lease is lost.
    let mut lease = fake.object("leases", "mesh-controller");
    lease["spec"]["holderIdentity"] = json!("b");
    lease["metadata"]["resourceVersion"] = json!("taken");
    fake.put("leases", lease);
    until("another leader", || second.leads() && !first.leads()).await;
    put(&fake, "192.0.2.2", 3);
    let after = says(&fake, 3, "Accepted").await;
    assert!(before["lastTransitionTime"].is_string() && after["lastTransitionTime"].is_string());
    let status = fake.object("workloads", "a")["status"].clone();
    assert_eq!(
        (&status["observedGeneration"], &status["conditions"][1]["reason"]),
        (&json!(3), &json!("NoProxies"))
    );
    // Three versions, and one write for each, whoever led.
    assert_eq!(fake.versions("workloads"), 6);
}
