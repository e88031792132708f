//! What is typed behind `mesh-proxy init`.

use clap::ArgGroup;
use mesh_core::ports;

use super::{
    cgroup::CgroupError,
    plan::{Plan, Senders},
    values::{Cgroup, Cidr, ClassId, Interface, Mark, PortRange},
};

/// Most values of all lists together: every one is a rule that each new connection passes.
const MAX_VALUES: usize = 500;

/// Flags of `mesh-proxy init`. Lists are separated by commas, or the flag is repeated.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group = ArgGroup::new("proxy").multiple(true),
    after_help = "\
Writes the table `inet mesh` of nf_tables, as one transaction, in the network namespace where it
runs; no other program is needed. Again with other flags, it replaces the table. Other tables are
never touched.

TCP that the workload sends goes to the proxy's outbound port, TCP that comes for it to the inbound
port. UDP, and what the workload sends to its own host, are left alone. The proxy's own ports are
closed to everybody outside.

Examples:
  mesh-proxy init --proxy-uid 1337                    The proxy runs as a user of its own
  mesh-proxy init --proxy-mark 1337                   It runs as `mesh-proxy run --mark 1337`
  mesh-proxy init --proxy-uid 1337 --skip-inbound-port 22 --skip-outbound-cidr 10.0.0.0/8
  mesh-proxy init --proxy-uid 1337 --print            Show the rules as text for `nft -f`
  mesh-proxy init --remove                            As it was before

Exit codes: 0 done; 1 the kernel does not take it; 2 what was typed makes no sense. After 1 and 2
nothing has changed."
)]
pub struct InitOptions {
    /// The proxy's user: what it sends is not led to the proxy again
    #[arg(long, group = "proxy", value_name = "UID", value_delimiter = ',')]
    proxy_uid: Vec<u32>,
    /// The proxy's group
    #[arg(long, group = "proxy", value_name = "GID", value_delimiter = ',')]
    proxy_gid: Vec<u32>,
    /// The mark of the proxy's packets (see `mesh-proxy run --mark`)
    #[arg(long, group = "proxy", value_name = "MARK[/MASK]", value_delimiter = ',')]
    proxy_mark: Vec<Mark>,
    /// The proxy's cgroup (version 2), as in /proc/PID/cgroup behind 0::
    #[arg(long, group = "proxy", value_name = "/PATH", value_delimiter = ',')]
    proxy_cgroup: Vec<String>,
    /// The net_cls class of the proxy's cgroup (version 1)
    #[arg(long, group = "proxy", value_name = "CLASSID", value_delimiter = ',')]
    proxy_classid: Vec<ClassId>,
    /// Users whose connections are left alone
    #[arg(long, value_name = "UID", value_delimiter = ',')]
    skip_uid: Vec<u32>,
    /// Groups whose connections are left alone
    #[arg(long, value_name = "GID", value_delimiter = ',')]
    skip_gid: Vec<u32>,
    /// Marks of packets that are left alone
    #[arg(long, value_name = "MARK[/MASK]", value_delimiter = ',')]
    skip_mark: Vec<Mark>,
    /// Cgroups (version 2) whose connections are left alone
    #[arg(long, value_name = "/PATH", value_delimiter = ',')]
    skip_cgroup: Vec<String>,
    /// Classes of cgroups (version 1) whose connections are left alone
    #[arg(long, value_name = "CLASSID", value_delimiter = ',')]
    skip_classid: Vec<ClassId>,
    /// Ports to which connections are left alone
    #[arg(long, value_name = "PORT[-PORT]", value_delimiter = ',')]
    skip_outbound_port: Vec<PortRange>,
    /// Ports of the workload that are left alone, beside 15020
    #[arg(long, value_name = "PORT[-PORT]", value_delimiter = ',')]
    skip_inbound_port: Vec<PortRange>,
    /// Addresses to which connections are left alone
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    skip_outbound_cidr: Vec<Cidr>,
    /// Addresses from which connections are left alone
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    skip_inbound_cidr: Vec<Cidr>,
    /// Interfaces that are left alone, in both directions; NAME* for all that begin so
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    skip_interface: Vec<Interface>,
    /// Lead the workload's DNS questions (UDP and TCP to port 53) to this port of the host
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    dns_port: Option<u16>,
    /// The proxy's outbound port
    #[arg(long, value_name = "PORT", default_value_t = ports::OUTBOUND, value_parser = clap::value_parser!(u16).range(1..))]
    outbound_port: u16,
    /// The proxy's inbound port
    #[arg(long, value_name = "PORT", default_value_t = ports::INBOUND, value_parser = clap::value_parser!(u16).range(1..))]
    inbound_port: u16,
    /// More ports that are closed to everybody outside, beside 15000 and the proxy's listeners
    #[arg(long, value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    private_port: Vec<u16>,
    /// Show the rules as text for `nft -f`, and change nothing
    #[arg(long)]
    pub(super) print: bool,
    /// Remove the rules; it is no error when there are none
    #[arg(long)]
    pub(super) remove: bool,
}

/// What is wrong with the flags together.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// The proxy could not be told apart.
    #[error(
        "how is the proxy told from the workload? Give --proxy-uid, --proxy-gid, --proxy-mark, --proxy-cgroup or --proxy-classid: without it, what the proxy sends would be led to the proxy for ever"
    )]
    NoProxy,
    /// One port has two uses.
    #[error("port {0} is given to two of --outbound-port, --inbound-port and --dns-port")]
    SamePort(u16),
    /// There are too many rules.
    #[error(
        "{0} values are more than {MAX_VALUES}, and each new connection passes all of them: use ranges and networks"
    )]
    TooMany(usize),
    /// A cgroup is not there.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
}

impl InitOptions {
    /// What was typed, as a plan.
    ///
    /// # Errors
    /// [`UsageError`].
    pub(super) fn plan(&self) -> Result<Plan, UsageError> {
        self.check_ports()?;
        let plan = Plan {
            proxy: Senders {
                users: self.proxy_uid.clone(),
                groups: self.proxy_gid.clone(),
                marks: self.proxy_mark.clone(),
                classes: self.proxy_classid.clone(),
                cgroups: cgroups(&self.proxy_cgroup)?,
            },
            skip: Senders {
                users: self.skip_uid.clone(),
                groups: self.skip_gid.clone(),
                marks: self.skip_mark.clone(),
                classes: self.skip_classid.clone(),
                cgroups: cgroups(&self.skip_cgroup)?,
            },
            outbound: self.outbound_port,
            inbound: self.inbound_port,
            private: [&[ports::ADMIN], self.private_port.as_slice()].concat(),
            skip_outbound_ports: self.skip_outbound_port.clone(),
            skip_inbound_ports: self.skip_inbound_port.clone(),
            skip_outbound: self.skip_outbound_cidr.clone(),
            skip_inbound: self.skip_inbound_cidr.clone(),
            skip_interfaces: self.skip_interface.clone(),
            dns: self.dns_port,
        };
        if plan.proxy.is_empty() {
            return Err(UsageError::NoProxy);
        }
        let rules = plan.table().chains.iter().map(|chain| chain.rules.len()).sum();
        if rules > MAX_VALUES { Err(UsageError::TooMany(rules)) } else { Ok(plan) }
    }

    fn check_ports(&self) -> Result<(), UsageError> {
        let (outbound, inbound) = (self.outbound_port, self.inbound_port);
        if outbound == inbound || self.dns_port == Some(outbound) {
            return Err(UsageError::SamePort(outbound));
        }
        if self.dns_port == Some(inbound) { Err(UsageError::SamePort(inbound)) } else { Ok(()) }
    }
}

fn cgroups(paths: &[String]) -> Result<Vec<Cgroup>, CgroupError> {
    paths.iter().map(|path| Cgroup::find(path)).collect()
}
