//! What is typed: `mesh-controller run …`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use mesh_core::{
    identity::TrustDomain,
    ports::{DEFAULT_CLUSTER_DOMAIN, DEFAULT_TRUST_DOMAIN},
};

use crate::cni::CniAgentArgs;
use crate::config::{Config, InCluster, Origin};

/// Controller of the mesh: issues identities and tells proxies where calls go and who may make them.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the controller can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves a mesh from a directory of YAML files, or from a Kubernetes cluster.
    Run(RunArgs),
    /// Keeps the CNI plugin mesh-cni at work on one node of a Kubernetes cluster.
    CniAgent(CniAgentArgs),
}

/// Flags of `run`. Each can also be given as an environment variable.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Directory of YAML files; it is watched.
    #[arg(long, env = "MESH_SOURCE", value_name = "DIR", required_unless_present = "kubernetes")]
    pub source: Option<PathBuf>,
    /// Watch a Kubernetes cluster in place of a directory: the one that KUBECONFIG names, or else the one that this
    /// runs in.
    #[arg(long, env = "MESH_KUBERNETES", conflicts_with = "source")]
    pub kubernetes: bool,
    /// The controller's own namespace in the cluster: its Secrets are there.
    #[arg(long, env = "MESH_NAMESPACE", value_name = "NAME", default_value = mesh_k8s::names::NAMESPACE)]
    pub namespace: String,
    /// The controller's own pod: what it is called among its replicas.
    #[arg(long, env = "MESH_POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
    /// Directory for keys, tokens and the lock; with --kubernetes it holds no keys [default: $XDG_STATE_HOME/mesh, else ~/.local/state/mesh].
    #[arg(long, env = "MESH_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where proxies connect.
    #[arg(long, env = "MESH_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:15010")]
    pub listen: SocketAddr,
    /// Where meshctl connects; loopback only.
    #[arg(long, env = "MESH_VIEW", value_name = "ADDR", default_value = "127.0.0.1:15080")]
    pub view: SocketAddr,
    /// Where health and metrics are served.
    #[arg(long, env = "MESH_HEALTH", value_name = "ADDR", default_value = "127.0.0.1:15014")]
    pub health: SocketAddr,
    /// Trust domain of all identities; fixed once the data directory exists.
    #[arg(long, env = "MESH_TRUST_DOMAIN", value_name = "NAME", default_value = DEFAULT_TRUST_DOMAIN)]
    pub trust_domain: TrustDomain,
    /// DNS domain after `svc` in the names of Services.
    #[arg(long, env = "MESH_CLUSTER_DOMAIN", value_name = "NAME", default_value = DEFAULT_CLUSTER_DOMAIN)]
    pub cluster_domain: String,
    /// Life of the certificates of proxies, as in 24h; they renew at half of it.
    #[arg(long, env = "MESH_LEAF_LIFETIME", value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    pub leaf_lifetime: Duration,
    /// Where the API server asks for injection and for checks of objects; Kubernetes only.
    #[arg(long, env = "MESH_WEBHOOK", value_name = "ADDR", requires = "kubernetes")]
    pub webhook: Option<SocketAddr>,
    /// YAML file with the defaults of injection; what it says counts at once.
    #[arg(long, env = "MESH_INJECT_CONFIG", value_name = "FILE", requires = "webhook")]
    pub inject_config: Option<PathBuf>,
    /// What is logged, as in `info` or `mesh_controller=debug`.
    #[arg(long, env = "MESH_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

impl RunArgs {
    /// The configuration that these flags mean. `env` reads environment variables for the default data directory.
    #[must_use]
    pub fn config(self, env: impl Fn(&str) -> Option<String>) -> Config {
        let own = InCluster { namespace: self.namespace, pod: self.pod_name };
        Config {
            source: self.source.map_or(Origin::Kubernetes(own), Origin::Directory),
            data_dir: self.data_dir.unwrap_or_else(|| default_data_dir(env)),
            listen: self.listen,
            view: self.view,
            health: self.health,
            trust_domain: self.trust_domain,
            cluster_domain: self.cluster_domain,
            leaf_lifetime: self.leaf_lifetime,
            webhook: self.webhook,
            inject_config: self.inject_config,
        }
    }
}

fn default_data_dir(env: impl Fn(&str) -> Option<String>) -> PathBuf {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_default()
        .join("mesh")
}

/// Reads a time as in `24h`, `90m`, `30s` or `7d`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    UNITS
        .iter()
        .find_map(|(unit, seconds)| {
            let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
            Some(Duration::from_secs(count.checked_mul(*seconds)?))
        })
        .ok_or_else(|| "expected a number with a unit, as in 24h, 90m, 30s or 7d".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use mesh_core::ports;

    use super::*;

    #[test]
    fn flags_are_consistent_and_defaults_are_the_documented_ports() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["mesh-controller", "run", "--source", "/tmp"]).unwrap();
        let Command::Run(args) = cli.command else { panic!("{:?}", cli.command) };
        let home = |name: &str| (name == "HOME").then(|| "/home/a".to_owned());
        let config = args.config(home);
        assert_eq!(config.listen.port(), ports::CONTROL);
        assert_eq!(config.view.port(), ports::VIEW);
        assert_eq!(config.health.port(), ports::CONTROLLER_HEALTH);
        assert_eq!(config.data_dir, PathBuf::from("/home/a/.local/state/mesh"));
        assert_eq!(config.leaf_lifetime, Duration::from_secs(86_400));
        config.check().unwrap();
        let open = Config { view: "0.0.0.0:15080".parse().unwrap(), ..config };
        assert!(open.check().unwrap_err().to_string().contains("loopback"));
    }

    #[test]
    fn durations() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(parse_duration(text).ok(), seconds.map(Duration::from_secs), "{text:?}");
        };
        check("24h", Some(86_400));
        check("90m", Some(5400));
        check("7d", Some(604_800));
        for bad in ["", "h", "24", "1.5h", "-1s", "24 h", "99999999999999999999d"] {
            check(bad, None);
        }
    }
}
