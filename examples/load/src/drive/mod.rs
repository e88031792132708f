//! Clients that keep applications busy.

pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod paced;
pub(crate) mod tcp;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::net::TcpStream;

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
