//! `meshctl demo`: the whole mesh on this machine, with the example shop in it.
//!
//! [`stage`] is the running mesh, [`once`] and [`live`] are what is played on it, [`checks`] is what is claimed of it.

mod binaries;
mod calls;
mod checks;
mod children;
mod counts;
mod http;
mod layout;
mod live;
mod metrics;
mod namespaces;
mod once;
mod outer;
mod process;
mod stage;
mod transparent;
mod watchdog;
mod workdir;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use self::{binaries::Binaries, layout::Break, stage::Stage, workdir::WorkDir};
use crate::{
    Exit,
    out::{Out, units},
};

/// Flags of `meshctl demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Starts mesh-controller, and a mesh-proxy beside every service of a small shop, on loopback addresses of their own.
Ctrl-C ends all of it and leaves nothing behind.

Examples:
  meshctl demo                          Look at it until Ctrl-C
  meshctl demo --keep --dir /tmp/shop   Keep the YAML, the state and the logs
  meshctl demo --once -o json           Check that everything works, for a program
  meshctl demo --transparent            The services know of no sidecar

Exit codes: 0 all that it claims holds; 1 something does not; 2 it could not be run.")]
pub(crate) struct DemoArgs {
    /// Run everything once, check every claim against what all parties counted, and end (at most 20 s).
    #[arg(long)]
    once: bool,
    /// End after this long, instead of at Ctrl-C.
    #[arg(long, value_parser = units::parse_duration, value_name = "TIME", conflicts_with = "once")]
    duration: Option<Duration>,
    /// Work directory, empty or new [default: a temporary one].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the work directory at the end.
    #[arg(long)]
    keep: bool,
    /// Requests a second [default: 100; with --once 400].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    rate: Option<u32>,
    /// Every workload in a network namespace of its own, its connections led through its sidecar by `mesh-proxy init`.
    /// Needs root, or user namespaces.
    #[arg(long)]
    transparent: bool,
    /// Do something wrong, to show that the checks tell.
    #[arg(long = "break", value_enum, hide = true)]
    broken: Option<Break>,
    /// Be the process that ends the others when meshctl is killed.
    #[arg(long, hide = true)]
    watchdog: bool,
    /// Be the transparent demo, within its namespace.
    #[arg(long, hide = true, requires = "transparent")]
    inside: bool,
}

/// Runs the demo.
///
/// # Errors
/// When something that it needs cannot be found or started.
pub(crate) async fn run(args: DemoArgs, out: &mut Out) -> anyhow::Result<Exit> {
    if args.watchdog {
        watchdog::run(std::io::stdin().lock());
        return Ok(Exit::Ok);
    }
    let begin = Instant::now();
    if args.transparent && !args.inside {
        Binaries::find()?;
        match outer::enter()? {}
    }
    // First of all: what is made from here on is removed also when the demo is ended at once.
    let interrupted = interruption()?;
    let binaries = Binaries::find()?;
    let dir = WorkDir::new(args.dir.as_deref(), args.keep)?;
    let (path, keep) = (dir.path().to_owned(), args.keep);
    let mut stage = Stage::new(binaries, dir, args.broken, args.transparent)?;
    let played = if args.once {
        once(&mut stage, &args, out, interrupted).await
    } else {
        live(&mut stage, &args, out, interrupted).await
    };
    if played.is_err()
        && let Some(words) = stage.last_words()
    {
        out.remark(&words);
    }
    let left = stage.stop().await;
    if keep {
        out.remark(&format!("YAML, state and logs are in {}", path.display()));
    }
    match played? {
        Played::Once(mut run) => {
            run.evidence.left = left;
            once::report(&run, begin.elapsed(), out)
        }
        Played::Live(exit) | Played::Interrupted(exit) => {
            left.iter().for_each(|what| out.remark(what));
            out.remark(if left.is_empty() { "Stopped; nothing is left running." } else { "Stopped." });
            Ok(if left.is_empty() { exit } else { Exit::NotWell })
        }
    }
}

/// How the piece ended.
enum Played {
    /// To be checked.
    Once(Box<once::Run>),
    /// Its time was over.
    Live(Exit),
    /// Somebody ended it.
    Interrupted(Exit),
}

async fn once(
    stage: &mut Stage,
    args: &DemoArgs,
    out: &Out,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<Played> {
    tokio::select! {
        biased;
        // Nothing was checked to its end.
        () = interrupted => Ok(Played::Interrupted(Exit::CannotTell)),
        run = once::play(stage, args.rate.unwrap_or(once::RATE), out) => Ok(Played::Once(Box::new(run?))),
    }
}

async fn live(
    stage: &mut Stage,
    args: &DemoArgs,
    out: &mut Out,
    interrupted: impl Future<Output = ()>,
) -> anyhow::Result<Played> {
    tokio::select! {
        biased;
        () = interrupted => Ok(Played::Interrupted(Exit::Ok)),
        exit = live::play(stage, args.rate.unwrap_or(live::RATE), args.duration, out) => Ok(Played::Live(exit?)),
    }
}

/// Ends at SIGINT, SIGTERM or SIGHUP.
fn interruption() -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("cannot wait for signals");
    let mut int = listen(SignalKind::interrupt())?;
    let mut term = listen(SignalKind::terminate())?;
    let mut hup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    })
}
