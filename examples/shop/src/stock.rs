//! How cart asks inventory: lines over TCP connections that are used many times.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::stats::Stats;

/// Questions that one connection carries before it is closed: many connections come and go, few at a time.
const QUESTIONS_PER_CONNECTION: u32 = 25;
/// Most idle connections that are kept.
const MAX_IDLE: usize = 16;
/// Longest answer, in bytes.
const MAX_LINE: u64 = 256;
/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Client of inventory.
pub(crate) struct Stock {
    /// `HOST:PORT`.
    place: String,
    stats: Arc<Stats>,
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    stream: BufReader<TcpStream>,
    questions: u32,
}

impl Stock {
    /// A client whose connections go to `place` (`HOST:PORT`): inventory, or where cart's own sidecar listens for it.
    pub(crate) fn new(place: String, stats: Arc<Stats>) -> Self {
        Self { place, stats, idle: Mutex::default() }
    }

    /// How many of `sku` there are.
    ///
    /// # Errors
    /// When inventory does not answer, or not as it should.
    pub(crate) async fn ask(&self, sku: &str) -> anyhow::Result<u32> {
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(sku)).await;
        let answer = answer.map_err(|_| anyhow!("inventory did not answer within {TIMEOUT:?}")).flatten();
        self.stats.called("inventory", answer.is_ok());
        answer
    }

    async fn exchange(&self, sku: &str) -> anyhow::Result<u32> {
        if sku.contains(['\r', '\n']) {
            bail!("a sku is one line");
        }
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut connection) = kept {
            // A kept connection may have been closed meanwhile; asking twice does no harm.
            if let Ok(answer) = connection.ask(sku).await {
                self.keep(connection);
                return Ok(answer);
            }
        }
        let stream = TcpStream::connect(&self.place)
            .await
            .with_context(|| format!("cannot connect to {}", self.place))?;
        stream.set_nodelay(true)?;
        self.stats.opened();
        let mut connection = Connection { stream: BufReader::new(stream), questions: 0 };
        let answer = connection.ask(sku).await?;
        self.keep(connection);
        Ok(answer)
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.questions < QUESTIONS_PER_CONNECTION && idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }
}

impl Connection {
    async fn ask(&mut self, sku: &str) -> anyhow::Result<u32> {
        self.questions += 1;
        self.stream.write_all(format!("GET {sku}\n").as_bytes()).await?;
        let mut line = String::new();
        (&mut self.stream).take(MAX_LINE).read_line(&mut line).await?;
        let number = line.strip_suffix('\n').and_then(|line| line.strip_prefix("OK "));
        number.with_context(|| format!("inventory answered {line:?}"))?.parse().context("inventory's number")
    }
}
