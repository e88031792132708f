//! `cargo xtask soak`: all kinds of traffic at a moderate rate, while connections, endpoints, routes and certificates
//! change. Nothing may fail, and no process may grow.
//!
//! The mesh is that of `cargo xtask bench`, with a second server. docs/scale.md has the method and the results.

mod changes;
mod growth;
mod report;

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use self::changes::Changes;
use self::growth::Series;
use crate::bench::arrange::{Places, Protocol, Way, mesh, socket};
use crate::bench::cells::{Load, Traffic};
use crate::bench::client::{Application, Client, Seen};
use crate::bench::process::Process;
use crate::scale::{build, empty};
use crate::workspace;

/// How long the short one takes.
const SMOKE: Duration = Duration::from_secs(15);
/// The second server's proxy.
const SECOND: &str = "127.9.0.5";

/// Arguments of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// A quarter of a minute with what `cargo build` makes: nothing may fail, but growth is only reported. Part of
    /// `cargo xtask test --ci`.
    #[arg(long, conflicts_with_all = ["minutes", "save"])]
    smoke: bool,
    /// Also write the results into docs/scale.md.
    #[arg(long)]
    save: bool,
}

/// One kind of traffic.
struct Kind {
    name: &'static str,
    protocol: Protocol,
    traffic: Traffic,
    /// Seconds of rest after each exchange, and exchanges for each connection.
    pace: [&'static str; 2],
}

/// What one kind of traffic came to.
struct Carried {
    name: &'static str,
    seen: Seen,
}

/// What a run came to.
struct Soaked {
    carried: Vec<Carried>,
    processes: Vec<Series>,
    took: Duration,
    changes: u64,
}

/// Runs, prints, and fails if something failed or grew.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(Path::new("/proc/self/status").exists(), "memory is read from /proc: run it on Linux");
    if args.smoke {
        return smoke();
    }
    let target = workspace::target_directory()?;
    build("dist")?;
    let places = Places { folder: target.join("soak"), target, profile: "dist", others: "release" };
    let took = Duration::from_secs_f64(args.minutes * 60.0);
    // Ten lives of certificates, for which proxies ask at half of each.
    let soaked = soak(&places, took, (took / 10).max(Duration::from_secs(20)))?;
    println!("{}", report::table(&soaked));
    if args.save {
        report::save(&soaked)?;
    }
    report::conclude(&soaked, true)
}

/// The short one in a network of its own, for its addresses are the bench's, too. Needs root.
pub(crate) fn smoke_apart() -> Result<()> {
    // Not the file of this process: the build of the workspace, before the tests, may have replaced it.
    let own = workspace::target_directory()?.join("debug").join("xtask");
    let mut apart = Command::new("unshare");
    apart.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" soak --smoke"]).arg(own);
    workspace::status(&mut apart)
}

/// The same, short and with the binaries that tests use.
fn smoke() -> Result<()> {
    let target = workspace::target_directory()?;
    workspace::status(&mut workspace::cargo(["build", "--workspace", "--bins", "--locked"]))?;
    let places = Places { folder: target.join("soak"), target, profile: "debug", others: "debug" };
    // The shortest life that there is: certificates change about every second.
    let soaked = soak(&places, SMOKE, Duration::from_secs(10))?;
    println!("{}", report::table(&soaked));
    report::conclude(&soaked, false)
}

fn soak(places: &Places, took: Duration, lifetime: Duration) -> Result<Soaked> {
    empty(&places.folder)?;
    let load = places.target.join(places.others).join("load");
    let application = Application::start(&load)?;
    changes::prepare(places, &application)?;
    let lifetime = format!("{}s", lifetime.as_secs());
    let controller = mesh::control(places, &application, &["--leaf-lifetime", &lifetime])?;
    let processes = [
        ("controller", controller),
        ("client's proxy", mesh::sidecar(places, "client", "client", mesh::CLIENT, "h1")?),
        (
            "client's proxy, over HTTP/2",
            mesh::sidecar(places, "client-h1h2", "client", mesh::CLIENT_H1H2, "h1h2")?,
        ),
        ("server's proxy", mesh::sidecar(places, "server", "server", mesh::SERVER, "h1")?),
        ("second server's proxy", mesh::sidecar(places, "server-2", "server", SECOND, "h1")?),
    ];
    let seconds = took.as_secs_f64();
    let start = |kind: Kind| {
        let way = way(kind.protocol)?;
        let [rest, renew] = kind.pace;
        let pace = ["--rest", rest, "--renew", renew];
        let client = Client::start_with(&load, &way, &kind.traffic, seconds, &pace);
        Ok((kind.name, client.with_context(|| format!("before the soak: {}", kind.name))?))
    };
    let clients: Vec<_> = kinds().into_iter().map(start).collect::<Result<_>>()?;
    println!("{} kinds of traffic for {took:?}, certificates of {lifetime}", clients.len());
    thread::scope(|scope| {
        let running: Vec<_> = clients
            .into_iter()
            .map(|(name, mut client)| scope.spawn(move || Ok(Carried { name, seen: client.run()? })))
            .collect();
        let changes = Changes::start(scope, places, took);
        let processes = watch(&processes, took)?;
        let carried =
            running.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client died"))?);
        let carried = carried.collect::<Result<_>>()?;
        Ok(Soaked { carried, processes, took, changes: changes.count()? })
    })
}

/// All kinds of traffic: together about 2,000 exchanges a second.
fn kinds() -> Vec<Kind> {
    let kind = |name, protocol, load, connections, pace| Kind {
        name,
        protocol,
        traffic: Traffic { load, connections },
        pace,
    };
    vec![
        kind("HTTP/1.1", Protocol::Http1, Load::Http { bytes: 1024 }, 16, ["0.02", "50"]),
        kind("HTTP/1.1, 256 KiB", Protocol::Http1, Load::Http { bytes: 262_144 }, 4, ["0.1", "20"]),
        kind(
            "HTTP/1.1 over HTTP/2",
            Protocol::Http1OverHttp2,
            Load::Http { bytes: 1024 },
            16,
            ["0.02", "50"],
        ),
        kind("gRPC, unary", Protocol::Grpc, Load::Calls { bytes: 1024, calls: 2 }, 8, ["0.02", "100"]),
        // A stream may outlive its peer's certificate by ten seconds.
        kind("gRPC, streaming", Protocol::Grpc, Load::Streams { bytes: 64 }, 8, ["0.02", "100"]),
        kind("opaque, a connection each", Protocol::Tcp, Load::Connect, 4, ["0.05", "0"]),
    ]
}

fn way(protocol: Protocol) -> Result<Way> {
    let (entry, host) = match protocol {
        Protocol::Http1 => (socket(mesh::CLIENT, 15001)?, "server:8080"),
        Protocol::Http1OverHttp2 => (socket(mesh::CLIENT_H1H2, 15001)?, "server:8080"),
        Protocol::Grpc => (socket(mesh::CLIENT, 15001)?, "server:8081"),
        Protocol::Tcp => (socket(mesh::CLIENT, 17000)?, "server:7000"),
    };
    Ok(Way::new(protocol, entry, host, &[]))
}

/// Samples the memory of each process until the time is over.
fn watch(processes: &[(&'static str, Process)], took: Duration) -> Result<Vec<Series>> {
    let every = (took / 120).clamp(Duration::from_millis(500), Duration::from_secs(5));
    let mut series: Vec<Series> = processes.iter().map(|(name, _)| Series::new(name)).collect();
    let start = Instant::now();
    while start.elapsed() < took {
        thread::sleep(every);
        for ((_, process), series) in processes.iter().zip(&mut series) {
            series.add(process.resident()?);
        }
    }
    Ok(series)
}
