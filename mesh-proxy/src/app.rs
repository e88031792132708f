//! The only file that knows every part: builds and spawns a proxy. How one ends: `life`.

#[cfg(test)]
pub(crate) mod tests;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    admin,
    config::Config,
    control::{self, Control},
    drain::Drain,
    identity::{self, Keeper},
    life::Ask,
    listeners::{self, BindError, BoundListener, Listeners, Progress, Role},
    net::own,
    runtime::{Running, start_worker},
    telemetry::{self, Metrics, Telemetry, access_log::AccessLog},
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
}

impl Proxy {
    /// Starts a proxy; returns when its own listeners stand. What it needs from the controller comes later: see
    /// [`Proxy::ready`]. Must be called within a tokio runtime, which becomes the control thread.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        if let Some(mark) = config.mark {
            own::set_mark(mark).map_err(StartError::Mark)?;
        }
        let fixed = listeners::bind_fixed(&config)?;
        let (admin_socket, admin_address) = bind("admin", config.admin)?;
        let (health_socket, health_address) = bind("health", config.health)?;
        let addresses = Addresses {
            outbound: address_of(&fixed, |role| {
                matches!(role, Role::OutboundHttp | Role::OutboundTransparent)
            })
            .unwrap_or(admin_address),
            inbound: address_of(&fixed, |role| matches!(role, Role::InboundTransparent)),
            admin: admin_address,
            health: health_address,
        };
        let parts = Parts::new(&config, fixed)?;
        let mut tasks = JoinSet::new();
        let state = Arc::new(parts.state(&config));
        if let Some(path) = &config.admin_socket {
            let error = |error| StartError::AdminSocket { path: path.clone(), error };
            let socket = admin::bind_socket(path).map_err(error)?;
            tasks.spawn(admin::serve_socket(socket, Arc::clone(&state)));
        }
        tasks.spawn(admin::serve_tcp(admin_socket, Arc::clone(&state), admin::admin));
        tasks.spawn(admin::serve_tcp(health_socket, Arc::clone(&state), admin::health));
        if let Some(socket) = health_v6(health_address) {
            tasks.spawn(admin::serve_tcp(socket, Arc::clone(&state), admin::health));
        }
        let running = parts.start_workers(&config)?;
        let drain = parts.drain.clone();
        parts.spawn(&config, &mut tasks);
        tracing::info!(workload = %config.workload, outbound = %addresses.outbound, workers = config.workers, "proxy started");
        Ok(Self { config, addresses, state, drain, tasks, running })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    /// Returns when identity, workload configuration and all listeners are there.
    pub async fn ready(&self) {
        let mut tls = self.state.control.tls();
        let mut workload = self.state.control.workload();
        let mut progress = self.state.progress.clone();
        // These end only together with the proxy.
        let _identity = tls.wait_for(Option::is_some).await;
        let _workload = workload.wait_for(Option::is_some).await;
        let _listeners = progress.wait_for(Progress::is_complete).await;
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
}

impl Parts {
    fn new(config: &Arc<Config>, fixed: Listeners) -> Result<Self, StartError> {
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
        })
    }

    fn state(&self, config: &Arc<Config>) -> admin::State {
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
        }
    }

    fn start_workers(&self, config: &Arc<Config>) -> Result<watch::Sender<usize>, StartError> {
        let running = watch::Sender::new(0);
        let context = |(index, shard): (usize, &Arc<telemetry::Shard>)| WorkerContext {
            index,
            config: Arc::clone(config),
            control: self.control.clone(),
            listeners: self.listeners.subscribe(),
            shard: Arc::clone(shard),
            access_log: self.access_log.clone(),
            drain: self.drain.subscribe(),
        };
        let contexts = self.telemetry.shards().iter().enumerate().map(context);
        for context in contexts {
            start_worker(context, Running::new(&running)).map_err(StartError::Worker)?;
        }
        Ok(running)
    }

    fn spawn(self, config: &Arc<Config>, tasks: &mut JoinSet<()>) {
        let workload = self.control.workload();
        let channel = self.control.channel();
        tasks.spawn(identity::run(self.keeper, Arc::clone(config)));
        tasks.spawn(control::run(self.control, self.instance));
        tasks.spawn(telemetry::run(self.telemetry, Arc::clone(config), channel));
        let drain = self.drain.subscribe();
        tasks.spawn(listeners::run(Arc::clone(config), drain, workload, self.listeners, self.progress));
    }
}

fn bind(what: &'static str, address: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr), BindError> {
    let failed = |error| BindError { what, address, error };
    let socket: TcpListener = listeners::bind(what, address)?;
    let real = socket.local_addr().map_err(failed)?;
    Ok((tokio::net::TcpListener::from_std(socket).map_err(failed)?, real))
}

/// Health for IPv6, where it is to stand on all addresses; a machine may have no IPv6.
fn health_v6(v4: SocketAddr) -> Option<tokio::net::TcpListener> {
    if v4.ip() != Ipv4Addr::UNSPECIFIED {
        return None;
    }
    let bound = bind("health", SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), v4.port()));
    bound.map(|(socket, _)| socket).inspect_err(|error| tracing::warn!(%error, "not for IPv6")).ok()
}

fn address_of(listeners: &[Arc<BoundListener>], role: impl Fn(&Role) -> bool) -> Option<SocketAddr> {
    listeners.iter().find(|listener| role(&listener.role)).map(|listener| listener.address.0)
}
