//! What one proxy has in use towards one Service, counted over all of its workers.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

/// One count.
#[derive(Debug, Default)]
struct Gauge(AtomicU32);

/// One that is counted, until it is dropped.
#[derive(Debug)]
pub struct Counted {
    breaker: Arc<Breaker>,
    kind: Kind,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests in flight.
    Requests,
}

/// The counts of one Service.
#[derive(Debug, Default)]
pub struct Breaker {
    connections: Gauge,
    pending: Gauge,
    requests: Gauge,
}

impl Breaker {
    fn gauge(&self, kind: Kind) -> &Gauge {
        match kind {
            Kind::Connections => &self.connections,
            Kind::Pending => &self.pending,
            Kind::Requests => &self.requests,
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> u32 {
        self.gauge(kind).0.load(Relaxed)
    }

    /// Counts one more; None: there are `limit` already.
    #[must_use]
    pub fn take(self: &Arc<Self>, kind: Kind, limit: u32) -> Option<Counted> {
        let gauge = &self.gauge(kind).0;
        gauge.try_update(Relaxed, Relaxed, |count| (count < limit).then_some(count + 1)).ok()?;
        Some(Counted { breaker: Arc::clone(self), kind })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.breaker.gauge(self.kind).0.fetch_sub(1, Relaxed);
    }
}
