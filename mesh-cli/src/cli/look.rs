//! Flags of the commands that look into one thing, in a cluster above all.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::Kind;
use crate::out::units;

/// Kinds of things that `inspect` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Thing {
    /// One running instance with its proxy.
    #[value(alias = "workloads", alias = "wl")]
    Workload,
    /// A Service.
    #[value(alias = "services", alias = "svc")]
    Service,
    /// An identity that workloads run under.
    #[value(alias = "serviceaccounts", alias = "sa")]
    Serviceaccount,
    /// A pod of a cluster, in the mesh or not.
    #[value(alias = "pods", alias = "po")]
    Pod,
    /// A Deployment of a cluster, and its pods.
    #[value(alias = "deployments", alias = "deploy")]
    Deployment,
    /// A `StatefulSet` of a cluster, and its pods.
    #[value(alias = "statefulsets", alias = "sts")]
    Statefulset,
    /// A `DaemonSet` of a cluster, and its pods.
    #[value(alias = "daemonsets", alias = "ds")]
    Daemonset,
    /// A namespace of a cluster.
    #[value(alias = "namespaces", alias = "ns")]
    Namespace,
    /// A node of a cluster.
    #[value(alias = "nodes", alias = "no")]
    Node,
}

impl Thing {
    /// What the controller knows by itself; None: the API server must be asked.
    pub(crate) fn kind(self) -> Option<Kind> {
        match self {
            Self::Workload => Some(Kind::Workload),
            Self::Service => Some(Kind::Service),
            Self::Serviceaccount => Some(Kind::Serviceaccount),
            Self::Pod
            | Self::Deployment
            | Self::Statefulset
            | Self::Daemonset
            | Self::Namespace
            | Self::Node => None,
        }
    }
}

/// Flags of `meshctl inspect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Kinds: workload (wl), service (svc), serviceaccount (sa); in a cluster also pod (po),
deployment (deploy), statefulset (sts), daemonset (ds), namespace (ns), node (no).

Examples:
  meshctl inspect workload cart
  meshctl inspect svc catalog -n shop
  meshctl inspect sa shop/storefront
  meshctl inspect pod shop/cart-7d4b9-x2x1       Is it in the mesh, and if not, why?
  meshctl inspect deploy cart -n shop")]
pub(crate) struct InspectArgs {
    /// What kind of thing.
    #[arg(value_enum, hide_possible_values = true)]
    pub(crate) kind: Thing,
    /// Its name, or NAMESPACE/NAME.
    pub(crate) name: String,
    /// Its namespace; needed only when the name exists in several.
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
    /// How far back to look for its calls.
    #[arg(long, default_value = "30s", value_parser = units::parse_window, value_name = "TIME")]
    pub(crate) window: Duration,
}

/// Flags of `meshctl wait`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl apply -f canary.yaml && meshctl wait --applied
  meshctl wait --applied --timeout 2m

Here --timeout is the time for all of it [default: 30s].

Exit codes: 0 all connected proxies have it; 1 they have not in time; 2 it cannot be told.")]
pub(crate) struct WaitArgs {
    /// Until all connected proxies have applied the controller's newest configuration.
    #[arg(long, required = true)]
    pub(crate) applied: bool,
}

/// Parts of what a proxy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// How it is.
    Status,
    /// Where it listens.
    Listeners,
    /// Its own configuration and that of its workload.
    Config,
    /// Destinations that it asked for.
    #[value(alias = "clusters")]
    Destinations,
    /// Rules of its destinations.
    Routes,
    /// Endpoints of its destinations.
    Endpoints,
    /// Its certificate and the roots it trusts.
    Certificates,
    /// What it counted.
    Edges,
}

/// Flags of `meshctl proxy-config`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  meshctl proxy-config cart-7d4b9-x2x1 -n shop              All of it
  meshctl proxy-config shop/cart-7d4b9-x2x1 endpoints
  meshctl proxy-config shop/cart-7d4b9-x2x1 routes -o json  As the proxy says it

In a cluster it takes the right to create pods/portforward in the pod's namespace. Private keys are
in none of it: proxies do not tell them.")]
pub(crate) struct ProxyConfigArgs {
    /// Name of the pod or workload, or NAMESPACE/NAME.
    pub(crate) name: String,
    /// Which part [default: all].
    #[arg(value_enum)]
    pub(crate) part: Option<Part>,
    /// Its namespace; needed only when the name exists in several.
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
}

/// Flags of `meshctl logs`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  meshctl logs                                  The controllers
  meshctl logs shop/cart-7d4b9-x2x1 -f          A pod's sidecar, as it goes on
  meshctl logs cart-7d4b9-x2x1 --tail 20 --since 10m")]
pub(crate) struct LogsArgs {
    /// Pod whose sidecar is meant, or NAMESPACE/NAME [default: the controllers].
    pub(crate) name: Option<String>,
    /// Its namespace; needed only when the name exists in several.
    #[arg(long, short, requires = "name")]
    pub(crate) namespace: Option<String>,
    /// Go on until Ctrl-C.
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only the last lines.
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<i64>,
    /// Only what is not older than this.
    #[arg(long, value_parser = units::parse_duration, value_name = "TIME")]
    pub(crate) since: Option<Duration>,
    /// Of the container before its last restart.
    #[arg(long, conflicts_with = "follow")]
    pub(crate) previous: bool,
    /// The init container that writes the firewall's rules, instead of the sidecar.
    #[arg(long, requires = "name")]
    pub(crate) init: bool,
}

/// Flags of `meshctl support-bundle`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  meshctl support-bundle
  meshctl support-bundle --file mesh.tar.gz --proxies 0

Left out: contents of Secrets, values of the applications' environment, and whatever looks like a
token, a password or a private key. Look into it before you give it away.")]
pub(crate) struct SupportBundleArgs {
    /// Where to write it [default: mesh-support-TIME.tar.gz here].
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Most proxies that are asked and whose logs are taken.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub(crate) proxies: usize,
    /// Lines of each log.
    #[arg(long, value_name = "LINES", default_value_t = 2000)]
    pub(crate) tail: i64,
}
