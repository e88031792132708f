//! The next keys, by rustls.

use rustls::{client::ClientConnectionData, kernel::KernelConnection, server::ServerConnectionData};

use super::record::{Key, RecordError};

/// What rustls keeps of a connection whose records it does not see.
pub(super) enum Schedule {
    /// This side called.
    Client(KernelConnection<ClientConnectionData>),
    /// This side was called.
    Server(KernelConnection<ServerConnectionData>),
    /// There are none; tickets are taken.
    #[cfg(any(test, fuzzing))]
    None,
}

impl Schedule {
    /// For sealing.
    pub(super) fn next_to_seal(&mut self) -> Result<Key, RecordError> {
        let next = match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
            #[cfg(any(test, fuzzing))]
            Self::None => return Err(RecordError::Keys),
        };
        Key::new(next.map_err(|_| RecordError::Keys)?)
    }

    /// For opening.
    pub(super) fn next_to_open(&mut self) -> Result<Key, RecordError> {
        let next = match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
            #[cfg(any(test, fuzzing))]
            Self::None => return Err(RecordError::Keys),
        };
        Key::new(next.map_err(|_| RecordError::Keys)?)
    }

    /// Keeps a ticket for the next connection to this peer.
    pub(super) fn keep(&mut self, ticket: &[u8]) -> Result<(), RecordError> {
        match self {
            Self::Client(kernel) => kernel.handle_new_session_ticket(ticket).map_err(|_| RecordError::Decode),
            Self::Server(_) => Err(RecordError::Unexpected),
            #[cfg(any(test, fuzzing))]
            Self::None => Ok(()),
        }
    }
}
