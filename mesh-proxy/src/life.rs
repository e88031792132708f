//! How a proxy's life ends: asked by a signal or through the admin socket, drained in order, aborted in time.
//!
//! docs/adr/0007-drain-follows-the-application.md says how it is known that the application is done.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    time::{Duration, Instant},
};

use mesh_core::edge::Direction;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    admin::{self, State},
    app::Proxy,
    drain::Drain,
    notify,
    telemetry::{self, Telemetry},
    upgrade::{self, Bequest, Listed, Request, Succession, SuccessionError, UpgradeError},
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

/// Why a process cannot take over. The other one goes on.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// Something does not stand in time.
    #[error("not ready after {within:?}: {missing}")]
    NotReady {
        /// How long was waited.
        within: Duration,
        /// What is missing.
        missing: String,
    },
    /// The other process is gone, or goes on.
    #[error(transparent)]
    Succession(#[from] SuccessionError),
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// An end: drains the first time, ends at once the second time.
    End,
    /// An upgrade to the binary that is now where the running one was.
    Upgrade,
}

/// Carries until the proxy is asked to end, or another process has taken over; then ends it. `signal` returns the next
/// signal that asks for something.
///
/// # Errors
/// [`WorkerLost`] when it had to end.
pub async fn live(mut proxy: Proxy, mut signal: impl AsyncFnMut() -> Signal) -> Result<(), WorkerLost> {
    let mut told = false;
    let end = loop {
        let request = tokio::select! {
            next = signal() => match next {
                Signal::End => break Ok(Ask::Drain),
                Signal::Upgrade => Request { binary: None, within: upgrade::WITHIN, reply: None },
            },
            end = asked(&proxy.state, &proxy.running, proxy.config.workers) => break end,
            Some(request) = proxy.upgrades.recv() => request,
            () = proxy.state.ready(), if !told => {
                notify::tell("READY=1\n");
                told = true;
                continue;
            }
        };
        tokio::select! {
            taken = proxy.upgrade(request) => if taken {
                return retire(proxy, signal).await;
            },
            // Dropped half-way, the new process is killed.
            () = ends(&mut signal) => break Ok(Ask::Drain),
        }
    };
    notify::tell("STOPPING=1\n");
    tokio::select! {
        () = proxy.drain(*end.as_ref().unwrap_or(&Ask::Quit)) => {}
        () = ends(&mut signal) => tracing::warn!("asked again: ending at once"),
    }
    proxy.stop().await;
    end.map(|_| ())
}

/// Ends a process that another one took over from: what runs goes on here, what is new goes there.
async fn retire(mut proxy: Proxy, mut signal: impl AsyncFnMut() -> Signal) -> Result<(), WorkerLost> {
    tracing::info!(at_most = ?proxy.config.retire_timeout, "another process took over: finishing what runs");
    proxy.doors.close();
    proxy.drain.send_replace(Drain::Ending);
    tokio::select! {
        ended = timeout(proxy.config.retire_timeout, ended(&proxy.running)) => if ended.is_err() {
            tracing::warn!("not everything ended in time: aborting the rest");
        },
        () = ends(&mut signal) => tracing::warn!("asked to end: ending at once"),
    }
    proxy.stop().await;
    Ok(())
}

/// Returns when a signal asks for an end.
async fn ends(signal: &mut impl AsyncFnMut() -> Signal) {
    while signal().await != Signal::End {}
}

async fn asked(state: &State, running: &watch::Sender<usize>, workers: usize) -> Result<Ask, WorkerLost> {
    let mut ask = state.ask.subscribe();
    let mut running = running.subscribe();
    tokio::select! {
        asked = ask.wait_for(|ask| *ask != Ask::Nothing) => asked.map(|ask| *ask).map_err(|_| WorkerLost),
        _ = running.wait_for(|count| *count < workers) => Err(WorkerLost),
    }
}

impl Proxy {
    /// Returns when the proxy was asked to end through its admin socket; says what was asked.
    ///
    /// # Errors
    /// [`WorkerLost`] when it has to end.
    pub async fn asked(&self) -> Result<Ask, WorkerLost> {
        asked(&self.state, &self.running, self.config.workers).await
    }

    /// Takes over from the process before this one: waits until all stands, says so, and accepts when told to.
    ///
    /// # Errors
    /// When this process cannot; the other one goes on.
    pub async fn take_over(&mut self, succession: &Succession) -> Result<(), TakeOverError> {
        // Earlier than the other one loses patience, to say why.
        let within = succession.within().mul_f64(0.9);
        if timeout(within, self.ready()).await.is_err() {
            return Err(TakeOverError::NotReady { within, missing: admin::missing(&self.state).join("; ") });
        }
        succession.ready().await?;
        self.accepting.send_replace(true);
        succession.accepting()?;
        self.inherited.clear();
        tracing::info!(generation = self.state.generation, "took over");
        Ok(())
    }

    /// Makes room for another process. True: it has taken over.
    async fn upgrade(&mut self, request: Request) -> bool {
        let binary = request.binary.or_else(|| self.binary.clone());
        let outcome = match (binary, self.bequest()) {
            (None, _) => Err(UpgradeError::NoBinary),
            (_, Err(error)) => Err(error.into()),
            (Some(binary), Ok(bequest)) => upgrade::hand_over(&binary, bequest, request.within).await,
        };
        let (taken, answer) = match outcome {
            Ok((pid, version)) => {
                // The old main process is the one that is believed.
                notify::tell(&format!("MAINPID={pid}\n"));
                (true, Ok(format!("process {pid}, version {version}, took over")))
            }
            Err(error) => {
                tracing::error!(%error, "no upgrade; this process goes on");
                (false, Err(error.to_string()))
            }
        };
        if let Some(reply) = request.reply {
            // Whoever asked may be gone.
            let _ = reply.send(answer);
        }
        taken
    }

    fn bequest(&self) -> io::Result<Bequest> {
        let listeners = self.state.listeners.borrow().clone();
        let of_workload = listeners.iter().map(|listener| {
            let listed = Listed { what: listener.role.what().to_owned(), asked: Some(listener.asked) };
            (listed, listener.socket.as_fd())
        });
        let handles = self.doors.handles().into_iter().chain(of_workload);
        let own = |(listed, socket): (Listed, BorrowedFd<'_>)| Ok((listed, socket.try_clone_to_owned()?));
        Ok(Bequest {
            generation: self.state.generation + 1,
            sockets: handles.map(own).collect::<io::Result<_>>()?,
            identity: self.keeper.hand_over(),
        })
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
