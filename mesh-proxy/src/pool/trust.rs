//! Connections to one upstream, as long as what its peer authenticated with counts.

use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    time::{Duration, Instant, SystemTime},
};

use mesh_core::reason::Reason;

use super::SWEEP;
use crate::{
    net::{Stream, Tether},
    tls::{Credentials, Side, TlsEpoch},
    worker::GRACE,
};

/// All connections to one upstream that stand, by the chain that they were made with.
#[derive(Default)]
pub(super) struct Trust {
    groups: RefCell<Vec<Group>>,
    /// Grows when a chain stops to count.
    pub withdrawn: Cell<u64>,
    /// When connections were last cut.
    cut: Cell<Option<Instant>>,
}

/// Connections with one chain; nearly always there is one.
struct Group {
    credentials: Credentials,
    connections: Vec<Weak<Tether>>,
    /// When it was found that the chain no longer counts.
    withdrawn: Option<Instant>,
}

impl Group {
    fn forget_ended(&mut self) {
        self.connections.retain(|tether| tether.strong_count() > 0);
    }
}

impl Trust {
    /// Holds a connection that was made under `epoch`. Plaintext is held by nobody.
    ///
    /// # Errors
    /// [`Reason::PeerNotTrusted`]: the chain has expired. A resumed session is not verified again.
    pub(super) fn hold(&self, stream: &Stream, epoch: &TlsEpoch) -> Result<(), Reason> {
        let Some(stream) = stream.dialled() else { return Ok(()) };
        let chain = stream.chain().ok_or(Reason::PeerNotTrusted)?;
        let tether = Rc::downgrade(stream.tether());
        let mut groups = self.groups.borrow_mut();
        let known = groups.iter_mut().find(|group| group.withdrawn.is_none() && group.credentials.are(chain));
        if let Some(group) = known {
            if group.connections.len() == group.connections.capacity() {
                group.forget_ended();
            }
            group.connections.push(tether);
            return Ok(());
        }
        let credentials = Credentials::new(Side::Callee, Some(chain), epoch.roots_hash);
        let mut credentials = credentials.ok_or(Reason::PeerNotTrusted)?;
        credentials.valid_for(None, SystemTime::now()).ok_or(Reason::PeerNotTrusted)?;
        groups.push(Group { credentials, connections: vec![tether], withdrawn: None });
        Ok(())
    }

    /// Looks whether all chains still count, and cuts what has had its time.
    pub(super) fn look(&self, now: Instant, epoch: Option<&TlsEpoch>) {
        let mut groups = self.groups.borrow_mut();
        if groups.is_empty() {
            return;
        }
        let wall = SystemTime::now();
        groups.retain_mut(|group| {
            group.forget_ended();
            if group.withdrawn.is_none() && group.credentials.valid_for(epoch, wall).is_none() {
                group.withdrawn = Some(now);
                self.withdrawn.set(self.withdrawn.get() + 1);
            }
            // Not later than the time that is given: the next look may be late for it.
            if group.withdrawn.is_some_and(|then| now.saturating_duration_since(then) + SWEEP > GRACE) {
                self.cut.set(Some(now));
                group.connections.drain(..).filter_map(|tether| tether.upgrade()).for_each(|one| one.cut());
            }
            !group.connections.is_empty()
        });
    }

    /// Connections whose chain was found at `then` to count no more, and that still stand.
    pub(super) fn ending(&self, then: Instant) -> usize {
        let groups = self.groups.borrow();
        let found = groups.iter().filter(|group| group.withdrawn == Some(then));
        found.flat_map(|group| &group.connections).filter(|tether| tether.strong_count() > 0).count()
    }

    /// What a connection that broke just now broke of.
    pub(super) fn cause(&self, reason: Reason) -> Reason {
        let cut = || self.cut.get().is_some_and(|then| then.elapsed() < Duration::from_millis(500));
        if reason == Reason::UpstreamReset && cut() { Reason::PeerNotTrusted } else { reason }
    }
}
