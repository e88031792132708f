//! Whether a peer is still there: it is asked when it was silent for long.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
};

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep};

use super::{Io, PATIENCE, SILENCE};

/// Watches over one connection. Costs a glance at a flag as long as something comes.
pub(crate) struct KeepAlive {
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
    armed: bool,
    asked: bool,
}

impl KeepAlive {
    /// Begins; `pings` are those of the connection.
    pub(crate) fn new(pings: Option<PingPong>) -> Self {
        Self { pings, timer: Box::pin(sleep(SILENCE)), armed: false, asked: false }
    }

    /// False when the peer is gone. `wanted` says whether anybody would miss it. Always from the same task.
    pub(crate) fn is_alive(&mut self, cx: &mut Context<'_>, io: &Io, wanted: bool) -> bool {
        // A timer that knows its task need not be asked again before its time.
        while !self.armed || self.timer.is_elapsed() {
            match self.timer.as_mut().poll(cx) {
                Poll::Pending => self.armed = true,
                Poll::Ready(()) => {
                    let heard = io.heard();
                    if self.asked && !heard {
                        return false;
                    }
                    self.asked = !heard && wanted && self.ask(cx);
                    let next = if self.asked { PATIENCE } else { SILENCE };
                    self.timer.as_mut().reset(Instant::now() + next);
                    self.armed = false;
                }
            }
        }
        true
    }

    fn ask(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(pings) = &mut self.pings else { return false };
        // Takes the answer to the last one, which was heard long ago.
        let _ = pings.poll_pong(cx);
        pings.send_ping(Ping::opaque()).is_ok()
    }
}
