//! The binary: reads flags, starts the controller, stops it on a signal.

use std::io::IsTerminal as _;

use anyhow::{Context, bail};
use clap::Parser;
use mesh_controller::{Cli, Command, Controller, RunArgs};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

fn main() -> anyhow::Result<()> {
    let command = Cli::parse().command;
    let log = match &command {
        Command::Run(args) => &args.log,
        Command::CniAgent(args) => &args.log,
    };
    // kube tells each failure, again and again; we tell each once.
    let filter =
        EnvFilter::try_new(format!("kube_client=off,{}", log)).with_context(|| format!("--log {log:?}"))?;
    // Colours are for people who look on; a file has none.
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("controller")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    match command {
        Command::Run(args) => runtime.block_on(run(args)),
        Command::CniAgent(args) => runtime.block_on(async {
            let stop = stopped()?;
            mesh_controller::run_cni_agent(args, stop).await
        }),
    }
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let stop = stopped()?;
    let mut controller = Controller::start(args.config(|name| std::env::var(name).ok())).await?;
    let broken = tokio::select! {
        () = stop => None,
        part = controller.broken() => Some(part),
    };
    if let Some(part) = broken {
        tracing::error!(part, "ended by itself: stopping, so that another controller takes over");
    }
    controller.shutdown().await;
    match broken {
        None => Ok(()),
        Some(part) => bail!("{part} ended by itself: see what the log says before that, and report it"),
    }
}

/// Waits for the signal that ends it.
fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}
