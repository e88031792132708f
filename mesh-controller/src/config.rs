//! The controller's configuration, checked.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use mesh_core::{
    identity::TrustDomain,
    name::{is_dns_label, is_dns_name},
};
use mesh_k8s::names::LEAF_LIFETIME;

/// Where a controller's objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In a directory of YAML files.
    Directory(PathBuf),
    /// In a Kubernetes cluster: the one that `KUBECONFIG` names, or else the one that this process runs in.
    Kubernetes(InCluster),
}

/// What a controller is in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InCluster {
    /// Its namespace, where its Secrets are.
    pub namespace: String,
    /// Its pod; None: it is in none.
    pub pod: Option<String>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory) => directory.display().fmt(f),
            Self::Kubernetes(_) => f.write_str("Kubernetes"),
        }
    }
}

/// How a controller runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where objects are read.
    pub source: Origin,
    /// Directory that holds keys, tokens and the lock.
    pub data_dir: PathBuf,
    /// Where proxies connect; port 0: any free one.
    pub listen: SocketAddr,
    /// Where people's tools connect; a loopback address.
    pub view: SocketAddr,
    /// Where health and metrics are served.
    pub health: SocketAddr,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// The cluster's DNS domain.
    pub cluster_domain: String,
    /// Life of the certificates of proxies.
    pub leaf_lifetime: Duration,
    /// Where the API server asks (Kubernetes only); None: nowhere.
    pub webhook: Option<SocketAddr>,
    /// File with the defaults of injection; None: those of the program.
    pub inject_config: Option<PathBuf>,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The view API would be open to the network.
    #[error(
        "--view {0} is refused: the view API is not encrypted, so it listens on loopback only; use 127.0.0.1:PORT"
    )]
    ViewNotLoopback(SocketAddr),
    /// The life of leafs is out of bounds.
    #[error("--leaf-lifetime {0:?} is refused, expected 10s to 90d")]
    LeafLifetime(Duration),
    /// The cluster domain is no DNS name.
    #[error("--cluster-domain {0:?} is refused, expected a DNS name as in cluster.local")]
    ClusterDomain(String),
    /// The namespace is none.
    #[error("--namespace {0:?} is refused, expected a namespace as in mesh-system")]
    Namespace(String),
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// [`ConfigError`] names the flag and what is expected.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.view.ip().is_loopback() {
            return Err(ConfigError::ViewNotLoopback(self.view));
        }
        if !LEAF_LIFETIME.contains(&self.leaf_lifetime) {
            return Err(ConfigError::LeafLifetime(self.leaf_lifetime));
        }
        if let Origin::Kubernetes(own) = &self.source
            && !is_dns_label(&own.namespace)
        {
            return Err(ConfigError::Namespace(own.namespace.clone()));
        }
        if !is_dns_name(&self.cluster_domain) {
            return Err(ConfigError::ClusterDomain(self.cluster_domain.clone()));
        }
        Ok(())
    }
}
