//! A load generator: GET requests at a fixed rate over keep-alive HTTP/1.1, and what came back.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use mesh_core::{histogram::Histogram, reason::REASON_HEADER};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    ProcessArgs,
    client::{Answer, Client},
    serve::{self, Shutdown},
    stats::Stats,
};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most error messages that are kept.
const MAX_ERRORS: usize = 5;

/// Flags of `shop load`.
#[derive(Args)]
pub(crate) struct LoadArgs {
    /// Where to connect: the service, or the outbound address of the load generator's own sidecar
    #[arg(long, value_name = "HOST:PORT")]
    target: String,
    /// Host to ask for
    #[arg(long, default_value = "storefront")]
    host: String,
    /// Requests a second
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Time to run, in seconds
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Stop after so many requests, however long it takes (then --duration does not count)
    #[arg(long)]
    count: Option<u64>,
    /// Requests at the same time
    #[arg(long, default_value_t = 16)]
    concurrency: u16,
    /// Callers that take turns, each with a connection of its own at least
    #[arg(long, default_value_t = 1)]
    callers: u16,
    /// Paths to ask for in turn, instead of a mix of all pages
    #[arg(long = "path")]
    paths: Vec<String>,
    #[command(flatten)]
    process: ProcessArgs,
}

/// What was sent and came back.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Summary {
    /// Requests that ended.
    requests: u64,
    /// Of these: no answer, or a status of 400 or more.
    failed: u64,
    /// By status; 0: no answer.
    statuses: BTreeMap<u16, u64>,
    /// By version of the catalog that the page shows.
    versions: BTreeMap<String, u64>,
    /// By reason, where the mesh refused.
    reasons: BTreeMap<String, u64>,
    /// The first few errors.
    errors: Vec<String>,
    /// Time from the first request to the last answer, in seconds.
    seconds: f64,
    /// Requests a second over that time.
    rate: f64,
    /// From sending the request to the last byte of the answer, in microseconds.
    latency_micros: Latency,
}

/// Quantiles, in microseconds.
#[derive(Debug, Default, Serialize)]
struct Latency {
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

#[derive(Default)]
struct Tally {
    summary: Summary,
    latency: Histogram,
    max: u64,
}

struct Job {
    args: LoadArgs,
    /// At least one.
    callers: Vec<Client>,
    started: Instant,
    next: AtomicU64,
    tally: Mutex<Tally>,
    stats: Arc<Stats>,
}

/// Loads the target, prints the summary as one line of JSON, and ends with 1 when a request failed.
///
/// # Errors
/// When the summary cannot be written.
pub(crate) async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let mut shutdown = Shutdown::on_signal(&args.process)?;
    let stats = Arc::new(Stats::default());
    serve::stats(&args.process, Arc::clone(&stats), shutdown.clone()).await?;
    let workers = args.concurrency.max(1);
    let callers = (0..args.callers.max(1)).map(|_| Client::new(args.target.clone(), TIMEOUT)).collect();
    let job = Arc::new(Job {
        args,
        callers,
        started: Instant::now(),
        next: AtomicU64::new(0),
        tally: Mutex::default(),
        stats,
    });
    let mut running: JoinSet<()> = (0..workers)
        .map(|_| {
            let (job, shutdown) = (Arc::clone(&job), shutdown.clone());
            async move { job.work(shutdown).await }
        })
        .collect();
    // Workers stop by themselves at SIGTERM, after the request that each is at.
    while running.join_next().await.is_some() {}
    let summary = job.summary();
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &summary)?;
    writeln!(out)?;
    out.flush()?;
    drop(out);
    if job.args.process.stats.is_some() && job.args.count.is_some() {
        // Whoever asked for counts reads them after the last request.
        shutdown.wait().await;
    }
    Ok(if summary.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Job {
    async fn work(&self, mut shutdown: Shutdown) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let due = Duration::from_secs_f64(number as f64 / self.args.rate.clamp(0.01, 1e6));
            let over = match self.args.count {
                Some(count) => number >= count,
                None => due.as_secs_f64() >= self.args.duration,
            };
            if over {
                return;
            }
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep_until(self.started + due) => {}
            }
            let sent = Instant::now();
            let path = path(&self.args.paths, number);
            let caller = &self.callers[(number % self.callers.len() as u64) as usize];
            let answer = caller.get(&self.args.host, &path).await;
            let micros = sent.elapsed().as_micros() as u64;
            self.stats.called(&self.args.host, answer.as_ref().is_ok_and(|a| a.status.is_success()));
            self.tally.lock().unwrap_or_else(PoisonError::into_inner).count(answer, micros);
        }
    }

    fn summary(&self) -> Summary {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let mut summary = std::mem::take(&mut tally.summary);
        summary.seconds = self.started.elapsed().as_secs_f64();
        summary.rate = summary.requests as f64 / summary.seconds.max(1e-6);
        // A bucket's bound can lie above the largest value in it.
        let quantile = |q| tally.latency.quantile(q).min(tally.max);
        summary.latency_micros =
            Latency { p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99), max: tally.max };
        summary
    }
}

impl Tally {
    fn count(&mut self, answer: anyhow::Result<Answer>, micros: u64) {
        let summary = &mut self.summary;
        summary.requests += 1;
        self.latency.record(micros);
        self.max = self.max.max(micros);
        let (status, error) = match &answer {
            Ok(answer) if answer.status.is_success() => (answer.status.as_u16(), None),
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body).chars().take(300).collect::<String>();
                (answer.status.as_u16(), Some(format!("{}: {body}", answer.status)))
            }
            Err(error) => (0, Some(format!("{error:#}"))),
        };
        *summary.statuses.entry(status).or_default() += 1;
        if let Some(error) = error {
            summary.failed += 1;
            if summary.errors.len() < MAX_ERRORS {
                summary.errors.push(error);
            }
        }
        let Ok(answer) = answer else { return };
        if let Some(reason) = answer.headers.get(REASON_HEADER).and_then(|value| value.to_str().ok()) {
            bump(&mut summary.reasons, reason);
        }
        if let Some(version) = version(&answer.body) {
            bump(&mut summary.versions, &version);
        }
    }
}

/// Counts `key`, of which there are few: answers cannot make the summary grow without bound.
fn bump(counts: &mut BTreeMap<String, u64>, key: &str) {
    let key = if counts.len() < 32 || counts.contains_key(key) { key } else { "other" };
    *counts.entry(key.to_owned()).or_default() += 1;
}

/// The version of the catalog that a page shows.
fn version(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Page {
        catalog_version: String,
    }
    serde_json::from_slice::<Page>(body).ok().map(|page| page.catalog_version)
}

/// The path of one request: the given ones in turn, else all pages, /watch seldom.
fn path(paths: &[String], number: u64) -> String {
    const SKUS: [&str; 4] = ["tea-1", "tea-2", "cup-1", "pot-1"];
    if let Some(path) = paths.get((number % paths.len().max(1) as u64) as usize) {
        return path.clone();
    }
    match number % 20 {
        0 => "/watch".to_owned(),
        n if n % 2 == 1 => "/".to_owned(),
        n => format!("/product/{}", SKUS[n as usize / 2 % SKUS.len()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_given_paths_in_turn() {
        let paths = ["/a".to_owned(), "/b".to_owned()];
        assert_eq!([0, 1, 2].map(|n| path(&paths, n)), ["/a", "/b", "/a"]);
    }

    #[test]
    fn mixes_all_pages() {
        let all: std::collections::BTreeSet<String> = (0..20).map(|n| path(&[], n)).collect();
        for page in ["/", "/watch", "/product/tea-1", "/product/pot-1"] {
            assert!(all.contains(page), "{page} is not in {all:?}");
        }
    }

    #[test]
    fn counts_answers_and_failures() {
        let mut tally = Tally::default();
        let body = |text: &'static str| bytes::Bytes::from_static(text.as_bytes());
        let answer = |status, text| Answer { status, headers: http::HeaderMap::new(), body: body(text) };
        tally.count(Ok(answer(http::StatusCode::OK, r#"{"catalog_version":"v2"}"#)), 10);
        tally.count(Ok(answer(http::StatusCode::BAD_GATEWAY, "no")), 20);
        tally.count(Err(anyhow::anyhow!("refused")), 30);
        assert_eq!((tally.summary.requests, tally.summary.failed), (3, 2));
        assert_eq!(tally.summary.statuses, BTreeMap::from([(0, 1), (200, 1), (502, 1)]));
        assert_eq!(tally.summary.versions, BTreeMap::from([("v2".to_owned(), 1)]));
        assert_eq!(tally.max, 30);
    }
}
