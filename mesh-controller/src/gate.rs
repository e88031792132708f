//! Who may connect to a port: so many at a time, and so many of one address, so that nobody takes all places.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use crate::{limit::Rarely, metrics::Metrics};

/// The places at a port.
pub(crate) struct Gate {
    port: &'static str,
    reason: &'static str,
    most: usize,
    most_of_one: usize,
    metrics: Metrics,
    taken: Mutex<Taken>,
    told: Rarely,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place that is taken, until this is dropped.
pub(crate) struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    /// `most` places, `most_of_one` of them for one address. `port` and `reason` name it in metrics and log.
    pub(crate) fn new(
        (port, reason): (&'static str, &'static str),
        most: usize,
        most_of_one: usize,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let (taken, told) = (Mutex::default(), Rarely::default());
        Arc::new(Self { port, reason, most, most_of_one, metrics: metrics.clone(), taken, told })
    }

    /// Takes a place. None: there is none, which is counted, and told now and then.
    pub(crate) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let address = peer.ip().to_canonical();
        let mut taken = self.taken();
        let own = taken.by_address.get(&address).copied().unwrap_or(0);
        let limit = if own >= self.most_of_one {
            format!("it has {own} already")
        } else if taken.all >= self.most {
            format!("there are {} in all", taken.all)
        } else {
            taken.all += 1;
            taken.by_address.insert(address, own + 1);
            return Some(Place { gate: Arc::clone(self), address });
        };
        drop(taken);
        self.metrics.connection_refused(self.port, self.reason);
        if self.told.is_due() {
            tracing::warn!(port = self.port, reason = self.reason, %address,
                "a connection is refused: {limit}; see what that pod does, or who else holds so many");
        }
        None
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.gate.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_address.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// How many requests of a connection are under way.
#[derive(Clone, Default)]
pub(crate) struct Requests(watch::Sender<usize>);

/// One of them, until this is dropped.
pub(crate) struct UnderWay(watch::Sender<usize>);

impl Requests {
    /// One begins.
    pub(crate) fn begin(&self) -> UnderWay {
        self.0.send_modify(|count| *count += 1);
        UnderWay(self.0.clone())
    }

    /// Ends when there was none for `limit`.
    pub(crate) async fn idle(&self, limit: Duration) {
        let mut count = self.0.subscribe();
        // No error: the sender is here.
        while count.wait_for(|count| *count == 0).await.is_ok() {
            if timeout(limit, count.changed()).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn peer(host: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, host], port).into()
    }

    #[test]
    fn one_address_leaves_places_for_others() {
        let metrics = Metrics::new();
        let gate = Gate::new(("webhook", "too_many"), 5, 2, &metrics);
        let enter = |host, port| gate.enter(peer(host, port));
        let first = [enter(1, 1), enter(1, 2)];
        assert!(first.iter().all(Option::is_some));
        assert!(enter(1, 3).is_none());
        // The same address in the notation of a socket for both families.
        assert!(gate.enter("[::ffff:10.0.0.1]:4".parse().unwrap()).is_none());
        let others = [enter(2, 1), enter(2, 2), enter(3, 1)];
        assert!(others.iter().all(Option::is_some));
        assert!(enter(4, 1).is_none(), "none is left");
        let line = "connections_refused_total{port=\"webhook\",reason=\"too_many\"} 3\n";
        assert!(metrics.render().contains(line), "{}", metrics.render());
        drop(first);
        let again = [enter(1, 5), enter(4, 2)];
        assert!(again.iter().all(Option::is_some));
        assert!(enter(5, 1).is_none());
        drop((others, again));
        let taken = gate.taken();
        assert!(taken.all == 0 && taken.by_address.is_empty(), "nothing is kept of who is gone");
    }

    #[tokio::test]
    async fn only_what_has_no_request_is_idle() {
        let limit = Duration::from_millis(100);
        let requests = Requests::default();
        let begin = Instant::now();
        requests.idle(limit).await;
        assert!(begin.elapsed() >= limit);

        let one = requests.begin();
        let never = timeout(limit * 4, requests.idle(limit)).await;
        assert!(never.is_err(), "a request is under way");
        let begin = Instant::now();
        let (later, ()) = tokio::join!(
            async {
                requests.idle(limit).await;
                begin.elapsed()
            },
            async {
                tokio::time::sleep(limit / 2).await;
                drop((one, requests.begin()));
            }
        );
        assert!(later >= limit * 3 / 2, "it counts from the last one: {later:?}");
    }
}
