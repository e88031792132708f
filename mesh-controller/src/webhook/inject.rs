//! `/inject`: a pod gets its proxy before it is there.

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::Client;
use mesh_core::name::is_dns_label;
use mesh_k8s::inject::{Config, Nonce, Outcome, Server, Skip, inject};
use serde_json::Value;

use super::{
    WebhookError,
    events::Events,
    review::{Request, Verdict},
};
use crate::{ca::random, kubernetes::Bundles, limit::Buckets};

/// How long the API server's version is believed: clusters are upgraded under a running controller.
const VERSION_LIFE: Duration = Duration::from_secs(600);
/// How long a namespace's trust bundle is believed to be there: the leader puts right what others change.
const SURE: Duration = Duration::from_secs(10);
/// Trust bundles that one caller has looked after at once, and in the long run per second: whoever reaches the port may
/// name any namespace.
const BUNDLES: u32 = 100;
const BUNDLES_PER_SECOND: f64 = 10.0;
/// Largest file of defaults, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// Where the defaults of injection stand.
#[derive(Debug)]
pub(crate) struct Defaults {
    path: Option<PathBuf>,
    /// The last good ones.
    held: Mutex<Arc<Config>>,
}

impl Defaults {
    /// Reads the file; None: `otherwise`, for good.
    ///
    /// # Errors
    /// [`WebhookError`].
    pub(crate) fn open(path: Option<PathBuf>, otherwise: Config) -> Result<Self, WebhookError> {
        let config = match &path {
            Some(path) => read(path)?,
            None => otherwise,
        };
        Ok(Self { path, held: Mutex::new(Arc::new(config)) })
    }

    /// What stands there now; while that is no good, what stood there last.
    pub(super) fn current(&self) -> Arc<Config> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match self.path.as_deref().map(read) {
            Some(Ok(config)) => *held = Arc::new(config),
            Some(Err(error)) => tracing::error!(%error, "injecting as before"),
            None => {}
        }
        Arc::clone(&held)
    }
}

fn read(path: &Path) -> Result<Config, WebhookError> {
    let failed = |source| WebhookError::File { path: path.to_owned(), source };
    let wrong = |why| WebhookError::Config { path: path.to_owned(), why };
    if fs::metadata(path).map_err(failed)?.len() > MAX_CONFIG {
        return Err(wrong(format!("it has more than {MAX_CONFIG} bytes")));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    Config::from_yaml(&text).map_err(|error| wrong(error.to_string()))
}

/// Judges pods.
pub(crate) struct Injector {
    defaults: Defaults,
    client: Client,
    events: Events,
    /// Sees that trust is there before the pod is.
    bundles: Arc<Bundles>,
    trust: Mutex<Trust>,
    server: Mutex<Option<(Instant, Server)>>,
}

/// What is known of trust bundles.
struct Trust {
    /// Namespaces that have it, and when that was seen.
    sure: HashMap<String, Instant>,
    asked: Buckets<IpAddr>,
}

impl Trust {
    fn new() -> Self {
        Self { sure: HashMap::new(), asked: Buckets::new(BUNDLES, BUNDLES_PER_SECOND) }
    }

    /// Whether to look for a namespace's bundle. Err: this caller has had too many looked for.
    fn is_doubtful(&mut self, namespace: &str, caller: IpAddr, now: Instant) -> Result<bool, String> {
        if self.sure.get(namespace).is_some_and(|at| now.saturating_duration_since(*at) < SURE) {
            return Ok(false);
        }
        if self.asked.take(caller.to_canonical(), now) {
            return Ok(true);
        }
        Err(format!("has looked for the trust bundles of too many namespaces for {caller}"))
    }

    fn found(&mut self, namespace: &str, now: Instant) {
        self.sure.retain(|_, at| now.saturating_duration_since(*at) < SURE);
        self.sure.insert(namespace.to_owned(), now);
    }
}

impl Injector {
    /// An injector for the cluster of `client`.
    pub(crate) fn new(defaults: Defaults, client: Client, bundles: Arc<Bundles>) -> Self {
        let trust = Mutex::new(Trust::new());
        let (events, server) = (Events::new(client.clone()), Mutex::new(None));
        Self { defaults, events, client, bundles, trust, server }
    }

    /// Judges one object, for `caller`.
    pub(super) async fn judge(&self, request: &Request, caller: IpAddr) -> Verdict {
        let (pod, namespace) = (&request.object, request.namespace.as_str());
        let is_pod = pod.get("kind").and_then(Value::as_str) == Some("Pod");
        if !is_pod || request.operation != "CREATE" {
            return Verdict::allowed();
        }
        if !is_dns_label(namespace) {
            return Verdict::refused("the request is refused", &["it names no namespace".to_owned()]);
        }
        let is_dry = request.dry_run.unwrap_or(false);
        let name = name(namespace, pod);
        let Ok(random) = random() else {
            return Verdict::not_now(
                "the mesh has no random numbers for the pod's proxy; it will be tried again".to_owned(),
            );
        };
        match inject(pod, &self.defaults.current(), self.server().await, &Nonce::new(random)) {
            Outcome::Injected(new) => {
                if !is_dry && let Err(error) = self.ensure_trust(namespace, caller).await {
                    tracing::warn!(pod = name, error, "not injected");
                    return Verdict::not_now(format!(
                        "the pod has no proxy yet: the mesh {error}; it will be tried again"
                    ));
                }
                tracing::info!(pod = name, "injected");
                let patch = serde_json::to_value(json_patch::diff(pod, &new)).unwrap_or_default();
                Verdict { patch: Some(patch), ..Verdict::allowed() }
            }
            Outcome::Skipped(skip @ (Skip::HostNetwork | Skip::Windows)) => {
                let warning = format!("pod {name} gets no proxy: {}", skip.why());
                if !is_dry {
                    self.events.warn(namespace, pod, "MeshNotInjected", &warning).await;
                }
                Verdict { warnings: vec![warning], ..Verdict::allowed() }
            }
            Outcome::Skipped(Skip::Disabled | Skip::AlreadyInjected) => Verdict::allowed(),
            Outcome::Refused(refusals) => {
                let problems: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                tracing::info!(pod = name, ?problems, "refused");
                Verdict::refused(&format!("the mesh cannot put a proxy into pod {name}"), &problems)
            }
        }
    }

    /// Sees that a namespace has its trust bundle. Err: what the mesh does instead, for whoever waits for the pod.
    async fn ensure_trust(&self, namespace: &str, caller: IpAddr) -> Result<(), String> {
        let trust = || self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        if trust().is_doubtful(namespace, caller, Instant::now())? {
            self.bundles.ensure(namespace).await.map_err(|error| error.to_string())?;
            trust().found(namespace, Instant::now());
        }
        Ok(())
    }

    /// The API server's version; None when it cannot be known at the moment.
    async fn server(&self) -> Option<Server> {
        let held = *self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, version)) = held.filter(|(at, _)| at.elapsed() < VERSION_LIFE) {
            return Some(version);
        }
        match self.client.apiserver_version().await {
            Ok(info) => {
                let version = Server::parse(&info.major, &info.minor)?;
                *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), version));
                Some(version)
            }
            Err(error) => {
                tracing::warn!(%error, "the API server does not tell its version");
                held.map(|(_, version)| version)
            }
        }
    }
}

/// What a pod is, or will be, called.
fn name(namespace: &str, pod: &Value) -> String {
    let text = |key: &str| {
        pod.pointer(&format!("/metadata/{key}")).and_then(Value::as_str).filter(|t| !t.is_empty())
    };
    let name = match (text("name"), text("generateName")) {
        (Some(name), _) => name.to_owned(),
        (None, Some(prefix)) => format!("{prefix}…"),
        (None, None) => "without a name".to_owned(),
    };
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_looked_for_now_and_then_and_each_caller_has_a_share() {
        let start = Instant::now();
        let mut trust = Trust::new();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert_eq!(trust.is_doubtful("shop", one, start), Ok(true));
        trust.found("shop", start);
        assert_eq!(trust.is_doubtful("shop", one, start + SURE / 2), Ok(false));
        assert_eq!(trust.is_doubtful("shop", one, start + SURE), Ok(true));

        let later = start + SURE * 10;
        trust.found("shop", later);
        assert_eq!(trust.sure.len(), 1);
        let asked =
            (0..BUNDLES * 2).filter(|n| trust.is_doubtful(&format!("ns-{n}"), one, later) == Ok(true));
        assert_eq!(asked.count(), BUNDLES as usize);
        assert!(trust.is_doubtful("more", one, later).unwrap_err().contains("10.0.0.1"));
        assert_eq!(trust.is_doubtful("shop", one, later), Ok(false), "it is known to be there");
        assert_eq!(trust.is_doubtful("more", other, later), Ok(true), "others are not held up");
    }
}
