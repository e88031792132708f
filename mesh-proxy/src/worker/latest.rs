//! The newest value of a watch channel, without its lock: it is taken only when the value has changed.

use std::{cell::RefCell, sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};

/// The newest value; None before the first.
pub(super) struct Latest<T> {
    state: RefCell<State<T>>,
}

struct State<T> {
    receiver: watch::Receiver<Option<Arc<T>>>,
    value: Option<Arc<T>>,
}

impl<T> Latest<T> {
    pub(super) fn new(mut receiver: watch::Receiver<Option<Arc<T>>>) -> Self {
        let value = receiver.borrow_and_update().clone();
        Self { state: RefCell::new(State { receiver, value }) }
    }

    /// The newest value. When the sender is gone, the last one stays.
    pub(super) fn get(&self) -> Option<Arc<T>> {
        let mut state = self.state.borrow_mut();
        let State { receiver, value } = &mut *state;
        // An error says that the sender is gone; its last value may still be unread.
        if receiver.has_changed().unwrap_or(true) {
            *value = receiver.borrow_and_update().clone();
        }
        value.clone()
    }

    /// The newest value once there is one; None when that takes too long.
    pub(super) async fn wait(&self, within: Duration) -> Option<Arc<T>> {
        let mut receiver = self.state.borrow().receiver.clone();
        let found = timeout(within, receiver.wait_for(Option::is_some)).await.ok()?.ok()?;
        found.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn follows_the_sender_and_survives_it() {
        let (sender, receiver) = watch::channel(None);
        let latest = Latest::new(receiver);
        assert_eq!(latest.get(), None);
        assert_eq!(latest.wait(Duration::from_millis(5)).await, None);
        sender.send_replace(Some(Arc::new(7)));
        assert_eq!(latest.wait(Duration::from_millis(5)).await.as_deref(), Some(&7));
        drop(sender);
        assert_eq!(latest.get().as_deref(), Some(&7));
    }
}
