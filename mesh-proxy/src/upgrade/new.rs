//! The new process: takes what it is handed, and says when it is ready.

use std::{
    env,
    io::{self, stdin},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::Duration,
};

use socket2::SockRef;

use super::{Batch, Inherited, Listed, Message, Offer, STDIN, VARIABLE, VERSION, wire};
use crate::identity::Handed;

/// Most sockets that are taken.
const MAX_SOCKETS: usize = 4096;
/// Time for each message of the old process.
const STEP: Duration = Duration::from_secs(10);

/// Why a process cannot succeed another one.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    /// The variable is set, and nothing is there.
    #[error("{VARIABLE} is set, but standard input is no socket of a proxy that upgrades: unset it")]
    NoSocket,
    /// The old process is gone or says something unexpected.
    #[error("taking over: {0}")]
    Io(#[from] io::Error),
    /// It speaks another language.
    #[error("the running proxy hands over by version {0}, this one by version {VERSION}: restart instead")]
    Version(u32),
    /// A socket is not what it should be.
    #[error("the socket handed over for {what} is not a listener there")]
    Socket {
        /// What it is for.
        what: String,
    },
    /// The old process changed its mind.
    #[error("the running proxy goes on itself")]
    Refused,
}

/// What a process has from the one that it succeeds.
pub struct Succession {
    stream: UnixStream,
    generation: u64,
    within: Duration,
    pub(crate) inherited: Arc<Inherited>,
    identity: Option<Handed>,
}

impl Succession {
    /// Takes what is handed over; None: this process succeeds nobody.
    ///
    /// # Errors
    /// [`SuccessionError`].
    pub fn receive() -> Result<Option<Self>, SuccessionError> {
        if env::var_os(VARIABLE).is_none_or(|way| way != STDIN) {
            return Ok(None);
        }
        let standard = stdin().as_fd().try_clone_to_owned()?;
        let address = SockRef::from(&standard).local_addr().map_err(|_| SuccessionError::NoSocket)?;
        if !address.is_unix() {
            return Err(SuccessionError::NoSocket);
        }
        Self::from_stream(UnixStream::from(standard)).map(Some)
    }

    pub(super) fn from_stream(stream: UnixStream) -> Result<Self, SuccessionError> {
        stream.set_read_timeout(Some(STEP))?;
        stream.set_write_timeout(Some(STEP))?;
        let (offer, _): (Offer, _) = wire::receive(&stream)?;
        if offer.version != VERSION {
            return Err(SuccessionError::Version(offer.version));
        }
        let mut sockets = Vec::new();
        while sockets.len() < offer.sockets.min(MAX_SOCKETS) {
            let (batch, descriptors): (Batch, _) = wire::receive(&stream)?;
            if batch.sockets.is_empty() || batch.sockets.len() != descriptors.len() {
                return Err(io::Error::other("the sockets handed over are not those named").into());
            }
            for (listed, descriptor) in batch.sockets.into_iter().zip(descriptors) {
                if !is_listener(&listed, &descriptor) {
                    return Err(SuccessionError::Socket { what: listed.what });
                }
                sockets.push((listed, descriptor));
            }
        }
        Ok(Self {
            stream,
            generation: offer.generation,
            within: Duration::from_millis(offer.within_millis),
            inherited: Arc::new(Inherited(sockets.into())),
            identity: offer.identity,
        })
    }

    /// Which process in the row this is.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// How long this process may take to be ready.
    pub(crate) fn within(&self) -> Duration {
        self.within
    }

    /// The certificate of the old process.
    pub(crate) fn identity(&self) -> Option<&Handed> {
        self.identity.as_ref()
    }

    /// Says that this process cannot take over. The old one goes on.
    pub fn failed(&self, error: &str) {
        // It may be gone, or long done with this process.
        let _ = wire::send(&self.stream, &Message::Failed { error: error.to_owned() }, &[]);
    }

    /// Says that all stands, and waits for the word to begin.
    pub(crate) async fn ready(&self) -> Result<(), SuccessionError> {
        let stream = self.stream.try_clone()?;
        let waiting = tokio::task::spawn_blocking(move || -> io::Result<Message> {
            let version = env!("CARGO_PKG_VERSION").to_owned();
            wire::send(&stream, &Message::Ready { version }, &[])?;
            wire::receive(&stream).map(|(message, _)| message)
        });
        match waiting.await.map_err(io::Error::other)?? {
            Message::Go => Ok(()),
            Message::Ready { .. } | Message::Failed { .. } | Message::Accepting => {
                Err(SuccessionError::Refused)
            }
        }
    }

    /// Says that this process accepts.
    pub(crate) fn accepting(&self) -> Result<(), SuccessionError> {
        Ok(wire::send(&self.stream, &Message::Accepting, &[])?)
    }
}

/// Whether a descriptor is what its name says. It comes from a process that could do worse; what is caught is a
/// mistake.
fn is_listener(listed: &Listed, descriptor: &OwnedFd) -> bool {
    let socket = SockRef::from(descriptor);
    let listens = socket.is_listener().unwrap_or(false);
    let address = socket.local_addr().ok();
    match (listed.asked, address) {
        (None, Some(address)) => listens && address.is_unix(),
        (Some(asked), Some(address)) => {
            let real = address.as_socket();
            let same = real.is_some_and(|real| {
                real.ip() == asked.ip() && (asked.port() == 0 || real.port() == asked.port())
            });
            listens && same
        }
        (_, None) => false,
    }
}
