//! A Kubernetes cluster, as a kubeconfig names it.

pub(crate) mod agents;
pub(crate) mod forward;
pub(crate) mod objects;
pub(crate) mod preflight;
pub(crate) mod rights;
pub(crate) mod select;
pub(crate) mod standing;
pub(crate) mod trouble;
pub(crate) mod wait;

use std::time::Duration;

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::cli::Where;

/// Longest time for one answer: the API server itself asks webhooks, ten seconds each.
const ANSWER: Duration = Duration::from_secs(45);
/// Oldest minor version of Kubernetes 1 that has what the chart uses.
pub(crate) const OLDEST: u32 = 25;

/// Why the cluster cannot be asked, or what it refuses. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// There is no kubeconfig.
    #[error("there is no kubeconfig ({0}); name one with --kubeconfig, or set KUBECONFIG")]
    NoConfig(String),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used: {0}")]
    BadConfig(String),
    /// It has no such context.
    #[error("the kubeconfig has no context {wanted:?}; it has {known}")]
    NoContext {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// No context was named.
    #[error("the kubeconfig names no current context; name one with --context: {0}")]
    NoCurrent(String),
    /// Nothing answers.
    #[error(
        "the cluster at {url} does not answer ({reason}); is it the one that is meant? `--context` names another"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It does not know who asks.
    #[error(
        "the cluster at {url} does not accept these credentials ({reason}); renew them, or name another context"
    )]
    Unauthorized {
        /// Where.
        url: String,
        /// What it said.
        reason: String,
    },
    /// It refuses something.
    #[error("{what}: the cluster refuses it: {reason}")]
    Refused {
        /// What was tried.
        what: String,
        /// What it said.
        reason: String,
    },
    /// It is not able to answer now.
    #[error("{what}: the cluster does not answer: {reason}")]
    Away {
        /// What was tried.
        what: String,
        /// What happened.
        reason: String,
    },
    /// Something is missing of what it said.
    #[error("{what}: {reason}")]
    Odd {
        /// What was tried.
        what: String,
        /// What is wrong.
        reason: String,
    },
}

/// A cluster that answers.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// Where its API server is.
    pub(crate) url: String,
    /// The context's name; empty for that of a pod.
    pub(crate) context: String,
    /// Its version, major and minor.
    pub(crate) version: (u32, u32),
}

impl Cluster {
    /// Reads the kubeconfig and asks for the version.
    ///
    /// # Errors
    /// When there is none, or nothing that answers.
    pub(crate) async fn connect(place: &Where, timeout: Duration) -> Result<Self, ClusterError> {
        Self::open(place, timeout, Some(ANSWER)).await
    }

    /// As [`Self::connect`], for answers that go on and may be silent for long.
    ///
    /// # Errors
    /// As for [`Self::connect`].
    pub(crate) async fn connect_to_follow(place: &Where, timeout: Duration) -> Result<Self, ClusterError> {
        Self::open(place, timeout, None).await
    }

    async fn open(place: &Where, timeout: Duration, silence: Option<Duration>) -> Result<Self, ClusterError> {
        let (mut config, context) = read(place).await?;
        config.connect_timeout = Some(timeout);
        config.read_timeout = silence;
        config.write_timeout = Some(ANSWER);
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).map_err(|error| ClusterError::BadConfig(causes(&error)))?;
        let asked = tokio::time::timeout(timeout.max(Duration::from_secs(1)), client.apiserver_version());
        let version = match asked.await {
            Ok(Ok(version)) => version,
            Ok(Err(error)) => return Err(unusable(url, &error)),
            Err(_) => {
                return Err(ClusterError::Unreachable {
                    url,
                    reason: format!("no answer within {timeout:?}"),
                });
            }
        };
        let number = |text: &str| {
            text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
        };
        Ok(Self { client, url, context, version: (number(&version.major), number(&version.minor)) })
    }
}

async fn read(place: &Where) -> Result<(Config, String), ClusterError> {
    let found = match &place.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match found {
        Ok(kubeconfig) => kubeconfig,
        Err(KubeconfigError::ReadConfig(source, path)) => {
            return Err(ClusterError::NoConfig(format!("{}: {source}", path.display())));
        }
        Err(KubeconfigError::FindPath) => {
            return Err(ClusterError::NoConfig("HOME is not set".to_owned()));
        }
        Err(error) => return Err(ClusterError::BadConfig(causes(&error))),
    };
    let names: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let context = match place.context.clone().or_else(|| kubeconfig.current_context.clone()) {
        Some(context) if !context.is_empty() => context,
        _ => return Err(ClusterError::NoCurrent(known)),
    };
    if !names.contains(&context) {
        return Err(ClusterError::NoContext { wanted: context, known });
    }
    let options = KubeConfigOptions { context: Some(context.clone()), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &options);
    Ok((config.await.map_err(|error| ClusterError::BadConfig(causes(&error)))?, context))
}

fn unusable(url: String, error: &kube::Error) -> ClusterError {
    match error {
        kube::Error::Api(status) if status.code == 401 || status.code == 403 => {
            ClusterError::Unauthorized { url, reason: status.message.clone() }
        }
        kube::Error::Auth(error) => ClusterError::Unauthorized { url, reason: causes(error) },
        other => ClusterError::Unreachable { url, reason: causes(other) },
    }
}

/// What the API server says to something that was tried.
pub(crate) fn refused(what: impl Into<String>, error: &kube::Error) -> ClusterError {
    let what = what.into();
    match error {
        // Too many requests, or an API server that is starting, ending, or without its store.
        kube::Error::Api(status) if status.code == 429 || status.code >= 500 => {
            ClusterError::Away { what, reason: status.message.clone() }
        }
        kube::Error::Api(status) => ClusterError::Refused { what, reason: status.message.clone() },
        lost @ (kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_)) => {
            ClusterError::Away { what, reason: causes(lost) }
        }
        other => ClusterError::Refused { what, reason: causes(other) },
    }
}

/// True where an object, or its kind, is not there.
pub(crate) fn is_absent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// An error and its causes, each once, up to the first line's end: what follows it shows the text again.
fn causes(error: &dyn std::error::Error) -> String {
    let mut last = error.to_string();
    let mut text = last.clone();
    let mut source = error.source();
    while let Some(cause) = source {
        let told = cause.to_string();
        if !last.contains(&told) {
            text = format!("{text}: {told}");
        }
        last = told;
        source = cause.source();
    }
    text.lines().next().unwrap_or_default().to_owned()
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("url", &self.url)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}
