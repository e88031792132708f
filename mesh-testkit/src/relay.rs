//! A TCP relay that records what passes and can be told to misbehave.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::serve::Served;

/// Most bytes that are kept for one direction of one connection; more still passes.
const MAX_KEPT: usize = 4 * 1024 * 1024;
/// Most connections that are kept.
const MAX_TAPES: usize = 10_000;

/// What passed on one connection.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    /// Bytes from the side that connected.
    pub to_server: Vec<u8>,
    /// Bytes from the side that was connected to.
    pub to_client: Vec<u8>,
}

/// How a relay behaves.
#[derive(Clone, Copy, Debug)]
struct Behaviour {
    target: SocketAddr,
    /// Each piece is held for this long.
    delay: Duration,
    /// New connections are closed at once.
    refuse: bool,
    /// Connections that were opened under an older number are closed.
    epoch: u64,
}

#[derive(Clone, Copy)]
enum Way {
    ToServer,
    ToClient,
}

type Tapes = Arc<Mutex<Vec<Tape>>>;

/// A relay on a socket of its own: connections to it continue to its target.
#[derive(Debug)]
pub struct Relay {
    served: Served,
    behaviour: watch::Sender<Behaviour>,
    tapes: Tapes,
}

impl Relay {
    /// Listens at `address` (port 0: any) and connects each connection to `target`.
    pub async fn start(address: SocketAddr, target: SocketAddr) -> Self {
        let (behaviour, watched) =
            watch::channel(Behaviour { target, delay: Duration::ZERO, refuse: false, epoch: 0 });
        let tapes = Tapes::default();
        let for_connections = Arc::clone(&tapes);
        let served = Served::start(address, move |stream, _| {
            relay(stream, watched.clone(), Arc::clone(&for_connections))
        })
        .await;
        Self { served, behaviour, tapes }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.served.accepted()
    }

    /// What has passed so far, one tape for each connection, in the order of accepting. Of each direction at most
    /// 4 MiB are kept.
    #[must_use]
    pub fn tapes(&self) -> Vec<Tape> {
        lock(&self.tapes).clone()
    }

    /// Holds each piece of data for this long, from now on.
    pub fn delay(&self, delay: Duration) {
        self.behaviour.send_modify(|b| b.delay = delay);
    }

    /// Closes new connections at once, or no longer.
    pub fn refuse(&self, refuse: bool) {
        self.behaviour.send_modify(|b| b.refuse = refuse);
    }

    /// Sends new connections elsewhere.
    pub fn retarget(&self, target: SocketAddr) {
        self.behaviour.send_modify(|b| b.target = target);
    }

    /// Closes all connections that are open.
    pub fn close_all(&self) {
        self.behaviour.send_modify(|b| b.epoch += 1);
    }

    /// Checks that every connection carried TLS 1.3 with a key share of `group`, and nothing else.
    ///
    /// # Panics
    /// When there was something else, or no connection at all.
    pub fn assert_only_tls13(&self, group: u16) {
        let tapes = self.tapes();
        let used: Vec<_> =
            tapes.iter().filter(|t| !t.to_server.is_empty() || !t.to_client.is_empty()).collect();
        assert!(!used.is_empty(), "nothing passed the relay");
        for (index, tape) in used.iter().enumerate() {
            if let Err(error) = crate::records::only_tls13(&tape.to_server, &tape.to_client, group) {
                panic!("connection {index}: {error}");
            }
        }
    }
}

fn lock(tapes: &Mutex<Vec<Tape>>) -> MutexGuard<'_, Vec<Tape>> {
    tapes.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn relay(client: TcpStream, mut behaviour: watch::Receiver<Behaviour>, tapes: Tapes) {
    let Behaviour { target, refuse, epoch, .. } = *behaviour.borrow();
    if refuse {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = server.set_nodelay(true);
    let index = {
        let mut tapes = lock(&tapes);
        if tapes.len() < MAX_TAPES {
            tapes.push(Tape::default());
        }
        tapes.len() - 1
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let watched = behaviour.clone();
    let pass = async {
        tokio::join!(
            copy(from_client, to_server, &tapes, (index, Way::ToServer), &watched),
            copy(from_server, to_client, &tapes, (index, Way::ToClient), &watched),
        )
    };
    tokio::select! {
        _ = pass => {}
        _ = behaviour.wait_for(|b| b.epoch != epoch) => {}
    }
}

/// Copies one direction up to its end, and passes the end on.
async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    tapes: &Mutex<Vec<Tape>>,
    (index, way): (usize, Way),
    behaviour: &watch::Receiver<Behaviour>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let delay = behaviour.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Some(tape) = lock(tapes).get_mut(index) {
            let kept = match way {
                Way::ToServer => &mut tape.to_server,
                Way::ToClient => &mut tape.to_client,
            };
            let room = MAX_KEPT.saturating_sub(kept.len()).min(length);
            kept.extend_from_slice(&buffer[..room]);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests;
