//! The old process: starts the new one, hands over, and goes on when that fails.

use std::{
    env, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Batch, Listed, Message, Offer, STDIN, VARIABLE, VERSION, wire};
use crate::identity::Handed;

/// Time for a message once the new process is ready.
const STEP: Duration = Duration::from_secs(5);
/// Time for a process that closed its end to be seen as ended.
const EXIT: Duration = Duration::from_secs(1);

/// Why an upgrade did not happen. The running process goes on as before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpgradeError {
    /// It is nobody's business to end.
    #[error(
        "this proxy is the first process of its container, which ends with it: replace the container instead"
    )]
    First,
    /// The binary is not known.
    #[error("the binary that runs is not known: name one with --binary")]
    NoBinary,
    /// It cannot be started.
    #[error("cannot start {}: {error}", binary.display())]
    Start {
        /// The new binary.
        binary: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// It said why not.
    #[error("the new process failed: {0}")]
    Failed(String),
    /// It ended without a word.
    #[error("the new process ended before it was ready ({0}): its standard error says more")]
    Ended(String),
    /// It takes too long.
    #[error("the new process was not ready within {0:?} and was killed")]
    Late(Duration),
    /// It says something unexpected.
    #[error("the new process: {0}")]
    Protocol(String),
    /// A descriptor cannot be copied, for instance.
    #[error("handing over: {0}")]
    Io(#[from] io::Error),
}

/// What is handed over.
pub(crate) struct Bequest {
    /// Which process in the row the new one will be.
    pub generation: u64,
    /// Listening sockets.
    pub sockets: Vec<(Listed, OwnedFd)>,
    /// The certificate.
    pub identity: Option<Handed>,
}

/// Starts `binary` with the arguments of this process and hands over. Returns the new process's id and version when it
/// accepts; from then on this process is to stop accepting. Dropped, it kills the new process.
///
/// # Errors
/// [`UpgradeError`]; then the new process is gone.
pub(crate) async fn hand_over(
    binary: &Path,
    bequest: Bequest,
    within: Duration,
) -> Result<(u32, String), UpgradeError> {
    if std::process::id() == 1 {
        return Err(UpgradeError::First);
    }
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = start(binary, theirs)?;
    let (offering, going) = (ours.try_clone()?, ours);
    let ready = blocking(move || offer(&offering, &bequest, within)).await;
    let version = match ready {
        Ok(Message::Ready { version }) => version,
        other => return Err(child.verdict(other, within)),
    };
    tracing::info!(pid = child.id(), version, "the new process is ready");
    match blocking(move || go(&going)).await {
        Ok(Message::Accepting) => Ok((child.release(), version)),
        other => Err(child.verdict(other, STEP)),
    }
}

async fn blocking(step: impl FnOnce() -> io::Result<Message> + Send + 'static) -> io::Result<Message> {
    tokio::task::spawn_blocking(step).await.map_err(io::Error::other)?
}

fn start(binary: &Path, theirs: UnixStream) -> Result<Started, UpgradeError> {
    let mut command = Command::new(binary);
    command.args(env::args_os().skip(1)).env(VARIABLE, STDIN).stdin(Stdio::from(OwnedFd::from(theirs)));
    let child = command.spawn().map_err(|error| UpgradeError::Start { binary: binary.to_owned(), error })?;
    tracing::info!(binary = %binary.display(), pid = child.id(), "upgrading");
    Ok(Started(Some(child)))
}

/// Hands everything over and waits for the word that all stands.
fn offer(stream: &UnixStream, bequest: &Bequest, within: Duration) -> io::Result<Message> {
    stream.set_write_timeout(Some(within))?;
    let offer = Offer {
        version: VERSION,
        generation: bequest.generation,
        within_millis: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        sockets: bequest.sockets.len(),
        identity: bequest.identity.clone(),
    };
    let began = Instant::now();
    wire::send(stream, &offer, &[])?;
    for sockets in bequest.sockets.chunks(wire::MAX_DESCRIPTORS) {
        let batch = Batch { sockets: sockets.iter().map(|(listed, _)| listed.clone()).collect() };
        let descriptors: Vec<_> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
        wire::send(stream, &batch, &descriptors)?;
    }
    // A timeout of zero would be none.
    let left = within.saturating_sub(began.elapsed()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left))?;
    wire::receive(stream).map(|(message, _)| message)
}

fn go(stream: &UnixStream) -> io::Result<Message> {
    stream.set_read_timeout(Some(STEP))?;
    wire::send(stream, &Message::Go, &[])?;
    wire::receive(stream).map(|(message, _)| message)
}

/// A process that has not taken over yet: killed when dropped.
struct Started(Option<Child>);

impl Started {
    fn id(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    /// It took over: let it live.
    fn release(mut self) -> u32 {
        let id = self.id();
        self.0 = None;
        id
    }

    /// Why it did not take over.
    fn verdict(&mut self, said: io::Result<Message>, within: Duration) -> UpgradeError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        match said {
            Ok(Message::Failed { error }) => UpgradeError::Failed(error),
            Ok(other) => UpgradeError::Protocol(format!("says {other:?}")),
            Err(error) => match error.kind() {
                UnexpectedEof | BrokenPipe | ConnectionReset => UpgradeError::Ended(self.status()),
                WouldBlock | TimedOut => UpgradeError::Late(within),
                _ => UpgradeError::Protocol(error.to_string()),
            },
        }
    }

    /// How it ended; it may be about to.
    fn status(&mut self) -> String {
        let Some(child) = &mut self.0 else { return String::new() };
        let began = Instant::now();
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) if began.elapsed() < EXIT => sleep(Duration::from_millis(5)),
                Ok(None) => return "it goes on without the hand-over".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
