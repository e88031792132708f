//! Accepting: one task per listener, one task per connection.

use std::{cell::Cell, future::Future, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use mesh_core::{addr::PeerAddr, edge::Direction, reason::Reason};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

use super::Worker;
use crate::{
    inbound,
    listeners::{BoundListener, Listeners, Role},
    outbound,
};

/// Connections that one worker carries at a time in each direction; more are closed at once. Strangers who fill one do not
/// keep the application from calling others.
const MAX_CONNECTIONS: usize = 20_000;
/// Pause after an error that will come again at once, like running out of file descriptors.
const BACKOFF: Duration = Duration::from_millis(50);

/// A listener and the task that accepts on it. Dropped, it stops accepting.
struct Accepting {
    listener: Arc<BoundListener>,
    task: AbortHandle,
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts on the listeners of the moment, for ever.
pub(super) async fn follow(worker: &Rc<Worker>, mut listeners: watch::Receiver<Listeners>) {
    let mut running: Vec<Accepting> = Vec::new();
    loop {
        let wanted = Arc::clone(&listeners.borrow_and_update());
        running.retain(|r| wanted.iter().any(|listener| Arc::ptr_eq(listener, &r.listener)));
        for listener in wanted.iter() {
            if running.iter().any(|r| Arc::ptr_eq(listener, &r.listener)) {
                continue;
            }
            match start(worker, listener) {
                Ok(accepting) => running.push(accepting),
                Err(error) => {
                    tracing::error!(address = %listener.address, %error, "this worker cannot accept: restart the proxy");
                }
            }
        }
        if listeners.changed().await.is_err() {
            // The sender is gone: keep what is there until the drain says otherwise.
            std::future::pending::<()>().await;
        }
    }
}

fn start(worker: &Rc<Worker>, listener: &Arc<BoundListener>) -> io::Result<Accepting> {
    let socket = TcpListener::from_std(listener.socket.try_clone()?)?;
    let task = tokio::task::spawn_local(accept(Rc::clone(worker), socket, Arc::clone(listener)));
    Ok(Accepting { listener: Arc::clone(listener), task: task.abort_handle() })
}

async fn accept(worker: Rc<Worker>, socket: TcpListener, listener: Arc<BoundListener>) {
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => take(&worker, stream, peer, &listener),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(address = %listener.address, %error, "accepting failed: too many open files?");
                tokio::time::sleep(BACKOFF).await;
            }
        }
    }
}

/// The connection failed before it was accepted; the next one may be well.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn take(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, listener: &Arc<BoundListener>) {
    let direction = listener.role.direction();
    if worker.connections.is_full(direction) {
        worker.refused(direction, Reason::TooManyConnections);
        return;
    }
    // Without it small messages wait for the acknowledgement of others.
    let _ = stream.set_nodelay(true);
    let open = Open::count(worker, direction);
    // Not the listener: its socket closes when nobody accepts on it any more, whatever is carried. A task of its own kind
    // for each role, or all would have room for the largest.
    let (peer, address) = (PeerAddr(peer), listener.address);
    match listener.role.clone() {
        Role::OutboundHttp => spawn(async move { outbound::http(&open.worker, stream, peer).await }),
        Role::OutboundTcp(host) => {
            spawn(async move { outbound::tcp(&open.worker, stream, peer, &host).await })
        }
        Role::OutboundTransparent => {
            spawn(async move { outbound::transparent(&open.worker, stream, peer, address).await });
        }
        Role::InboundPort(port) => {
            spawn(async move {
                if let Some(rest) = Box::pin(inbound::explicit(&open.worker, stream, peer, &port)).await {
                    rest.await;
                }
            });
        }
        Role::InboundTransparent => {
            spawn(async move {
                if let Some(rest) = Box::pin(inbound::transparent(&open.worker, stream, peer, address)).await
                {
                    rest.await;
                }
            });
        }
    }
}

fn spawn(connection: impl Future<Output = ()> + 'static) {
    tokio::task::spawn_local(connection);
}

/// How many connections a worker carries.
#[derive(Default)]
pub(super) struct Connections {
    inbound: Cell<usize>,
    outbound: Cell<usize>,
}

impl Connections {
    fn of(&self, direction: Direction) -> &Cell<usize> {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    fn is_full(&self, direction: Direction) -> bool {
        self.of(direction).get() >= MAX_CONNECTIONS
    }

    /// Those of both directions.
    pub(super) fn all(&self) -> usize {
        self.inbound.get() + self.outbound.get()
    }
}

/// An accepted connection, or what became of one, counted as long as it lives.
pub(crate) struct Open {
    worker: Rc<Worker>,
    direction: Direction,
}

impl Open {
    /// Counts one.
    pub(crate) fn count(worker: &Rc<Worker>, direction: Direction) -> Self {
        let count = worker.connections.of(direction);
        count.set(count.get() + 1);
        worker.shard.connection_opened(direction);
        Self { worker: Rc::clone(worker), direction }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let count = self.worker.connections.of(self.direction);
        count.set(count.get().saturating_sub(1));
        self.worker.shard.connection_closed(self.direction);
        if self.worker.connections.all() == 0 {
            self.worker.last_ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::{addr::ListenAddr, config::InboundPort, name::Host};

    use super::*;

    #[test]
    fn one_direction_does_not_fill_the_other() {
        let connections = Connections::default();
        connections.of(Direction::Inbound).set(MAX_CONNECTIONS);
        assert!(connections.is_full(Direction::Inbound) && !connections.is_full(Direction::Outbound));
        connections.of(Direction::Outbound).set(1);
        connections.of(Direction::Inbound).set(0);
        assert_eq!(connections.all(), 1, "the drain waits for both");
    }

    /// Size of the future that `start` would make; it is never called.
    fn size<A, F: Future>(_start: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// What one connection costs besides its buffers and its TLS session.
    #[test]
    fn connections_are_small() {
        type Taken<T> = (&'static Rc<Worker>, TcpStream, PeerAddr, T);
        let sizes = [
            ("outbound HTTP", size(|(w, s, p, ()): Taken<()>| outbound::http(w, s, p))),
            ("outbound TCP", size(|(w, s, p, h): Taken<&'static Host>| outbound::tcp(w, s, p, h))),
            ("outbound", size(|(w, s, p, l): Taken<ListenAddr>| outbound::transparent(w, s, p, l))),
            ("inbound port", size(|(w, s, p, i): Taken<&'static InboundPort>| inbound::explicit(w, s, p, i))),
            ("inbound", size(|(w, s, p, l): Taken<ListenAddr>| inbound::transparent(w, s, p, l))),
        ];
        println!("{sizes:?}");
        assert!(sizes.iter().all(|(_, size)| *size <= 3 * 1024), "{sizes:?}");
    }
}
