//! What is typed behind `mesh-controller cni-agent`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `cni-agent`. Each can also be given as an environment variable.
#[derive(Debug, Args)]
pub struct CniAgentArgs {
    /// The node that this runs on.
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node: Option<String>,
    /// Directory of the node's network configuration.
    #[arg(long, env = "MESH_CNI_CONF_DIR", value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub conf_dir: PathBuf,
    /// Unix socket on which the plugin asks; the path is the same for the node as for this.
    #[arg(long, env = "MESH_CNI_SOCKET", value_name = "FILE", default_value = "/run/mesh-cni/agent.sock")]
    pub socket: PathBuf,
    /// Namespaces whose pods start without a question: those of the system and of the mesh.
    #[arg(
        long,
        env = "MESH_CNI_EXCLUDE",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        default_value = "kube-system,mesh-system"
    )]
    pub exclude: Vec<String>,
    /// The DaemonSet that runs this: when it is gone, the plugin goes too. Without it, the plugin goes when this ends.
    #[arg(long, env = "MESH_CNI_DAEMON_SET", value_name = "NAMESPACE/NAME")]
    pub daemon_set: Option<String>,
    /// Ask the agent that runs whether it is ready, and end.
    #[arg(long)]
    pub probe: bool,
    /// What is logged, as in `info` or `mesh_controller=debug`.
    #[arg(long, env = "MESH_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}
