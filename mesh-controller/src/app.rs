//! The only place that knows every part: starts them in order, and stops them.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::config::TrustBundle;
use mesh_k8s::{Problem, Settings};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{Id, JoinSet},
    time::{sleep, timeout},
};

use crate::{
    ca::{Ca, CaError},
    config::{Config, ConfigError, Origin},
    data_dir::{self, DataDir, DataDirError, PUBLIC, STATUS_FILE, TRUST_BUNDLE_FILE},
    edges::Edges,
    grpc::{Server, Shared, TlsError},
    health,
    home::Home,
    kubernetes::{Bundles, Cluster, ClusterError, lead},
    metrics::Metrics,
    publish::{Proxies, Publisher},
    source::{Outcome, Source, SourceError},
    view,
    webhook::{Webhook, WebhookError},
};

/// How often what is stale is forgotten.
const TIDY_UP: Duration = Duration::from_secs(30);
/// How long a controller in a cluster serves on when it is to stop: until then the API server and proxies may still be
/// led to it.
const LINGER: Duration = Duration::from_secs(5);
/// Time that all parts get to stop.
const STOP: Duration = Duration::from_secs(5);

/// Why the controller did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A flag is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no certificate authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// There is no cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// There is no TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is nothing to read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no webhook.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// A port cannot be taken.
    #[error("cannot listen on {address} (--{flag}): {source}")]
    Listen {
        /// The flag that names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
}

/// Where a running controller listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC of proxies.
    pub control: SocketAddr,
    /// The view API.
    pub view: SocketAddr,
    /// Health and metrics.
    pub health: SocketAddr,
}

/// A running controller. Dropping it stops it at once; [`Controller::shutdown`] stops it cleanly.
pub struct Controller {
    addresses: Addresses,
    /// True: it is to stop soon, and says so to those who choose whom to ask.
    leaving: watch::Sender<bool>,
    linger: Duration,
    stop: watch::Sender<bool>,
    servers: Parts,
    workers: Parts,
    data_dir: DataDir,
}

/// Tasks that go on until they are stopped. Aborted when dropped.
#[derive(Default)]
struct Parts {
    tasks: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Parts {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Waits until one has ended, and names it.
    async fn ended(&mut self) -> &'static str {
        let id = match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => error.id(),
            None => return std::future::pending().await,
        };
        self.names.get(&id).copied().unwrap_or_default()
    }

    async fn all_ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Controller {
    /// Starts: data directory, authority, first reading of the source, listeners. When this returns, proxies can
    /// connect.
    ///
    /// # Errors
    /// [`StartError`] says what is wrong and what to do about it.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let data_dir = DataDir::open(&config.data_dir)?;
        let settings = Settings {
            trust_domain: config.trust_domain.clone(),
            cluster_domain: config.cluster_domain.clone(),
        };
        let metrics = Metrics::new();
        let (home, (source, outcome)) = match &config.source {
            Origin::Directory(directory) => {
                (Home::in_directory(&config, &data_dir)?, Source::of_directory(directory, settings)?)
            }
            Origin::Kubernetes(own) => {
                let cluster = Arc::new(Cluster::connect(own).await?);
                let home = Home::in_cluster(&config, Arc::clone(&cluster), &metrics).await?;
                (home, Source::of_cluster(&cluster, settings, &metrics).await?)
            }
        };
        let Home { ca, view_token, proofs, cluster } = home;
        write_bundle(&data_dir, &ca)?;
        report(&outcome.problems, &[]);
        proofs.ensure(&outcome.compiled)?;
        let bundle =
            TrustBundle { trust_domain: config.trust_domain.clone(), roots: vec![ca.root().to_vec()] };
        let bundles = cluster.as_ref().map(|cluster| Arc::new(Bundles::new(cluster, ca.root_pem())));
        let shared = Arc::new(Shared {
            trust_domain: config.trust_domain.clone(),
            ca: Arc::new(ca),
            proofs,
            bundles: bundles.clone(),
            publisher: Publisher::new(bundle, outcome),
            proxies: Arc::new(Proxies::default()),
            edges: Edges::default(),
            metrics,
            started: Instant::now(),
            source: config.source.to_string(),
        });
        let (leaving, stop) = (watch::Sender::new(false), watch::Sender::new(false));
        let server = Arc::new(Server::new(Arc::clone(&shared), stop.subscribe())?);

        let (control, control_address) = listen("listen", config.listen).await?;
        let (view, view_address) = listen("view", config.view).await?;
        let (health, health_address) = listen("health", config.health).await?;
        let webhook = webhook(&config, cluster.as_deref(), &shared).await?;
        let addresses = Addresses { control: control_address, view: view_address, health: health_address };

        let linger = if cluster.is_some() { LINGER } else { Duration::ZERO };
        let mut servers = Parts::default();
        servers.spawn("the control port", server.run(control, stop.subscribe()));
        servers.spawn("the view API", view::run(view, Arc::clone(&shared), view_token, stop.subscribe()));
        let signals = health::Signals { leaving: leaving.subscribe(), stop: stop.subscribe() };
        servers.spawn("the health port", health::run(health, Arc::clone(&shared), signals));
        if let Some((webhook, listener)) = webhook {
            servers.spawn("the webhook", webhook.run(listener, stop.subscribe()));
        }
        if let (Some(cluster), Some(bundles)) = (cluster, bundles) {
            // The lead is handed over before anything else ends.
            let (shared, leaving) = (Arc::clone(&shared), leaving.subscribe());
            servers.spawn("the election", async move { lead(&shared, cluster, bundles, leaving).await });
        }
        let mut workers = Parts::default();
        let apply = Arc::clone(&shared);
        workers.spawn("the source", source.run(move |outcome| apply.apply(outcome)));
        workers.spawn("the tidying up", tidy_up(Arc::clone(&shared)));
        let ca = Arc::clone(&shared.ca);
        workers.spawn("the authority", async move { ca.keep_fresh().await });

        write_status(&data_dir, &shared, addresses)?;
        tracing::info!(control = %addresses.control, view = %addresses.view, health = %addresses.health,
            root_sha256 = shared.ca.root_sha256(), source = shared.source, "controller ready");
        Ok(Self { addresses, leaving, linger, stop, servers, workers, data_dir })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until a part of it has ended by itself, which none should, and names it: a controller that lacks one is to
    /// be replaced.
    pub async fn broken(&mut self) -> &'static str {
        tokio::select! {
            name = self.servers.ended() => name,
            name = self.workers.ended() => name,
        }
    }

    /// In a cluster, first says that it is not ready any more and serves on for a moment. Then it tells proxies to reconnect
    /// elsewhere, closes listeners, and removes what says that it runs.
    pub async fn shutdown(mut self) {
        self.leaving.send_replace(true);
        sleep(self.linger).await;
        self.workers.tasks.abort_all();
        self.stop.send_replace(true);
        let ended = timeout(STOP, self.servers.all_ended()).await;
        if ended.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        let path = self.data_dir.path(STATUS_FILE);
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove the status file");
        }
    }
}

impl Shared {
    /// Takes a new state of the source.
    fn apply(&self, outcome: Outcome) {
        match self.proofs.ensure(&outcome.compiled) {
            Ok(0) => {}
            Ok(new) => tracing::info!(new, "tokens made for new service accounts"),
            Err(error) => tracing::error!(%error, "cannot make tokens for new service accounts"),
        }
        let before = self.publisher.current();
        report(&outcome.problems, &before.problems);
        let snapshot = self.publisher.publish(outcome);
        self.proxies.retain(|workload| snapshot.compiled.workloads.contains_key(workload));
        tracing::info!(
            generation = snapshot.generation,
            objects = snapshot.objects,
            problems = snapshot.problems.len(),
            "source read"
        );
    }

    /// Sets the metrics that are read off the state.
    pub(crate) fn measure(&self) {
        let snapshot = self.publisher.current();
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.proxies.set(number(self.proxies.connected()));
        self.metrics.generation.set(i64::try_from(snapshot.generation).unwrap_or(i64::MAX));
        self.metrics.problems.set(number(snapshot.problems.len()));
        self.metrics.objects.set(number(snapshot.objects));
        self.metrics.issuer_not_after.set(self.ca.issuer_not_after());
        self.metrics.root_not_after.set(self.ca.root_not_after());
    }
}

/// Waits until the controller is to stop.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the controller was dropped.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Logs problems that were not there before.
fn report(problems: &[Problem], before: &[Problem]) {
    // One option can be told of every pod.
    let before: HashSet<&Problem> = before.iter().collect();
    for problem in problems.iter().filter(|problem| !before.contains(problem)) {
        tracing::warn!(refused = problem.refused, "{problem}");
    }
}

async fn tidy_up(shared: Arc<Shared>) {
    loop {
        sleep(TIDY_UP).await;
        shared.edges.expire(Instant::now());
    }
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { flag, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// The webhook, where one is asked for.
async fn webhook(
    config: &Config,
    cluster: Option<&Cluster>,
    shared: &Shared,
) -> Result<Option<(Arc<Webhook>, TcpListener)>, StartError> {
    let (Some(address), Some(cluster), Some(bundles)) = (config.webhook, cluster, &shared.bundles) else {
        return Ok(None);
    };
    let webhook =
        Webhook::open(config, cluster, Arc::clone(&shared.ca), Arc::clone(bundles), &shared.metrics)?;
    let (listener, _) = listen("webhook", address).await?;
    Ok(Some((Arc::new(webhook), listener)))
}

fn write_bundle(data_dir: &DataDir, ca: &Ca) -> Result<(), DataDirError> {
    let path = data_dir.path(TRUST_BUNDLE_FILE);
    if std::fs::read(&path).is_ok_and(|held| held == ca.root_pem().as_bytes()) {
        return Ok(());
    }
    data_dir::write_atomic(&path, PUBLIC, ca.root_pem().as_bytes())
}

fn write_status(data_dir: &DataDir, shared: &Shared, addresses: Addresses) -> Result<(), DataDirError> {
    let status = serde_json::json!({
        "control": addresses.control,
        "view": addresses.view,
        "health": addresses.health,
        "trust_domain": shared.trust_domain.as_str(),
        "root_sha256": shared.ca.root_sha256(),
        "pid": std::process::id(),
    });
    let path: &Path = &data_dir.path(STATUS_FILE);
    data_dir::write_atomic(path, PUBLIC, status.to_string().as_bytes())
}
