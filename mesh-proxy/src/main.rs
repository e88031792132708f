//! The proxy's binary: flags, signals, exit code.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mesh_core::interception::UNCAPTURED;
use mesh_proxy::{
    Config, Options, Proxy, Signal, Succession,
    captured::{self, Uncaptured},
    cni,
    config::Mode,
    descriptors,
    init::InitOptions,
    live, logging, tell,
};
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
    /// Runs beside one workload until SIGTERM or SIGINT, then drains; a second one ends it at once. SIGUSR2 upgrades
    Run(Box<Options>),
    /// Leads the workload's connections through the proxy, by firewall rules
    Init(Box<InitOptions>),
    /// Sees that rules lead connections to the proxy: it ends with exit code 76 if they do not. Needs no privilege
    ExpectRules(captured::Expect),
    /// Puts this program among a node's CNI plugins, as mesh-cni: it writes the rules for pods that may not
    CniInstall(cni::Install),
    /// Waits until a running proxy is ready
    Wait(tell::Wait),
    /// Asks a running proxy to drain, as SIGTERM does
    Drain(tell::Socket),
    /// Replaces a running proxy by another binary, with no connection lost
    Upgrade(tell::Upgrade),
    /// Tells a running proxy that its application is done: it finishes what runs, and ends
    Quit(tell::Socket),
}

fn main() -> ExitCode {
    if cni::is_meant(std::env::args_os().next().as_deref()) {
        return cni::main();
    }
    let done = match Cli::parse().command {
        Command::Run(options) => run(&options),
        Command::Init(options) => return init(&options),
        Command::ExpectRules(expect) => captured::check(expect.inbound_port).map_err(anyhow::Error::from),
        Command::CniInstall(install) => install.run().map_err(anyhow::Error::from),
        Command::Wait(wait) => wait.run().map_err(anyhow::Error::from),
        Command::Drain(socket) => socket.post("/drain").map_err(anyhow::Error::from),
        Command::Upgrade(upgrade) => upgrade.run().map_err(anyhow::Error::from),
        Command::Quit(socket) => socket.post("/quit").map_err(anyhow::Error::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            let is_uncaptured = matches!(error.downcast_ref(), Some(Uncaptured::NoRules(_)));
            ExitCode::from(if is_uncaptured { UNCAPTURED } else { 2 })
        }
    }
}

fn init(options: &InitOptions) -> ExitCode {
    use std::io::Write as _;
    match mesh_proxy::init::run(options) {
        Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let code = ExitCode::from(error.exit_code());
            report(&error.into());
            code
        }
    }
}

#[expect(clippy::print_stderr, reason = "logging may not be set up")]
fn report(error: &anyhow::Error) {
    eprintln!("mesh-proxy: {error:#}");
}

fn run(options: &Options) -> anyhow::Result<()> {
    let succession = Succession::receive()?;
    let outcome = serve(options, succession.as_ref());
    if let (Some(succession), Err(error)) = (&succession, &outcome) {
        succession.failed(&format!("{error:#}"));
    }
    outcome
}

fn serve(options: &Options, succession: Option<&Succession>) -> anyhow::Result<()> {
    let config = Config::new(options).context("bad configuration")?;
    logging::init(&options.log)?;
    if options.expect_rules && options.mode == Mode::Transparent && succession.is_none() {
        captured::check(config.inbound_port())?;
    }
    descriptors::raise();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut upgrade = signal(SignalKind::user_defined2())?;
        let mut signal = async || {
            tokio::select! {
                _ = terminate.recv() => Signal::End,
                _ = interrupt.recv() => Signal::End,
                _ = upgrade.recv() => Signal::Upgrade,
            }
        };
        let proxy = match succession {
            None => Proxy::start(config).await?,
            Some(succession) => {
                let mut proxy = Proxy::succeed(config, succession).await?;
                tokio::select! {
                    taken = proxy.take_over(succession) => taken?,
                    _ = signal() => anyhow::bail!("a signal came before the hand-over was done"),
                }
                proxy
            }
        };
        Ok(live(proxy, signal).await?)
    })
}
