//! `meshctl completion`: a completion script for a shell.

use clap::CommandFactory as _;

use crate::{
    Exit,
    cli::{Cli, CompletionArgs},
    out::Out,
};

/// Prints the script.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn run(args: &CompletionArgs, out: &Out) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "meshctl", &mut script);
    out.line(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Ok)
}
