//! `meshctl demo`: the whole mesh on this machine.

use clap::Args;

use crate::{Exit, out::Out};

/// Flags of `meshctl demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {}

/// Runs the demo.
///
/// # Errors
/// When something that it needs cannot be started.
pub(crate) async fn run(_args: DemoArgs, _out: &mut Out) -> anyhow::Result<Exit> {
    anyhow::bail!("not built yet")
}
