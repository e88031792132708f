//! Flags of the commands that change a cluster.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use crate::{chart::values::Wanted, out::units};

/// Sets of values that come with the chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// One replica that asks for little.
    Demo,
    /// Three replicas, spread, with a disruption budget and a NetworkPolicy.
    Ha,
    /// One replica, without the kinds of SMI.
    Minimal,
}

/// Values of the chart.
#[derive(Debug, Args)]
pub(crate) struct Values {
    /// A set of values to begin with.
    #[arg(long, value_enum, value_name = "NAME")]
    profile: Option<Profile>,
    /// File of values (YAML), as for Helm; can be repeated.
    #[arg(long = "values", short = 'f', value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A value, as in controller.replicas=3; can be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A value that is text, whatever it looks like.
    #[arg(long, value_name = "NAME=TEXT")]
    set_string: Vec<String>,
}

impl Values {
    /// As the chart takes them.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        let profile = self.profile.map(|profile| match profile {
            Profile::Demo => "demo",
            Profile::Ha => "ha",
            Profile::Minimal => "minimal",
        });
        Wanted { profile, files: &self.files, set: &self.set, set_string: &self.set_string }
    }
}

/// Flags of `meshctl install`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  meshctl install                                  As the chart has it
  meshctl install --profile ha --dry-run           What would be done
  meshctl install -f values.yaml --set proxy.logLevel=warn
  meshctl install -o yaml | kubectl apply -f -     Without asking the cluster

Values: charts/mesh/README.md. What is there already is completed, or changed to what is asked for:
values of the installation stay, with those that are typed on top.

Exit codes: 0 the mesh is ready; 1 it cannot be installed, or does not get ready; 2 wrong usage
or values, or the cluster cannot be asked.")]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) values: Values,
    /// Only show what would be done, as the API server says.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait until the mesh is ready.
    #[arg(long, default_value = "2m", value_parser = units::parse_duration, value_name = "TIME")]
    pub(crate) within: Duration,
    /// Install although another mesh is there.
    #[arg(long)]
    pub(crate) beside_others: bool,
}

/// Flags of `meshctl upgrade`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  meshctl upgrade --dry-run                        What would be done
  meshctl upgrade                                  To this meshctl's version
  meshctl upgrade --set controller.replicas=3      To another value

Values of the installation stay, with those that are typed on top.

Exit codes: 0 the mesh is ready; 1 it is not upgraded: it is as it was, or the command says how it
stands; 2 wrong usage or values, or the cluster cannot be asked.")]
pub(crate) struct UpgradeArgs {
    #[command(flatten)]
    pub(crate) values: Values,
    /// Begin with the chart's defaults instead of the values of the installation.
    #[arg(long)]
    pub(crate) reset_values: bool,
    /// Only show what would be done, as the API server says.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait until the new controller is ready; then the earlier one comes back.
    #[arg(long, default_value = "2m", value_parser = units::parse_duration, value_name = "TIME")]
    pub(crate) within: Duration,
    /// Upgrade over more than one minor version, or to an earlier one, or away from proxies.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Flags of `meshctl uninstall`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  meshctl uninstall --dry-run                      What would be deleted
  meshctl uninstall

The mesh's keys go with it: what is installed later has another authority.

Exit codes: 0 nothing of the mesh is there; 1 it is refused, or not all is gone; 2 wrong usage, or
the cluster cannot be asked.")]
pub(crate) struct UninstallArgs {
    /// Also while pods have sidecars, or objects of the mesh's kinds would go.
    #[arg(long)]
    pub(crate) force: bool,
    /// Leave the mesh's kinds, and the objects of them.
    #[arg(long)]
    pub(crate) keep_crds: bool,
    /// Only show what would be deleted.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait until all is gone.
    #[arg(long, default_value = "2m", value_parser = units::parse_duration, value_name = "TIME")]
    pub(crate) within: Duration,
}
