//! One worker: it accepts on all listeners and carries connections, on one thread.
//!
//! Everything that requests touch lives here, owned by the thread: no locks, no sharing with other workers.

mod accept;
mod latest;
mod seldom;
mod trust;

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::{
    config::WorkloadConfig,
    edge::{Direction, EdgeKey},
    protocol::Protocol,
    reason::Reason,
};
use tokio::sync::{Notify, watch};

use crate::{
    balance::Endpoints,
    config::Config,
    control::Control,
    detect::{Detected, LearnedPorts, Opening, detect},
    drain::{self, Drain},
    http::serve::LINGER,
    limits::Shared,
    listeners::Listeners,
    outbound::{Destinations, Services},
    pool::{SWEEP, Upstream},
    telemetry::{EdgeStats, Refusals, Shard, access_log::AccessLog},
    tls::TlsEpoch,
};

use self::latest::Latest;
pub(crate) use self::{accept::Open, seldom::Seldom, trust::GRACE};

/// How long connections to the application stay idle: common servers close them after 5 s.
const KEEP_APP_IDLE: Duration = Duration::from_secs(4);
/// How long connections to an address of the application are kept that nobody calls.
const KEEP_APP: Duration = Duration::from_secs(60);
/// Addresses of the application that are kept; more are used without keeping.
const MAX_APPS: usize = 64;

/// What one worker works with.
pub(crate) struct WorkerContext {
    /// Number of the worker, from 0.
    pub index: usize,
    /// The proxy's configuration.
    pub config: Arc<Config>,
    /// What the controller says.
    pub control: Control,
    /// Where to accept.
    pub listeners: watch::Receiver<Listeners>,
    /// Where this worker counts.
    pub shard: Arc<Shard>,
    /// What all workers count together.
    pub shared: Arc<Shared>,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// When to end.
    pub drain: watch::Receiver<Drain>,
    /// Whether to accept: not before a process that this one succeeds says so.
    pub accepting: watch::Receiver<bool>,
}

/// The state of one worker, shared by its tasks.
pub(crate) struct Worker {
    /// The proxy's configuration.
    pub config: Arc<Config>,
    /// What the controller says.
    pub control: Control,
    /// Where this worker counts.
    pub shard: Arc<Shard>,
    /// What all workers count together.
    pub shared: Arc<Shared>,
    /// Where requests are logged.
    pub access_log: AccessLog,
    /// Destinations that were asked for.
    pub destinations: Destinations,
    /// What is counted for the Services that they name.
    pub services: Services,
    /// Endpoints that they lead to.
    pub endpoints: Endpoints,
    /// What the workload's own ports were seen to speak.
    pub learned: LearnedPorts,
    workload: Latest<WorkloadConfig>,
    tls: Latest<TlsEpoch>,
    apps: RefCell<HashMap<SocketAddr, App>>,
    drain: watch::Receiver<Drain>,
    connections: accept::Connections,
    last_ended: Notify,
}

/// Connections to one address of the application.
struct App {
    upstream: Rc<Upstream>,
    /// When somebody last held it.
    used: Instant,
}

impl Worker {
    fn new(context: WorkerContext) -> (Rc<Self>, watch::Receiver<Listeners>) {
        let worker = Self {
            workload: Latest::new(context.control.workload()),
            tls: Latest::new(context.control.tls()),
            config: context.config,
            control: context.control,
            shared: context.shared,
            access_log: context.access_log,
            destinations: Destinations::default(),
            services: Services::default(),
            endpoints: Endpoints::new(&context.shard),
            shard: context.shard,
            learned: LearnedPorts::default(),
            apps: RefCell::default(),
            drain: context.drain,
            connections: accept::Connections::default(),
            last_ended: Notify::new(),
        };
        (Rc::new(worker), context.listeners)
    }

    /// The newest configuration of the workload.
    pub(crate) fn workload(&self) -> Option<Arc<WorkloadConfig>> {
        self.workload.get()
    }

    /// Tells of changes of the workload's configuration.
    pub(crate) fn workload_changes(&self) -> watch::Receiver<Option<Arc<WorkloadConfig>>> {
        self.control.workload()
    }

    /// The newest certificate.
    pub(crate) fn tls(&self) -> Option<Arc<TlsEpoch>> {
        self.tls.get()
    }

    /// The newest certificate, once there is one.
    ///
    /// # Errors
    /// [`Reason::DiscoveryUnavailable`], when there is none within the configured time.
    pub(crate) async fn wait_for_tls(&self) -> Result<Arc<TlsEpoch>, Reason> {
        match self.tls() {
            Some(epoch) => Ok(epoch),
            None => {
                let waited = Box::pin(self.tls.wait(self.config.discovery_wait)).await;
                waited.ok_or(Reason::DiscoveryUnavailable)
            }
        }
    }

    /// Tells when to end.
    pub(crate) fn drain(&self) -> watch::Receiver<Drain> {
        self.drain.clone()
    }

    /// Reads the first bytes of a connection until it is clear what it speaks; None inside: that is not clear in time.
    /// None: it ended, or the proxy drains and nothing came.
    pub(crate) async fn detect(
        &self,
        direction: Direction,
        opening: Opening,
        within: Duration,
    ) -> Option<(Option<Detected>, Opening)> {
        tokio::select! {
            outcome = detect(opening, within) => outcome.ok(),
            () = self.too_late(direction) => None,
        }
    }

    /// Returns when a connection that has said nothing yet is to end. When the drain begins, what is on its way still
    /// counts.
    pub(crate) async fn too_late(&self, direction: Direction) {
        let mut drain = self.drain();
        drain::ending(&mut drain, direction).await;
        tokio::time::sleep(LINGER).await;
    }

    /// Counts a connection that was refused before its edge was known.
    pub(crate) fn refused(&self, direction: Direction, reason: Reason) {
        self.shard.refused(direction, reason);
        tracing::debug!(direction = direction.as_str(), reason = reason.code(), "connection refused");
    }

    /// The edge of calls that reached nothing yet.
    pub(crate) fn bare_edge(&self, direction: Direction, protocol: Protocol) -> Arc<EdgeStats> {
        let own = self.workload().map(|workload| workload.identity.clone());
        let (source, destination) = match direction {
            Direction::Outbound => (own, None),
            Direction::Inbound => (None, own),
        };
        self.shard.edge(&EdgeKey { source, destination, protocol, ..EdgeKey::unknown(direction) })
    }

    /// Connections to the application at `address`.
    pub(crate) fn app(&self, address: SocketAddr) -> Rc<Upstream> {
        let mut apps = self.apps.borrow_mut();
        if let Some(app) = apps.get(&address) {
            return Rc::clone(&app.upstream);
        }
        let refusals = Refusals::new(&self.shard, Direction::Inbound);
        let upstream = Upstream::new(address, None, KEEP_APP_IDLE, refusals);
        if apps.len() < MAX_APPS {
            apps.insert(address, App { upstream: Rc::clone(&upstream), used: Instant::now() });
        }
        upstream
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.destinations.sweep(now);
        for _ in 0..self.endpoints.sweep(now, self.tls().as_deref()) {
            self.refused(Direction::Outbound, Reason::PeerNotTrusted);
        }
        sweep_apps(&mut self.apps.borrow_mut(), now);
    }
}

/// Closes what was idle for too long, and forgets addresses that no connection has used for a while.
fn sweep_apps(apps: &mut HashMap<SocketAddr, App>, now: Instant) {
    apps.retain(|_, app| {
        app.upstream.sweep(now, None);
        if Rc::strong_count(&app.upstream) > 1 {
            app.used = now;
        }
        now.saturating_duration_since(app.used) < KEEP_APP
    });
}

/// Runs until both directions are drained. Called on the worker's own event loop.
pub(crate) async fn run(context: WorkerContext) {
    let index = context.index;
    let mut accepting = context.accepting.clone();
    let (worker, listeners) = Worker::new(context);
    let mut drain = worker.drain();
    let sweeping = async {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            worker.sweep();
        }
    };
    let accept = async {
        // An error: the sender is gone, and so is the proxy.
        let _ = accepting.wait_for(|accepting| *accepting).await;
        accept::follow(&worker, listeners).await;
    };
    tokio::select! {
        () = accept => {}
        () = sweeping => {}
        () = drain::ending(&mut drain, Direction::Outbound) => {}
    }
    // Nothing is accepted any more; what runs was told the same and ends by itself, or is dropped with the event loop.
    tracing::debug!(index, connections = worker.connections.all(), "worker drains");
    tokio::select! {
        () = worker.all_ended() => {}
        _ = drain.wait_for(|state| *state == Drain::Stopped) => {}
    }
}

impl Worker {
    async fn all_ended(&self) {
        while self.connections.all() > 0 {
            self.last_ended.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_application_are_forgotten_when_nobody_calls_them() {
        let begin = Instant::now();
        let refusals = Refusals::new(&Arc::new(Shard::new()), Direction::Inbound);
        let mut apps = HashMap::new();
        for port in [1, 2] {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let upstream = Upstream::new(address, None, KEEP_APP_IDLE, refusals.clone());
            apps.insert(address, App { upstream, used: begin });
        }
        let held = apps.values().next().map(|app| Rc::clone(&app.upstream)).unwrap();
        sweep_apps(&mut apps, begin + KEEP_APP / 2);
        assert_eq!(apps.len(), 2);
        sweep_apps(&mut apps, begin + KEEP_APP);
        assert_eq!(apps.keys().copied().collect::<Vec<_>>(), [held.address()]);
        drop(held);
        sweep_apps(&mut apps, begin + KEEP_APP + KEEP_APP / 2);
        assert_eq!(apps.len(), 1, "kept for a while");
        sweep_apps(&mut apps, begin + KEEP_APP * 2);
        assert!(apps.is_empty());
    }
}
