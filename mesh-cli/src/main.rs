//! `meshctl`: what people use to look at the mesh and to try it.
//!
//! [`cli`] is what was typed, [`ctx`] what it means, [`cmd`] one file per command, [`out`] the only place that writes.

mod admin;
mod chart;
mod cli;
mod cluster;
mod cmd;
mod ctx;
mod demo;
mod install;
mod nearest;
mod out;
mod traffic;
mod view;
mod words;

use std::{io, process::ExitCode};

use clap::Parser as _;

use crate::{
    cli::{Cli, Command},
    ctx::Ctx,
    out::Out,
};

/// How a command ended, and so the process's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well (0).
    Ok,
    /// What was checked or asked for is not well (1).
    NotWell,
    /// It could not be found out, or the command line was wrong (2).
    CannotTell,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => Self::SUCCESS,
            Exit::NotWell => Self::from(1),
            Exit::CannotTell => Self::from(2),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Out::new(&cli.output);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            out.error(&anyhow::Error::new(error).context("cannot start"));
            return Exit::CannotTell.into();
        }
    };
    match runtime.block_on(run(cli, &mut out)) {
        Ok(exit) => exit.into(),
        // The reader of our output went away (`meshctl ... | head`): it has what it wanted.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            out.error(&error);
            Exit::CannotTell.into()
        }
    }
}

async fn run(cli: Cli, out: &mut Out) -> anyhow::Result<Exit> {
    let ctx = || Ctx::new(&cli.connect, &cli.place);
    match cli.command {
        Command::Check(args) => cmd::check::run(&ctx()?, &args, out).await,
        Command::Status(args) => cmd::status::run(&ctx()?, &args, out).await,
        Command::Inspect(args) => cmd::inspect::run(&ctx()?, &args, out).await,
        Command::Stat(args) => cmd::stat::run(&ctx()?, &args, out).await,
        Command::Edges(args) => cmd::edges::run(&ctx()?, &args, out).await,
        Command::Inject(args) => cmd::inject::inject(&args, out),
        Command::Uninject(args) => cmd::inject::uninject(&args, out),
        Command::ProxyConfig(args) => cmd::proxy_config::run(&ctx()?, &args, out).await,
        Command::Logs(args) => cmd::logs::run(&ctx()?, &args, out).await,
        Command::SupportBundle(args) => cmd::bundle::run(&ctx()?, &args, out).await,
        Command::Wait(args) => cmd::wait::run(&ctx()?, &args, out).await,
        Command::Install(args) => cmd::install::run(&cli.place, cli.connect.answer(), &args, out).await,
        Command::Upgrade(args) => cmd::upgrade::run(&cli.place, cli.connect.answer(), &args, out).await,
        Command::Uninstall(args) => cmd::uninstall::run(&cli.place, cli.connect.answer(), &args, out).await,
        Command::Demo(args) => demo::run(args, out).await,
        Command::Completion(args) => cmd::completion::run(&args, out),
        Command::Version(args) => cmd::version::run(&ctx()?, &args, out).await,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
