//! Where people and probes come in: admin, health, and the admin socket. Bound or taken over at the start; handed over
//! and closed when another process takes over.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::{fd::AsFd as _, unix::net::UnixListener},
    sync::Arc,
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet},
};

use super::{
    State, admin, health,
    server::{Handler, serve_tcp},
    socket::{bind_socket, serve_socket},
};
use crate::{
    app::StartError,
    config::Config,
    listeners::{BindError, take_or_bind},
    upgrade::{Handle, Inherited, Listed},
};

/// The listeners of admin and health.
pub(crate) struct Doors {
    tcp: Vec<Door>,
    socket: Option<UnixListener>,
    serving: Vec<AbortHandle>,
}

struct Door {
    what: &'static str,
    asked: SocketAddr,
    real: SocketAddr,
    socket: TcpListener,
    handler: Handler,
}

impl Doors {
    /// Binds them, or takes those of the process before this one.
    ///
    /// # Errors
    /// [`StartError`].
    pub(crate) fn open(config: &Config, inherited: &Inherited) -> Result<Self, StartError> {
        let door = |what, asked, handler| -> Result<Door, BindError> {
            let socket = take_or_bind(what, asked, inherited)?;
            let real = socket.local_addr().map_err(|error| BindError { what, address: asked, error })?;
            Ok(Door { what, asked, real, socket, handler })
        };
        let mut tcp = vec![door("admin", config.admin, admin)?, door("health", config.health, health)?];
        tcp.extend(health_v6(&tcp).and_then(|asked| {
            let door = door("health", asked, health);
            door.inspect_err(|error| tracing::warn!(%error, "not for IPv6")).ok()
        }));
        let socket = match (&config.admin_socket, inherited.take_admin_socket()) {
            (None, _) => None,
            (Some(_), Some(socket)) => Some(socket),
            (Some(path), None) => {
                let error = |error| StartError::AdminSocket { path: path.clone(), error };
                Some(bind_socket(path).map_err(error)?)
            }
        };
        Ok(Self { tcp, socket, serving: Vec::new() })
    }

    /// Where one of them stands; for health the first.
    pub(crate) fn address(&self, what: &str) -> Option<SocketAddr> {
        self.tcp.iter().find(|door| door.what == what).map(|door| door.real)
    }

    /// Serves them, once `accepting` says so.
    ///
    /// # Errors
    /// When a descriptor cannot be copied.
    pub(crate) fn serve(
        &mut self,
        state: &Arc<State>,
        accepting: &watch::Receiver<bool>,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<()> {
        for door in &self.tcp {
            let listener = tokio::net::TcpListener::from_std(door.socket.try_clone()?)?;
            let (state, mut accepting, handler) = (Arc::clone(state), accepting.clone(), door.handler);
            self.serving.push(tasks.spawn(async move {
                let _ = accepting.wait_for(|accepting| *accepting).await;
                serve_tcp(listener, state, handler).await;
            }));
        }
        if let Some(socket) = &self.socket {
            let listener = tokio::net::UnixListener::from_std(socket.try_clone()?)?;
            let (state, mut accepting) = (Arc::clone(state), accepting.clone());
            self.serving.push(tasks.spawn(async move {
                let _ = accepting.wait_for(|accepting| *accepting).await;
                serve_socket(listener, state).await;
            }));
        }
        Ok(())
    }

    /// The sockets, to be handed over.
    pub(crate) fn handles(&self) -> Vec<Handle<'_>> {
        let tcp = self.tcp.iter().map(|door| {
            (Listed { what: door.what.to_owned(), asked: Some(door.asked) }, door.socket.as_fd())
        });
        let socket = self
            .socket
            .iter()
            .map(|socket| (Listed { what: "admin-socket".to_owned(), asked: None }, socket.as_fd()));
        tcp.chain(socket).collect()
    }

    /// Accepts nothing any more: another process does.
    pub(crate) fn close(&mut self) {
        for task in self.serving.drain(..) {
            task.abort();
        }
        self.tcp.clear();
        self.socket = None;
    }
}

/// Where health is to stand for IPv6: on all addresses, as for IPv4; a machine may have no IPv6.
fn health_v6(doors: &[Door]) -> Option<SocketAddr> {
    let v4 = doors.iter().find(|door| door.what == "health")?.real;
    (v4.ip() == Ipv4Addr::UNSPECIFIED).then(|| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), v4.port()))
}
