//! Connections that wait for a request: on a stack, the newest on top. They are given up before their server does it, as
//! far as that is known.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName};
use mesh_core::resilience::{
    breaker::Counted,
    keep::{self, Habit},
};

use crate::http::h1::Io;

/// Most connections that are kept idle for one upstream. Many callers' answers can come in one turn: what is closed then
/// costs a handshake a moment later.
const MAX_IDLE: usize = 1024;
/// Age at which a connection takes no new request, so that load moves to new endpoints behind an address.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Where servers state how long they keep a connection.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A connection, and what decides whether it is used again.
pub(super) struct Connection {
    pub io: Io,
    pub generation: u64,
    opened: Instant,
    used: Instant,
    /// How long it may stay idle.
    keep: Duration,
    /// Its server has had the opportunity to say how long that is.
    told: bool,
    /// One of the connections that a Service may have in use; not while it is idle.
    pub counted: Option<Counted>,
}

impl Connection {
    /// One that was just opened, and that may stay idle for `keep` unless its server says less.
    pub(super) fn new(io: Io, generation: u64, keep: Duration, counted: Option<Counted>) -> Box<Self> {
        let now = Instant::now();
        let (opened, used, told) = (now, now, false);
        Box::new(Self { io, generation, opened, used, keep, told, counted })
    }

    /// Notes what the server says of itself; only its first response is asked.
    pub(super) fn hear(&mut self, fields: &HeaderMap) {
        if self.told {
            return;
        }
        self.told = true;
        let stated = fields.get(KEEP_ALIVE).and_then(|value| keep::stated(value.as_bytes()));
        if let Some(limit) = stated {
            self.keep = self.keep.min(keep::within(limit));
        }
    }
}

/// Connections that wait for a request.
#[expect(clippy::vec_box, reason = "connections go in and out with every request: one word each")]
pub(in crate::pool) struct Idle {
    waiting: RefCell<Vec<Box<Connection>>>,
    /// How long the server was seen to keep them.
    habit: Cell<Habit>,
    /// When the pool was made, and when it was last looked through.
    made: Instant,
    swept: Cell<Instant>,
}

impl Default for Idle {
    fn default() -> Self {
        let now = Instant::now();
        Self { waiting: RefCell::default(), habit: Cell::default(), made: now, swept: Cell::new(now) }
    }
}

impl Idle {
    /// Takes the newest that can take a request.
    pub(super) fn take(&self, generation: u64) -> Option<Box<Connection>> {
        let mut connection = self.waiting.borrow_mut().pop()?;
        let now = Instant::now();
        loop {
            let fresh = connection.generation == generation
                && now.saturating_duration_since(connection.used) < connection.keep
                && now.saturating_duration_since(connection.opened) < MAX_AGE;
            if fresh {
                if connection.io.is_quiet() {
                    return Some(connection);
                }
                // What ended together is seen together.
                self.waiting.borrow_mut().push(connection);
                self.look(now);
            }
            connection = self.waiting.borrow_mut().pop()?;
        }
    }

    /// Keeps one that was used.
    pub(super) fn put(&self, mut connection: Box<Connection>) {
        connection.used = Instant::now();
        connection.io.rest();
        self.back(connection);
    }

    /// Keeps one that was taken, but not used.
    pub(super) fn back(&self, mut connection: Box<Connection>) {
        connection.counted = None;
        let mut idle = self.waiting.borrow_mut();
        if idle.len() < MAX_IDLE && !connection.keep.is_zero() {
            idle.push(connection);
        }
    }

    /// How long a new connection may stay idle, at most `most`.
    pub(super) fn keep(&self, most: Duration) -> Duration {
        let habit = self.habit.get();
        // Nearly always nothing is known, and no clock is read.
        if habit == Habit::default() {
            return most;
        }
        habit.keep(self.made.elapsed()).map_or(most, |keep| keep.min(most))
    }

    /// Closes what has ended, and what would be idle for too long before the next look after `period`. Only what was
    /// made under this generation's certificate stays.
    pub(in crate::pool) fn sweep(&self, now: Instant, period: Duration, generation: u64) {
        self.look(now);
        let mut idle = self.waiting.borrow_mut();
        idle.retain(|c| {
            c.generation == generation && now.saturating_duration_since(c.used) + period < c.keep
        });
        if idle.capacity() > 2 * idle.len() + 4 {
            idle.shrink_to_fit();
        }
    }

    /// Drops what has ended, and notes what that says of the server.
    fn look(&self, now: Instant) {
        let mut idle = self.waiting.borrow_mut();
        let (mut ended, mut survived) = (None, Duration::ZERO);
        let swept = self.swept.replace(now);
        idle.retain_mut(|c| {
            let age = now.saturating_duration_since(c.used);
            let quiet = c.io.is_quiet();
            if quiet {
                survived = survived.max(age);
            } else {
                ended = ended.max(Some((age, swept.saturating_duration_since(c.used))));
            }
            quiet
        });
        let Some((age, alive)) = ended else { return };
        let mut habit = self.habit.get();
        habit.ended(now.saturating_duration_since(self.made), age, alive, survived);
        self.habit.set(habit);
        let Some(keep) = habit.keep(now.saturating_duration_since(self.made)) else { return };
        for connection in &mut *idle {
            connection.keep = connection.keep.min(keep);
        }
    }
}
