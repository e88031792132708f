//! One call on its way to an endpoint.

use std::rc::Rc;

use super::EndpointState;

/// Latency that a failed connection counts as, in nanoseconds, so that others are preferred for a while.
const FAILURE_NANOS: u64 = 5_000_000_000;

/// One request (or connection) on its way to an endpoint. Dropped, it no longer counts as load.
pub(crate) struct Flight {
    endpoint: Rc<EndpointState>,
    started: u64,
    latency: Option<u64>,
}

impl Flight {
    /// Begins.
    pub(crate) fn start(endpoint: &Rc<EndpointState>) -> Self {
        endpoint.load.borrow_mut().start();
        Self { endpoint: Rc::clone(endpoint), started: endpoint.now(), latency: None }
    }

    /// The endpoint answered: the time until now is its latency.
    pub(crate) fn answered(&mut self) {
        self.latency = Some(self.endpoint.now().saturating_sub(self.started));
        self.endpoint.judge(false);
    }

    /// The application answered that it failed. It may be quick at that: others are better all the same where the
    /// Service's outlier settings say so.
    pub(crate) fn answered_badly(&mut self) {
        self.latency = Some(self.endpoint.now().saturating_sub(self.started));
        self.endpoint.judge(true);
    }

    /// The endpoint did not answer: others are better for a while.
    pub(crate) fn failed(&mut self) {
        self.latency = Some(FAILURE_NANOS);
        self.endpoint.judge(true);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut load = self.endpoint.load.borrow_mut();
        match self.latency {
            Some(latency) => load.finish(self.endpoint.now(), latency),
            None => load.abandon(),
        }
    }
}
