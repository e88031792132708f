//! What a connection speaks, from its first bytes.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hello;
mod learned;
mod opening;
mod parse;
mod race;

use std::{io, time::Duration};

use tokio::time::timeout;

pub(crate) use self::{
    hello::HANDSHAKE,
    learned::{Learned, LearnedPorts},
    opening::{Look, Opening},
    parse::{Detected, PREFACE},
    race::{Rules, race},
};

/// How long a connection may take to say what it speaks.
pub(crate) const DETECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection that has begun to speak may leave open what it speaks, where nothing is declared.
pub(crate) const UNCLEAR_WAIT: Duration = Duration::from_millis(500);

/// Reads until it is clear what a connection speaks. `None`: nothing decisive came in time.
///
/// # Errors
/// When reading fails or the peer closes before it has sent anything.
pub(crate) async fn detect(
    mut opening: Opening,
    within: Duration,
) -> io::Result<(Option<Detected>, Opening)> {
    let detected = match timeout(within, opening.clear(Look::Http)).await {
        Ok(outcome) => Some(outcome?),
        Err(_) => None,
    };
    if detected.is_some() && opening.is_silent() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((detected, opening))
}
