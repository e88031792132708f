//! Listening sockets: bound on the control thread, polled by every worker.

use std::{
    collections::HashSet,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use mesh_core::{
    addr::ListenAddr,
    config::{InboundPort, WorkloadConfig},
    edge::Direction,
    name::Host,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{sync::watch, time::timeout};

use crate::{
    config::{Config, Mode},
    drain::{self, Drain},
    net::probe,
    upgrade::Inherited,
};

/// Connections that wait to be accepted, per listener.
const BACKLOG: i32 = 1024;
/// How often a listener that could not be bound is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Most listeners that a workload's configuration can ask for.
const MAX: usize = 1024;

/// What a listener takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// HTTP from the application, by Host (explicit mode).
    OutboundHttp,
    /// TCP from the application to one declared upstream (explicit mode).
    OutboundTcp(Host),
    /// Anything from the application, by original destination (transparent mode).
    OutboundTransparent,
    /// Calls to one port of the workload (explicit mode).
    InboundPort(Arc<InboundPort>),
    /// Calls to the workload, by original destination (transparent mode).
    InboundTransparent,
}

impl Role {
    /// Its name, for people and tools.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::OutboundHttp => "outbound-http",
            Self::OutboundTcp(_) => "outbound-tcp",
            Self::OutboundTransparent => "outbound",
            Self::InboundPort(_) | Self::InboundTransparent => "inbound",
        }
    }

    /// What it is for, for messages and hand-overs.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Self::OutboundHttp | Self::OutboundTransparent => "outbound",
            Self::OutboundTcp(_) => "an upstream",
            Self::InboundPort(_) => "a port of the workload",
            Self::InboundTransparent => "inbound",
        }
    }

    /// Which way its connections go.
    pub(crate) fn direction(&self) -> Direction {
        match self {
            Self::OutboundHttp | Self::OutboundTcp(_) | Self::OutboundTransparent => Direction::Outbound,
            Self::InboundPort(_) | Self::InboundTransparent => Direction::Inbound,
        }
    }
}

/// One listening socket.
pub(crate) struct BoundListener {
    /// What it takes.
    pub role: Role,
    /// Where it was wanted; the port may be 0.
    pub asked: SocketAddr,
    /// Where it stands; the real port.
    pub address: ListenAddr,
    /// The socket, non-blocking. Workers poll clones of it.
    pub socket: TcpListener,
}

/// All listening sockets. An unchanged one keeps its `Arc`, so that workers keep their accept tasks.
pub(crate) type Listeners = Arc<[Arc<BoundListener>]>;

/// Why a listener does not stand.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for {what}: {error}; is another process there, and is the address this machine's"
)]
pub struct BindError {
    /// What it is for.
    pub what: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// What is wrong.
    pub error: io::Error,
}

/// Binds a non-blocking listener.
///
/// # Errors
/// [`BindError`].
pub(crate) fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        // Accepted connections inherit it.
        probe(&socket, address.ip(), None)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bind().map_err(|error| BindError { what, address, error })
}

/// A listener that the process before this one hands over, or a new one.
///
/// # Errors
/// [`BindError`].
pub(crate) fn take_or_bind(
    what: &'static str,
    address: SocketAddr,
    inherited: &Inherited,
) -> Result<TcpListener, BindError> {
    let Some(socket) = inherited.take(what, address) else { return bind(what, address) };
    // As this process is configured, not that one. It works as it is, too.
    let _ = probe(&SockRef::from(&socket), address.ip(), None);
    Ok(socket)
}

fn bound(
    role: Role,
    what: &'static str,
    asked: SocketAddr,
    inherited: &Inherited,
) -> Result<Arc<BoundListener>, BindError> {
    let socket = take_or_bind(what, asked, inherited)?;
    let address = socket.local_addr().map_err(|error| BindError { what, address: asked, error })?;
    Ok(Arc::new(BoundListener { role, asked, address: ListenAddr(address), socket }))
}

/// Binds those listeners that do not depend on the workload's configuration; outbound comes first.
///
/// # Errors
/// [`BindError`]. The machine may have no IPv6: the second address of a listener is then left out.
pub(crate) fn bind_fixed(config: &Config, inherited: &Inherited) -> Result<Listeners, BindError> {
    let role = match config.mode {
        Mode::Explicit => Role::OutboundHttp,
        Mode::Transparent => Role::OutboundTransparent,
    };
    let outbound = config.outbound.iter().map(|address| (&role, address));
    let inbound = config.inbound.iter().map(|address| (&Role::InboundTransparent, address));
    let mut listeners: Vec<Arc<BoundListener>> = Vec::new();
    for (role, address) in outbound.chain(inbound) {
        match bound(role.clone(), role.what(), *address, inherited) {
            Ok(listener) => listeners.push(listener),
            Err(error) if address.is_ipv6() && listeners.iter().any(|other| other.role == *role) => {
                tracing::warn!(%error, "not for IPv6");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listeners.into())
}

/// How far the listeners follow the workload's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// A configuration has been looked at.
    pub started: bool,
    /// What does not stand, and why.
    pub problems: Vec<String>,
}

impl Progress {
    /// Everything stands.
    pub(crate) fn is_complete(&self) -> bool {
        self.started && self.problems.is_empty()
    }
}

/// Keeps the listeners as the workload's configuration says. When the proxy drains it closes those of inbound, so that
/// new connections are refused at once; outbound's stand until outbound ends too. Then this ends.
pub(crate) async fn run(
    config: Arc<Config>,
    mut drain: watch::Receiver<Drain>,
    mut workload: watch::Receiver<Option<Arc<WorkloadConfig>>>,
    listeners: watch::Sender<Listeners>,
    progress: watch::Sender<Progress>,
    inherited: Arc<Inherited>,
) {
    let fixed: Vec<_> = listeners.borrow().to_vec();
    loop {
        let current = workload.borrow_and_update().clone();
        let mut wait = Duration::MAX;
        if let Some(current) = current {
            let wanted = if config.mode == Mode::Explicit { wanted(&current) } else { Vec::new() };
            let problems = follow(&fixed, wanted, &listeners, &inherited);
            if !problems.is_empty() {
                wait = RETRY;
            }
            progress.send_if_modified(|progress| {
                let new = Progress { started: true, problems };
                let changed = *progress != new;
                for problem in &new.problems {
                    if changed {
                        tracing::error!("{problem}");
                    }
                }
                *progress = new;
                changed
            });
        }
        tokio::select! {
            () = drain::ending(&mut drain, Direction::Inbound) => break,
            changed = timeout(wait, workload.changed()) => if let Ok(Err(_)) = changed { break },
        }
    }
    listeners.send_modify(|listeners| {
        let outbound = listeners.iter().filter(|listener| listener.role.direction() == Direction::Outbound);
        *listeners = outbound.cloned().collect();
    });
    drain::ending(&mut drain, Direction::Outbound).await;
    listeners.send_replace(Listeners::from([]));
}

/// What the configuration asks for in explicit mode: nothing as long as the workload has no address.
fn wanted(workload: &WorkloadConfig) -> Vec<(Role, SocketAddr)> {
    let Some(ip) = workload.address else { return Vec::new() };
    let inbound = workload
        .inbound
        .iter()
        .map(|port| (Role::InboundPort(Arc::new(port.clone())), SocketAddr::new(ip, port.port)));
    let upstreams = workload.upstreams.iter().map(|upstream| {
        let address = SocketAddr::new(ip, upstream.listen_port);
        (Role::OutboundTcp(upstream.host.clone()), address)
    });
    inbound.chain(upstreams).take(MAX).collect()
}

/// Binds what is new, keeps what is the same, closes the rest. Returns what does not stand.
fn follow(
    fixed: &[Arc<BoundListener>],
    wanted: Vec<(Role, SocketAddr)>,
    listeners: &watch::Sender<Listeners>,
    inherited: &Inherited,
) -> Vec<String> {
    let before = Arc::clone(&listeners.borrow());
    let mut problems = Vec::new();
    let mut now: Vec<Arc<BoundListener>> = fixed.to_vec();
    let mut taken = HashSet::new();
    for (role, address) in wanted {
        if fixed.iter().any(|l| l.address.0 == address) {
            problems.push(format!(
                "a listener of the workload wants {address}, where the proxy itself listens: change its port or listenPort"
            ));
            continue;
        }
        if !taken.insert(address) {
            problems
                .push(format!("two listeners of the workload want {address}: change a port or a listenPort"));
            continue;
        }
        if let Some(same) = before.iter().find(|l| l.address.0 == address) {
            // The socket goes on under its new role: connections that wait in its backlog are not lost.
            match (same.role == role, same.socket.try_clone()) {
                (true, _) => now.push(Arc::clone(same)),
                (false, Ok(socket)) => {
                    now.push(Arc::new(BoundListener { role, asked: address, address: same.address, socket }))
                }
                (false, Err(error)) => problems.push(format!("listener on {address}: {error}")),
            }
            continue;
        }
        let what = role.what();
        match bound(role, what, address, inherited) {
            Ok(listener) => now.push(listener),
            Err(error) => problems.push(error.to_string()),
        }
    }
    let unchanged = before.len() == now.len() && before.iter().zip(&now).all(|(a, b)| Arc::ptr_eq(a, b));
    if !unchanged {
        listeners.send_replace(now.into());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16, name: &str) -> Role {
        let protocol = mesh_core::protocol::Protocol::Http1;
        Role::InboundPort(Arc::new(InboundPort {
            name: name.to_owned(),
            ..InboundPort::new(number, protocol)
        }))
    }

    /// An address on which nobody listens now; others of these tests use other addresses.
    fn free(ip: [u8; 4]) -> SocketAddr {
        bind("test", (ip, 0).into()).unwrap().local_addr().unwrap()
    }

    #[test]
    fn unchanged_listeners_stay_and_others_come_and_go() {
        let (a, b) = (free([127, 66, 0, 1]), free([127, 66, 0, 2]));
        let fixed = vec![
            bound(Role::OutboundHttp, "test", ([127, 66, 0, 3], 0).into(), &Inherited::default()).unwrap(),
        ];
        let listeners = watch::Sender::new(Listeners::from(fixed.clone()));
        let none: [String; 0] = [];
        assert_eq!(
            follow(&fixed, vec![(port(1, "a"), a), (port(2, "b"), b)], &listeners, &Inherited::default()),
            none
        );
        let first = listeners.borrow().clone();
        assert_eq!(first.len(), 3);
        assert_eq!(follow(&fixed, vec![(port(1, "a"), a)], &listeners, &Inherited::default()), none);
        let second = listeners.borrow().clone();
        assert_eq!(second.len(), 2);
        assert!(Arc::ptr_eq(&first[1], &second[1]));
        drop(first);
        assert!(bind("test", b).is_ok(), "the port is free again");
        assert_eq!(follow(&fixed, vec![(port(1, "renamed"), a)], &listeners, &Inherited::default()), none);
        let third = listeners.borrow().clone();
        assert!(!Arc::ptr_eq(&second[1], &third[1]));
        assert_eq!(third[1].role, port(1, "renamed"));
    }

    #[test]
    fn the_address_of_the_proxy_itself_is_not_given_away() {
        let fixed = vec![
            bound(Role::OutboundHttp, "test", ([127, 66, 0, 6], 0).into(), &Inherited::default()).unwrap(),
        ];
        let listeners = watch::Sender::new(Listeners::from(fixed.clone()));
        let problems =
            follow(&fixed, vec![(port(1, "a"), fixed[0].address.0)], &listeners, &Inherited::default());
        assert!(problems.len() == 1 && problems[0].contains("the proxy itself"), "{problems:?}");
        assert!(listeners.borrow().len() == 1 && Arc::ptr_eq(&listeners.borrow()[0], &fixed[0]));
    }

    #[tokio::test]
    async fn accepted_connections_are_probed() {
        let listener = bind("test", ([127, 66, 0, 7], 0).into()).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let dialled = crate::net::dial::dial(listener.local_addr().unwrap(), None).await.unwrap();
        let crate::net::Stream::Tcp(dialled) = dialled else { panic!("plaintext was dialled") };
        let (accepted, _) = listener.accept().await.unwrap();
        for socket in [SockRef::from(&accepted), SockRef::from(dialled.get_ref())] {
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
            assert_eq!(socket.tcp_user_timeout().unwrap(), None, "on one host nobody vanishes");
        }
    }

    #[test]
    fn a_listener_that_does_not_stand_is_told_and_the_others_do() {
        let taken = bind("test", ([127, 66, 0, 4], 0).into()).unwrap();
        let (address, free) = (taken.local_addr().unwrap(), free([127, 66, 0, 5]));
        let listeners = watch::Sender::new(Listeners::from(vec![]));
        let wanted = vec![(port(1, "a"), address), (port(2, "b"), free), (port(3, "c"), free)];
        let problems = follow(&[], wanted, &listeners, &Inherited::default());
        assert_eq!(listeners.borrow().len(), 1);
        assert_eq!(problems.len(), 2);
        assert!(problems[0].contains(&address.to_string()), "{problems:?}");
        assert!(problems[1].contains("two listeners"), "{problems:?}");
    }
}
