//! The only file that knows every part: builds and spawns a proxy. How one ends: `life`.

#[cfg(test)]
pub(crate) mod tests;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    admin::{self, Doors},
    config::Config,
    control::{self, Control},
    drain::Drain,
    identity::{self, Keeper},
    life::Ask,
    limits::Shared,
    listeners::{self, BindError, BoundListener, Listeners, Progress, Role},
    net::{self, own},
    runtime::{Running, start_worker},
    telemetry::{self, Metrics, Telemetry, access_log::AccessLog},
    upgrade::{Inherited, Request, Succession},
    worker::WorkerContext,
};

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener does not stand.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin socket cannot be made.
    #[error("admin socket {}: {error}", path.display())]
    AdminSocket {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// The access log cannot be opened.
    #[error("access log: {0}")]
    AccessLog(io::Error),
    /// The proxy's packets cannot be marked.
    #[error(
        "--mark: {0}; marking packets needs the capability NET_ADMIN: without it, run the proxy as a user of its own (`mesh-proxy init --proxy-uid`)"
    )]
    Mark(io::Error),
    /// A thread or an event loop cannot be made.
    #[error("starting a worker: {0}")]
    Worker(io::Error),
}

/// Where a proxy listens, with real ports.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Outbound listener.
    pub outbound: SocketAddr,
    /// Inbound listener; transparent mode only.
    pub inbound: Option<SocketAddr>,
    /// Admin.
    pub admin: SocketAddr,
    /// Health and metrics.
    pub health: SocketAddr,
}

/// A running proxy. Dropping it aborts all that it carries; [`Proxy::shutdown`] does not.
pub struct Proxy {
    pub(crate) config: Arc<Config>,
    addresses: Addresses,
    pub(crate) state: Arc<admin::State>,
    pub(crate) drain: watch::Sender<Drain>,
    pub(crate) tasks: JoinSet<()>,
    /// Number of workers that run.
    pub(crate) running: watch::Sender<usize>,
    pub(crate) doors: Doors,
    /// Whether connections are accepted.
    pub(crate) accepting: watch::Sender<bool>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) inherited: Arc<Inherited>,
    pub(crate) upgrades: mpsc::Receiver<Request>,
    /// The binary that runs.
    pub(crate) binary: Option<PathBuf>,
}

impl Proxy {
    /// Starts a proxy; returns when its own listeners stand. What it needs from the controller comes later: see
    /// [`Proxy::ready`]. Must be called within a tokio runtime, which becomes the control thread.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::begin(config, None)
    }

    /// Starts a proxy that is to succeed another one: it has that one's sockets and accepts nothing before
    /// [`Proxy::take_over`].
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn succeed(config: Config, succession: &Succession) -> Result<Self, StartError> {
        Self::begin(config, Some(succession))
    }

    fn begin(config: Config, succession: Option<&Succession>) -> Result<Self, StartError> {
        let config = Arc::new(config);
        if let Some(mark) = config.mark {
            own::set_mark(mark).map_err(StartError::Mark)?;
        }
        net::set_peer_timeout(config.peer_timeout);
        let inherited = succession.map_or_else(Arc::default, |of| Arc::clone(&of.inherited));
        let fixed = listeners::bind_fixed(&config, &inherited)?;
        let mut doors = Doors::open(&config, &inherited)?;
        let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
        let addresses = Addresses {
            outbound: address_of(&fixed, |role| {
                matches!(role, Role::OutboundHttp | Role::OutboundTransparent)
            })
            .unwrap_or(unbound),
            inbound: address_of(&fixed, |role| matches!(role, Role::InboundTransparent)),
            admin: doors.address("admin").unwrap_or(unbound),
            health: doors.address("health").unwrap_or(unbound),
        };
        let parts = Parts::new(&config, fixed, succession.is_none())?;
        if let Some(handed) = succession.and_then(Succession::identity)
            && let Err(error) = parts.keeper.adopt(handed, &config)
        {
            tracing::warn!(%error, "the certificate handed over does not serve: asking for another one");
        }
        let mut tasks = JoinSet::new();
        let (ask_upgrade, upgrades) = mpsc::channel(1);
        let generation = succession.map_or(1, Succession::generation);
        let state = Arc::new(parts.state(&config, ask_upgrade, generation));
        doors.serve(&state, &parts.accepting.subscribe(), &mut tasks).map_err(StartError::Worker)?;
        let running = parts.start_workers(&config)?;
        let (drain, accepting, keeper) =
            (parts.drain.clone(), parts.accepting.clone(), Arc::clone(&parts.keeper));
        parts.spawn(&config, Arc::clone(&inherited), &mut tasks);
        tracing::info!(workload = %config.workload, outbound = %addresses.outbound, workers = config.workers, generation, "proxy started");
        // Now, since the file may be another one when it is needed.
        let binary = std::env::current_exe().ok();
        Ok(Self {
            config,
            addresses,
            state,
            drain,
            tasks,
            running,
            doors,
            accepting,
            keeper,
            inherited,
            upgrades,
            binary,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    /// Returns when identity, workload configuration and all listeners are there.
    pub async fn ready(&self) {
        self.state.ready().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.drain.send_replace(Drain::Stopped);
    }
}

/// What the tasks and workers share.
struct Parts {
    control: Control,
    keeper: Arc<Keeper>,
    telemetry: Telemetry,
    instance: String,
    access_log: AccessLog,
    listeners: watch::Sender<Listeners>,
    progress: watch::Sender<Progress>,
    drain: watch::Sender<Drain>,
    accepting: watch::Sender<bool>,
}

impl Parts {
    fn new(config: &Arc<Config>, fixed: Listeners, accepting: bool) -> Result<Self, StartError> {
        let keeper = Arc::new(Keeper::new());
        let instance = format!("{:032x}", fastrand::u128(..));
        Ok(Self {
            control: Control::new(Arc::clone(config), Arc::clone(&keeper)),
            keeper,
            telemetry: Telemetry::new(config.workers, &instance),
            instance,
            access_log: AccessLog::open(&config.access_log).map_err(StartError::AccessLog)?,
            listeners: watch::Sender::new(fixed),
            progress: watch::Sender::new(Progress::default()),
            drain: watch::Sender::new(Drain::Running),
            accepting: watch::Sender::new(accepting),
        })
    }

    fn state(&self, config: &Arc<Config>, upgrade: mpsc::Sender<Request>, generation: u64) -> admin::State {
        let (telemetry, control) = (self.telemetry.clone(), self.control.clone());
        admin::State {
            config: Arc::clone(config),
            metrics: Metrics::new(telemetry.clone(), control.clone(), self.access_log.clone()),
            control,
            telemetry,
            access_log: self.access_log.clone(),
            listeners: self.listeners.subscribe(),
            progress: self.progress.subscribe(),
            drain: self.drain.subscribe(),
            ask: watch::Sender::new(Ask::Nothing),
            upgrade,
            generation,
        }
    }

    fn start_workers(&self, config: &Arc<Config>) -> Result<watch::Sender<usize>, StartError> {
        let running = watch::Sender::new(0);
        let shared = Shared::new();
        let context = |(index, shard): (usize, &Arc<telemetry::Shard>)| WorkerContext {
            index,
            config: Arc::clone(config),
            control: self.control.clone(),
            listeners: self.listeners.subscribe(),
            shard: Arc::clone(shard),
            shared: Arc::clone(&shared),
            access_log: self.access_log.clone(),
            drain: self.drain.subscribe(),
            accepting: self.accepting.subscribe(),
        };
        let contexts = self.telemetry.shards().iter().enumerate().map(context);
        for context in contexts {
            start_worker(context, Running::new(&running)).map_err(StartError::Worker)?;
        }
        Ok(running)
    }

    fn spawn(self, config: &Arc<Config>, inherited: Arc<Inherited>, tasks: &mut JoinSet<()>) {
        let workload = self.control.workload();
        let channel = self.control.channel();
        tasks.spawn(identity::run(self.keeper, Arc::clone(config)));
        tasks.spawn(control::run(self.control, self.instance));
        tasks.spawn(telemetry::run(self.telemetry, Arc::clone(config), channel));
        let drain = self.drain.subscribe();
        let config = Arc::clone(config);
        tasks.spawn(listeners::run(config, drain, workload, self.listeners, self.progress, inherited));
    }
}

fn address_of(listeners: &[Arc<BoundListener>], role: impl Fn(&Role) -> bool) -> Option<SocketAddr> {
    listeners.iter().find(|listener| role(&listener.role)).map(|listener| listener.address.0)
}
