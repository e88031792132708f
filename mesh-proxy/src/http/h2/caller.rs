//! What the requests of one connection share: their way in, and how their caller is told of interim responses.

use std::{cell::RefCell, mem};

use bytes::Bytes;
use h2::server::SendResponse;
use http::Response;

use crate::http::front::Front;

/// Who calls on a connection.
///
/// *Invariant:* an interim response is said while the work of its own request is polled, and is taken out behind that: those
/// of two requests never meet here. So none of them needs a place of its own for what hardly any of them gets.
pub(super) struct Caller {
    /// Where its requests come in.
    pub(super) front: Front,
    /// Interim responses that are to be sent.
    said: RefCell<Vec<Response<()>>>,
}

impl Caller {
    /// One that was told nothing yet.
    pub(super) fn new(front: Front) -> Self {
        Self { front, said: RefCell::default() }
    }

    /// Has an interim response sent.
    pub(super) fn say(&self, response: Response<()>) {
        self.said.borrow_mut().push(response);
    }

    /// True when something is to be sent.
    pub(super) fn has_said(&self) -> bool {
        !self.said.borrow().is_empty()
    }

    /// Sends what the request's work has said that was just polled.
    pub(super) fn tell(&self, respond: &mut SendResponse<Bytes>) {
        for response in mem::take(&mut *self.said.borrow_mut()) {
            if let Err(error) = respond.send_informational(response) {
                tracing::debug!(%error, "interim response cannot be sent");
            }
        }
    }
}
