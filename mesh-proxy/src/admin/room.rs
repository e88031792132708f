//! How many connections admin and health have, and which of them ends for a new one.
//!
//! The health port is open to everybody, and kubelet restarts an application whose probe finds no answer. So connections
//! that ask nothing never keep anybody out: the oldest of them goes; of an address that has its share, one of its own.
//! *Invariant:* one whose request is being answered stays. Only probes take time, and nobody but kubelet knows their paths.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{sync::Notify, task::AbortHandle};

/// Connections at a time.
pub(super) const MAX: usize = 128;
/// Of these, connections of one address in which nothing is being answered.
pub(super) const MAX_IDLE_OF_ONE: usize = 32;

/// The connections of a listener.
#[derive(Default)]
pub(super) struct Room {
    /// The oldest first.
    connections: Vec<Connection>,
    changed: Arc<Notify>,
}

struct Connection {
    peer: IpAddr,
    activity: Activity,
    task: AbortHandle,
}

/// What a connection does; held by its task.
#[derive(Clone)]
pub(super) struct Activity {
    answering: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

/// A request is being answered until this is dropped.
pub(super) struct Answering(Activity);

/// Tells that a connection has ended when this is dropped.
pub(super) struct Ending(Activity);

impl Room {
    /// Returns when there is room for a connection of `peer`, for which another one may have been ended.
    pub(super) async fn make(&mut self, peer: IpAddr) -> Activity {
        loop {
            self.connections.retain(|connection| !connection.task.is_finished());
            let all: Vec<(IpAddr, bool)> =
                self.connections.iter().map(|c| (c.peer, c.activity.is_answering())).collect();
            match place(&all, peer) {
                Place::Free => break,
                Place::Of(at) => {
                    self.connections.remove(at).task.abort();
                    break;
                }
                Place::None => self.changed.notified().await,
            }
        }
        Activity { answering: Arc::default(), changed: Arc::clone(&self.changed) }
    }

    /// Takes note of a connection that room was made for.
    pub(super) fn take(&mut self, peer: IpAddr, activity: Activity, task: AbortHandle) {
        self.connections.push(Connection { peer, activity, task });
    }
}

impl Activity {
    /// A request begins to be answered.
    pub(super) fn answering(&self) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(self.clone())
    }

    /// The connection's task begins.
    pub(super) fn ending(&self) -> Ending {
        Ending(self.clone())
    }

    fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.changed.notify_one();
    }
}

/// Where a newcomer finds its place.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Free,
    /// In that of another connection.
    Of(usize),
    /// All are being answered.
    None,
}

/// Connections, the oldest first: whose they are, and whether they are being answered.
fn place(connections: &[(IpAddr, bool)], peer: IpAddr) -> Place {
    let idle = connections.iter().enumerate().filter(|(_, (_, answering))| !answering);
    let mut own = idle.clone().filter(|(_, (of, _))| *of == peer);
    match (own.next(), idle.clone().next()) {
        (Some((at, _)), _) if 1 + own.count() >= MAX_IDLE_OF_ONE => Place::Of(at),
        _ if connections.len() < MAX => Place::Free,
        (_, Some((at, _))) => Place::Of(at),
        (_, None) => Place::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn the_oldest_that_asks_nothing_goes_and_of_the_newcomers_own_first() {
        assert_eq!(place(&[], ip(1)), Place::Free);
        let mut all = vec![(ip(2), true), (ip(2), false)];
        all.extend([(ip(1), false); MAX_IDLE_OF_ONE]);
        assert_eq!(place(&all, ip(2)), Place::Free);
        assert_eq!(place(&all, ip(1)), Place::Of(2), "it has its share");
        assert_eq!(place(&all[..all.len() - 1], ip(1)), Place::Free);
        all.resize(MAX, (ip(3), true));
        assert_eq!(place(&all, ip(1)), Place::Of(2));
        for peer in [ip(2), ip(3), ip(4)] {
            assert_eq!(place(&all, peer), Place::Of(1), "what is being answered stays");
        }
        let busy = vec![(ip(3), true); MAX];
        assert_eq!(place(&busy, ip(1)), Place::None);
        assert_eq!(place(&busy[1..], ip(3)), Place::Free, "probes of one kubelet are as many as it has");
    }
}
