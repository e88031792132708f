//! What was typed: flags and arguments. What they mean is decided in [`crate::ctx`] and in each command.

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use mesh_core::{
    identity::TrustDomain,
    name::is_dns_name,
    ports::{DEFAULT_CLUSTER_DOMAIN, DEFAULT_TRUST_DOMAIN},
};
use mesh_k8s::inject::Server;

mod cluster;
mod look;

pub(crate) use self::{
    cluster::{InstallArgs, UninstallArgs, UpgradeArgs},
    look::{InspectArgs, LogsArgs, Part, ProxyConfigArgs, SupportBundleArgs, Thing, WaitArgs},
};
use crate::out::units;

const AFTER_HELP: &str = "\
Examples:
  meshctl demo                      Try the whole mesh on this machine
  meshctl check                     Is anything wrong?
  meshctl edges                     Who calls whom, how well, and is it encrypted?
  meshctl inspect workload cart     What does the mesh think of it?
  meshctl install                   Put it into the cluster of the current context

Exit codes: 0 all is well; 1 what was checked is not well; 2 wrong usage, or it cannot be told.";

/// Looks at a running service mesh, checks it, and tries it out.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, about, after_help = AFTER_HELP, max_term_width = 100)]
#[command(disable_help_flag = true, disable_help_subcommand = true, subcommand_required = true)]
pub(crate) struct Cli {
    /// Print help.
    // One short form for both: the long one has five lines for every flag.
    #[arg(long, short, global = true, action = ArgAction::HelpShort)]
    pub(crate) help: Option<bool>,
    #[command(flatten)]
    pub(crate) connect: Connect,
    #[command(flatten)]
    pub(crate) place: Where,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the controller is.
#[derive(Debug, Args)]
#[command(next_help_heading = "Controller")]
pub(crate) struct Connect {
    /// Data directory of a controller on this machine [default: ~/.local/state/mesh].
    #[arg(long, global = true, env = "MESH_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address of the view API, instead of what the data directory says.
    #[arg(long, global = true, env = "MESH_VIEW", hide_env_values = true, value_name = "IP:PORT")]
    pub(crate) view: Option<String>,
    /// File that holds the view API's token [default: view-token in the data directory].
    #[arg(long, global = true, env = "MESH_VIEW_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) view_token_file: Option<PathBuf>,
    /// How long to wait for each answer [default: 5s].
    #[arg(long, global = true, value_parser = units::parse_duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
}

impl Connect {
    /// How long one answer may take.
    pub(crate) fn answer(&self) -> Duration {
        self.timeout.unwrap_or(Duration::from_secs(5))
    }
}

/// Which Kubernetes cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct Where {
    /// File that says how to reach clusters [default: KUBECONFIG, else ~/.kube/config].
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Which of its contexts [default: the current one].
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// How to answer.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Form of the answer.
    #[arg(long = "output", short = 'o', global = true, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) format: Format,
    /// Only what was asked for: no hints, no remarks.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more.
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

/// Forms of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check that the mesh is well, and say what to do where it is not.
    Check(CheckArgs),
    /// Show the controller, its objects and its proxies at a glance.
    Status(StatusArgs),
    /// Show what the mesh thinks of a workload, a Service, an account, a pod or a node.
    Inspect(InspectArgs),
    /// Show what a proxy really has.
    ProxyConfig(ProxyConfigArgs),
    /// Show the log of the controllers, or of a pod's sidecar.
    Logs(LogsArgs),
    /// Show traffic per Service, workload or service account.
    Stat(StatArgs),
    /// Show who calls whom.
    Edges(EdgesArgs),
    /// Wait until all proxies have the newest configuration.
    Wait(WaitArgs),
    /// Collect what helps to find out what is wrong in a cluster, without secrets.
    SupportBundle(SupportBundleArgs),
    /// Put a proxy into the pods of Kubernetes YAML, as the controller's webhook does.
    Inject(Box<InjectArgs>),
    /// Take it out again.
    Uninject(UninjectArgs),
    /// Put the mesh into a Kubernetes cluster, and wait until it is ready.
    Install(InstallArgs),
    /// Bring the mesh in a cluster to this meshctl's version, and back if that fails.
    Upgrade(UpgradeArgs),
    /// Take the mesh out of a cluster, without a trace.
    Uninstall(UninstallArgs),
    /// Try the whole mesh on this machine, without root.
    Demo(crate::demo::DemoArgs),
    /// Print a completion script for a shell.
    Completion(CompletionArgs),
    /// Print the versions of meshctl, of the controller and of proxies.
    Version(VersionArgs),
}

/// Flags of `meshctl check`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  meshctl check                     The running mesh
  meshctl check --pre               Can it be installed in this cluster?
  meshctl check --proxy             Also ask every proxy in the cluster
  meshctl check --source ./mesh     Only the YAML in a directory; needs no controller
  meshctl check -o json             All checks, for a program

Exit codes: 0 no check failed (warnings are allowed); 1 a check failed; 2 it cannot be told.")]
pub(crate) struct CheckArgs {
    /// Check whether the mesh can be installed in the cluster.
    #[arg(long, conflicts_with_all = ["proxy", "source"])]
    pub(crate) pre: bool,
    /// Also ask each proxy in the cluster: connected, age of its configuration, identity.
    #[arg(long, conflicts_with = "source")]
    pub(crate) proxy: bool,
    /// Check the YAML files of this directory instead of the running mesh.
    #[arg(long, value_name = "DIR")]
    pub(crate) source: Option<PathBuf>,
    /// Trust domain of the mesh that the files are for.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_TRUST_DOMAIN, requires = "source")]
    pub(crate) trust_domain: TrustDomain,
    /// DNS domain after `svc` in the names of its Services.
    #[arg(long, value_name = "NAME", default_value = DEFAULT_CLUSTER_DOMAIN, requires = "source", value_parser = cluster_domain)]
    pub(crate) cluster_domain: String,
}

fn cluster_domain(text: &str) -> Result<String, &'static str> {
    if is_dns_name(text) { Ok(text.to_owned()) } else { Err("expected a DNS name, as in cluster.local") }
}

/// Flags of `meshctl status`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  meshctl status -o json")]
pub(crate) struct StatusArgs {}

/// Kinds of things that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// One running instance with its proxy.
    #[value(alias = "workloads", alias = "wl")]
    Workload,
    /// A Service.
    #[value(alias = "services", alias = "svc")]
    Service,
    /// An identity that workloads run under.
    #[value(alias = "serviceaccounts", alias = "sa")]
    Serviceaccount,
}

impl Kind {
    /// What people call it.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Service => "service",
            Self::Serviceaccount => "service account",
        }
    }

    /// As it is typed.
    pub(crate) fn arg(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Service => "service",
            Self::Serviceaccount => "serviceaccount",
        }
    }
}

/// Flags of `meshctl stat`.
#[derive(Debug, Args)]
#[command(after_help = "\
A call to a Service that is split counts for the Service that was called and for
the one that took it.

Examples:
  meshctl stat                          All Services
  meshctl stat svc catalog -n shop      One Service
  meshctl stat workload --window 5m     All workloads, over five minutes
  meshctl stat sa --watch               All service accounts, again and again")]
pub(crate) struct StatArgs {
    /// What to count for.
    #[arg(value_enum, default_value = "service")]
    pub(crate) kind: Kind,
    /// Only this one: NAME or NAMESPACE/NAME.
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

/// Flags of `meshctl edges`.
#[derive(Debug, Args)]
#[command(after_help = "\
SECURED: yes = mesh TLS, and both proxies say so
         caller, callee = mesh TLS; so far only that side's proxy has reported
         no = plaintext
         - = no peer was reached

Examples:
  meshctl edges -n shop
  meshctl edges --to cart                Who calls cart?
  meshctl edges --from storefront --watch")]
pub(crate) struct EdgesArgs {
    /// Only calls from this service account: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "NAME")]
    pub(crate) from: Option<String>,
    /// Only calls to this service account, Service or workload: NAME or NAMESPACE/NAME.
    #[arg(long, value_name = "NAME")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

/// Which traffic.
#[derive(Clone, Debug, Args)]
pub(crate) struct Scope {
    /// Only this namespace.
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
    /// All namespaces (the default).
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// How far back to look, at most 10m; 0 for everything since the proxies' start.
    #[arg(long, default_value = "30s", value_parser = units::parse_window, value_name = "TIME")]
    pub(crate) window: Duration,
    /// Show again every two seconds, until Ctrl-C.
    #[arg(long, short)]
    pub(crate) watch: bool,
}

/// Flags of `meshctl inject`.
#[derive(Debug, Args)]
#[command(after_help = "\
Changes Pods, Deployments, DaemonSets, StatefulSets, ReplicaSets, Jobs, CronJobs
and Lists of them; everything else, and the order, stays. Nothing is written if
anything is refused. docs/injection.md has the annotations.

Examples:
  meshctl inject -f app.yaml | kubectl apply -f -
  kubectl get deploy web -o yaml | meshctl inject -f - | kubectl apply -f -
  meshctl inject -f app.yaml --config inject.yaml --server-version 1.28")]
pub(crate) struct InjectArgs {
    /// YAML file; - for standard input. Can be repeated.
    #[arg(long, short, value_name = "FILE", required = true)]
    pub(crate) file: Vec<PathBuf>,
    /// Defaults of injection: what stands in the ConfigMap mesh-config under inject.yaml.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Image of the proxy.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) proxy_image: Option<String>,
    /// Where proxies find the controller.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) controller: Option<String>,
    /// What proxies log.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) proxy_log_level: Option<String>,
    /// Trust domain of the mesh.
    #[arg(long, value_name = "NAME")]
    pub(crate) trust_domain: Option<String>,
    /// Whether proxies are native sidecars; auto: where the cluster has them.
    #[arg(long, value_enum, value_name = "WHETHER")]
    pub(crate) native_sidecars: Option<NativeSidecars>,
    /// Version of the cluster, as in 1.28 [default: a recent one].
    #[arg(long, value_name = "VERSION", value_parser = crate::cmd::inject::server_version)]
    pub(crate) server_version: Option<Server>,
}

/// Whether proxies are native sidecars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NativeSidecars {
    /// Where the cluster has them.
    Auto,
    /// Always.
    True,
    /// Never.
    False,
}

/// Flags of `meshctl uninject`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  kubectl get deploy web -o yaml | meshctl uninject -f - | kubectl apply -f -"
)]
pub(crate) struct UninjectArgs {
    /// YAML file; - for standard input. Can be repeated.
    #[arg(long, short, value_name = "FILE", required = true)]
    pub(crate) file: Vec<PathBuf>,
}

/// Flags of `meshctl completion`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  source <(meshctl completion bash)
  meshctl completion zsh > \"${fpath[1]}/_meshctl\"
  meshctl completion fish > ~/.config/fish/completions/meshctl.fish")]
pub(crate) struct CompletionArgs {
    /// Which shell.
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Flags of `meshctl version`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  meshctl version\n  meshctl version --client -o json")]
pub(crate) struct VersionArgs {
    /// Only meshctl's own: do not ask the controller.
    #[arg(long)]
    pub(crate) client: bool,
}
