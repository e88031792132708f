//! How a proxy's life ends: asked by a signal or through the admin socket, drained in order, aborted in time.
//!
//! docs/adr/0007-drain-follows-the-application.md says how it is known that the application is done.

use std::time::{Duration, Instant};

use mesh_core::edge::Direction;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    app::Proxy,
    drain::Drain,
    telemetry::{self, Telemetry},
};

/// How often connections are looked at while the proxy drains.
const LOOK: Duration = Duration::from_millis(50);
/// How long no connection may be open or come before the application counts as gone.
const QUIET: Duration = Duration::from_secs(1);
/// Longest part of the drain timeout that is kept for telling the application's connections to end.
const LAST_PART: Duration = Duration::from_secs(5);
/// Time for workers to end after they were told to abort.
const ABORT: Duration = Duration::from_secs(2);
/// Time for the last report.
const LAST_REPORT: Duration = Duration::from_secs(1);

/// What the proxy was asked to do. Each goes further than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// To go on.
    Nothing,
    /// To finish inbound, to serve outbound until the application is gone, and to end.
    Drain,
    /// To finish what runs, and to end: the application is done.
    Quit,
}

/// A worker ended although nobody told it to: a fault of the proxy.
#[derive(Debug, thiserror::Error)]
#[error("a worker thread ended unexpectedly: the proxy can only be restarted")]
pub struct WorkerLost;

/// Carries until the proxy is asked to end, then ends it. `asked` returns each time that a signal asks for an end: the
/// first one drains, the second one ends all at once.
///
/// # Errors
/// [`WorkerLost`] when it had to end.
pub async fn live(mut proxy: Proxy, mut asked: impl AsyncFnMut()) -> Result<(), WorkerLost> {
    let end = tokio::select! {
        () = asked() => Ok(Ask::Drain),
        end = proxy.asked() => end,
    };
    tokio::select! {
        () = proxy.drain(*end.as_ref().unwrap_or(&Ask::Quit)) => {}
        () = asked() => tracing::warn!("asked again: ending at once"),
    }
    proxy.stop().await;
    end.map(|_| ())
}

impl Proxy {
    /// Returns when the proxy was asked to end through its admin socket; says what was asked.
    ///
    /// # Errors
    /// [`WorkerLost`] when it has to end.
    pub async fn asked(&self) -> Result<Ask, WorkerLost> {
        let mut ask = self.state.ask.subscribe();
        let mut running = self.running.subscribe();
        let all = self.config.workers;
        tokio::select! {
            asked = ask.wait_for(|ask| *ask != Ask::Nothing) => asked.map(|ask| *ask).map_err(|_| WorkerLost),
            _ = running.wait_for(|count| *count < all) => Err(WorkerLost),
        }
    }

    /// Finishes inbound, serves outbound until the application is gone, then finishes outbound; aborts what is left
    /// after the drain timeout, sends the last report, ends.
    pub async fn shutdown(mut self) {
        self.drain(Ask::Drain).await;
        self.stop().await;
    }

    /// Drains. Returns when all has ended, or the drain timeout is over.
    async fn drain(&mut self, ask: Ask) {
        let (began, limit) = (Instant::now(), self.config.drain_timeout);
        // First of all: from here on the proxy is not ready.
        self.drain.send_replace(Drain::Draining);
        tracing::info!(at_most = ?limit, "draining");
        if ask < Ask::Quit {
            let mut quit = self.state.ask.subscribe();
            let told = limit.saturating_sub(LAST_PART.min(limit / 4));
            tokio::select! {
                () = gone(&self.state.telemetry) => tracing::info!("the application is gone"),
                _ = quit.wait_for(|ask| *ask == Ask::Quit) => tracing::info!("the application is done"),
                () = sleep(told) => tracing::warn!(after = ?told, "the application still uses its connections: telling them to end"),
            }
        }
        self.drain.send_replace(Drain::Ending);
        if timeout(limit.saturating_sub(began.elapsed()), ended(&self.running)).await.is_err() {
            tracing::warn!("not everything ended in time: aborting the rest");
        }
    }

    /// Aborts what still runs, sends the last report, ends.
    async fn stop(mut self) {
        self.drain.send_replace(Drain::Stopped);
        let _aborted = timeout(ABORT, ended(&self.running)).await;
        let channel = self.state.control.channel().borrow().clone();
        if let Some(channel) = channel {
            let report = telemetry::report_once(&self.state.telemetry, &self.config, channel);
            let _reported = timeout(LAST_REPORT, report).await;
        }
        self.tasks.shutdown().await;
    }
}

/// Waits for all workers.
async fn ended(running: &watch::Sender<usize>) {
    let mut running = running.subscribe();
    let _ended = running.wait_for(|count| *count == 0).await;
}

/// Returns when the application has no connection left, in either direction, and opened none for a while.
async fn gone(telemetry: &Telemetry) {
    let mut quiet = Quiet::new(Instant::now());
    loop {
        sleep(LOOK).await;
        let count = |of: fn(&telemetry::Shard, Direction) -> u64, direction| {
            telemetry.shards().iter().map(|shard| of(shard, direction)).sum::<u64>()
        };
        let open = count(telemetry::Shard::active, Direction::Inbound)
            + count(telemetry::Shard::active, Direction::Outbound);
        if quiet.look(open, count(telemetry::Shard::opened, Direction::Outbound), Instant::now()) {
            return;
        }
    }
}

/// Since when no connection has been open.
struct Quiet {
    since: Instant,
    opened: u64,
}

impl Quiet {
    fn new(now: Instant) -> Self {
        Self { since: now, opened: 0 }
    }

    /// `open`: connections that stand; `opened`: those that the application ever made. True: it has been quiet for
    /// long enough.
    fn look(&mut self, open: u64, opened: u64, now: Instant) -> bool {
        if open > 0 || opened != self.opened {
            // One that came and went between two looks counts too.
            (self.since, self.opened) = (now, opened);
        }
        now.saturating_duration_since(self.since) >= QUIET
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_is_gone_when_it_was_quiet_for_a_while() {
        let begin = Instant::now();
        let at = |millis| begin + Duration::from_millis(millis);
        let mut quiet = Quiet::new(begin);
        assert!(!quiet.look(1, 7, at(50)));
        assert!(!quiet.look(1, 7, at(5_000)), "one is open");
        assert!(!quiet.look(0, 7, at(5_050)));
        assert!(!quiet.look(0, 8, at(5_900)), "one came and went");
        assert!(!quiet.look(0, 8, at(6_850)));
        assert!(quiet.look(0, 8, at(6_900)));
    }

    #[test]
    fn what_is_asked_goes_further_and_further() {
        assert!(Ask::Nothing < Ask::Drain && Ask::Drain < Ask::Quit);
    }
}
