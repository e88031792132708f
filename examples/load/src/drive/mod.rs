//! Clients that keep applications busy.

pub(crate) mod grpc;
pub(crate) mod hold;
pub(crate) mod http;
pub(crate) mod paced;
pub(crate) mod tcp;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::gate;
use crate::outcome::Outcome;

/// How long the whole of connecting may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where to send load, how much of it, and for how long.
#[derive(Clone, clap::Args)]
pub(crate) struct Target {
    /// Where to connect to: IP:PORT
    #[arg(long, value_parser = crate::address)]
    pub(crate) to: SocketAddr,
    /// Host to ask for
    #[arg(long, default_value = "load")]
    pub(crate) host: String,
    /// Connections at a time
    #[arg(long, default_value_t = 32)]
    pub(crate) connections: usize,
    /// Seconds to go on
    #[arg(long, value_parser = crate::seconds, default_value = "1")]
    pub(crate) seconds: Duration,
    #[command(flatten)]
    pub(crate) pace: Pace,
}

/// How hard closed loops go; without any of it, as hard as they can.
#[derive(Clone, Copy, clap::Args)]
pub(crate) struct Pace {
    /// Seconds of rest after each exchange
    #[arg(long, value_parser = crate::seconds, default_value = "0")]
    pub(crate) rest: Duration,
    /// Exchanges after which a connection is closed and another one opened; 0: never
    #[arg(long, default_value_t = 0)]
    pub(crate) renew: usize,
}

/// What a closed loop goes on with: a connection, or a part of one.
trait Exchange: Sized + Send + 'static {
    /// A question and its whole answer.
    fn exchange(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// The same on another connection.
    fn renewed(&self) -> impl Future<Output = Result<Self>> + Send;
}

/// Keeps all of `clients` busy for the time that is wanted, each until it fails, and reports.
async fn keep_busy(target: &Target, clients: impl IntoIterator<Item = impl Exchange>) -> Result<()> {
    gate::wait_for_start()?;
    let (span, pace) = (Span::begin(target), target.pace);
    let mut running: JoinSet<_> =
        clients.into_iter().map(|client| keep_one_busy(client, span.end, pace)).collect();
    let (mut outcome, mut kept) = (Outcome::default(), Vec::new());
    while let Some(done) = running.join_next().await {
        let (client, seen) = done.context("a client died")?;
        kept.push(client);
        outcome.add(seen);
    }
    gate::report(&outcome.into_json(span.start.elapsed()))
}

async fn keep_one_busy<C: Exchange>(mut client: C, end: Instant, pace: Pace) -> (C, Outcome) {
    let mut outcome = Outcome::default();
    for count in 1.. {
        let start = Instant::now();
        if start >= end {
            break;
        }
        if client.exchange().await.is_err() {
            outcome.failed();
            break;
        }
        outcome.passed(start.elapsed());
        if !pace.rest.is_zero() {
            tokio::time::sleep(pace.rest).await;
        }
        if pace.renew > 0 && count % pace.renew == 0 {
            match client.renewed().await {
                Ok(renewed) => client = renewed,
                Err(_) => {
                    outcome.failed();
                    break;
                }
            }
        }
    }
    (client, outcome)
}

/// Opens a connection.
async fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Makes all connections, one after the other, within [`PATIENCE`].
async fn make_all<T>(target: &Target, make: impl AsyncFn() -> Result<T>) -> Result<Vec<T>> {
    let all = async {
        let mut made = Vec::with_capacity(target.connections);
        for _ in 0..target.connections {
            made.push(make().await?);
        }
        Ok(made)
    };
    tokio::time::timeout(PATIENCE, all).await.context("not all connections were answered in time")?
}

/// The time that a run began, and when it is over.
#[derive(Clone, Copy)]
struct Span {
    start: Instant,
    end: Instant,
}

impl Span {
    fn begin(target: &Target) -> Self {
        let start = Instant::now();
        Self { start, end: start + target.seconds }
    }
}
