//! Destinations that this worker's calls asked for, kept as long as they are used.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::{reason::Reason, resource::DestinationKey};
use tokio::{sync::watch, time::timeout};

use super::table::Table;
use crate::{control::DestinationState, detect::Learned, worker::Worker};

/// Destinations that one worker keeps; more are refused until some are unused.
const MAX_DESTINATIONS: usize = 4096;
/// How long an unused destination stays subscribed.
const KEEP: Duration = Duration::from_secs(60);

/// Destinations by what the application called them.
#[derive(Default)]
pub(crate) struct Destinations {
    known: RefCell<HashMap<DestinationKey, Rc<Destination>>>,
}

impl Destinations {
    /// The destination of a name; asks the controller about it when it is new.
    ///
    /// # Errors
    /// [`Reason::DiscoveryUnavailable`] when there are too many.
    pub(crate) fn get(&self, worker: &Worker, key: &DestinationKey) -> Result<Rc<Destination>, Reason> {
        let mut known = self.known.borrow_mut();
        if let Some(found) = known.get(key) {
            return Ok(Rc::clone(found));
        }
        if known.len() >= MAX_DESTINATIONS {
            return Err(Reason::DiscoveryUnavailable);
        }
        let receiver = worker.control.destination(key).map_err(|error| {
            tracing::warn!(destination = %key, %error, "destination not asked for");
            Reason::DiscoveryUnavailable
        })?;
        let destination = Rc::new(Destination {
            receiver: RefCell::new(receiver),
            table: RefCell::new(None),
            used: Cell::new(Instant::now()),
            learned: Cell::default(),
        });
        known.insert(key.clone(), Rc::clone(&destination));
        Ok(destination)
    }

    /// Forgets what nobody has used for a while, which ends the subscription.
    pub(crate) fn sweep(&self, now: Instant) {
        self.known.borrow_mut().retain(|_, destination| {
            // Connections hold it; their requests do not note each use.
            if Rc::strong_count(destination) > 1 {
                destination.used.set(now);
            }
            now.saturating_duration_since(destination.used.get()) < KEEP
        });
    }
}

/// One destination.
pub(crate) struct Destination {
    receiver: RefCell<watch::Receiver<DestinationState>>,
    table: RefCell<Option<Rc<Table>>>,
    used: Cell<Instant>,
    /// What connections showed it to speak, where that is not declared.
    pub(super) learned: Cell<Learned>,
}

impl Destination {
    /// Where calls go at the moment.
    ///
    /// # Errors
    /// [`Reason::DiscoveryUnavailable`] when the controller does not answer in time.
    pub(crate) async fn table(&self, worker: &Rc<Worker>) -> Result<Rc<Table>, Reason> {
        if let Some(table) = self.current(worker) {
            return Ok(table);
        }
        // In a box: rare, and it would otherwise be part of every request's future.
        Box::pin(self.wait(worker)).await
    }

    /// The newest answer, if there is one. Takes the channel's lock only after a change.
    fn current(&self, worker: &Rc<Worker>) -> Option<Rc<Table>> {
        let mut receiver = self.receiver.borrow_mut();
        let mut table = self.table.borrow_mut();
        if table.as_ref().is_none_or(|table| !table.is_named()) || receiver.has_changed().unwrap_or(true) {
            self.used.set(Instant::now());
            let state = receiver.borrow_and_update().clone();
            if let DestinationState::Ready(resolved) = state
                && !table.as_ref().is_some_and(|table| table.is_of(&resolved) && table.is_named())
            {
                *table = Some(Rc::new(Table::new(worker, resolved)));
            }
        }
        table.clone()
    }

    async fn wait(&self, worker: &Rc<Worker>) -> Result<Rc<Table>, Reason> {
        let mut receiver = self.receiver.borrow().clone();
        let ready = receiver.wait_for(|state| matches!(state, DestinationState::Ready(_)));
        let resolved = match timeout(worker.config.discovery_wait, ready).await {
            Ok(Ok(state)) => match &*state {
                DestinationState::Ready(resolved) => Arc::clone(resolved),
                DestinationState::Pending => return Err(Reason::DiscoveryUnavailable),
            },
            _ => return Err(Reason::DiscoveryUnavailable),
        };
        if let Some(table) = self.current(worker) {
            return Ok(table);
        }
        Ok(Rc::new(Table::new(worker, resolved)))
    }

    /// Notes that a connection used it, so that it stays.
    pub(crate) fn touch(&self) {
        self.used.set(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_connection_holds_counts_as_used() {
        let begin = Instant::now();
        let (_sender, receiver) = watch::channel(DestinationState::Pending);
        let held = Rc::new(Destination {
            receiver: RefCell::new(receiver),
            table: RefCell::default(),
            used: Cell::new(begin),
            learned: Cell::default(),
        });
        let destinations = Destinations::default();
        let key = DestinationKey::Host("catalog".parse().unwrap());
        destinations.known.borrow_mut().insert(key, Rc::clone(&held));
        let kept = |after: Duration| {
            destinations.sweep(begin + after);
            destinations.known.borrow().len()
        };
        assert_eq!(kept(KEEP * 2), 1);
        drop(held);
        assert_eq!(kept(KEEP * 2 + KEEP / 2), 1, "its last connection has just ended");
        assert_eq!(kept(KEEP * 3), 0);
    }
}
