//! The proxy's binary: flags, signals, exit code.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mesh_proxy::{Config, Options, Proxy, logging};
use tokio::signal::unix::{SignalKind, signal};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The sidecar of the mesh
#[derive(Parser)]
#[command(name = "mesh-proxy", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs beside one workload until SIGTERM or SIGINT, then drains
    Run(Box<Options>),
}

fn main() -> ExitCode {
    let Command::Run(options) = Cli::parse().command;
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::print_stderr, reason = "logging may not be set up")]
fn report(error: &anyhow::Error) {
    eprintln!("mesh-proxy: {error:#}");
}

fn run(options: &Options) -> anyhow::Result<()> {
    let config = Config::new(options).context("bad configuration")?;
    logging::init(&options.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let proxy = Proxy::start(config).await?;
        let end = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            end = proxy.asked_to_stop() => end,
        };
        proxy.shutdown().await;
        Ok(end?)
    })
}
