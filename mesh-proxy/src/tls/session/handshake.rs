//! The handshake, by rustls; after it, the keys are taken over. Whatever comes with its last bytes is not lost.

use std::{io, ops::Deref, sync::Arc};

use rustls::{
    ClientConfig, CommonState, Error, ExtractedSecrets, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    pki_types::ServerName,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Established, Session, record, schedule::Schedule};
use crate::tls::credentials::shared;

/// Most bytes of a handshake that are kept at once: certificates come in one message, of which the library takes 64 KiB.
const MOST: usize = 128 * 1024;

/// As the caller.
///
/// # Errors
/// `InvalidData` with a [`rustls::Error`], or what the connection says.
pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    io: S,
) -> io::Result<(Session<S>, Established)> {
    run(UnbufferedClientConnection::new(config, name).map_err(invalid)?, io).await
}

/// As the one who is called.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    config: Arc<ServerConfig>,
    io: S,
) -> io::Result<(Session<S>, Established)> {
    run(UnbufferedServerConnection::new(config).map_err(invalid)?, io).await
}

/// One side of a handshake.
trait Handshake: Deref<Target: Deref<Target = CommonState>> + Sized {
    type Data;
    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn keys(self) -> Result<(ExtractedSecrets, Schedule), Error>;
}

impl Handshake for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn keys(self) -> Result<(ExtractedSecrets, Schedule), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Schedule::Client(kernel)))
    }
}

impl Handshake for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn keys(self) -> Result<(ExtractedSecrets, Schedule), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Schedule::Server(kernel)))
    }
}

/// What is to be done after a step.
enum Next {
    Step,
    Send,
    Read,
    Finish,
}

async fn run<H: Handshake, S: AsyncRead + AsyncWrite + Unpin>(
    mut side: H,
    mut io: S,
) -> io::Result<(Session<S>, Established)> {
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    // The library sees one record after the other: what comes behind the last of the handshake is not for it.
    let mut shown = 0;
    loop {
        let UnbufferedStatus { discard, state } = side.step(incoming.get_mut(..shown).unwrap_or_default());
        let next = match state {
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut data, &mut outgoing).map(|()| Next::Step)
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Ok(Next::Send)
            }
            Ok(ConnectionState::BlockedHandshake) => Ok(Next::Read),
            // Some may send before they know who calls; here nobody does.
            Ok(ConnectionState::WriteTraffic(_)) => Ok(Next::Finish),
            Ok(_) => Err(Error::HandshakeNotComplete),
            Err(error) => Err(error),
        };
        incoming.drain(..discard);
        shown -= discard;
        match next {
            Ok(Next::Step) => {}
            Ok(Next::Send) => {
                io.write_all(&outgoing).await?;
                io.flush().await?;
                outgoing.clear();
            }
            Ok(Next::Finish) if !side.is_handshaking() => break,
            Ok(Next::Read | Next::Finish) => shown = show(&mut io, &mut incoming, shown).await?,
            Err(error) => {
                say_why(&mut side, outgoing, &mut io).await;
                return Err(invalid(error));
            }
        }
    }
    if shown > 0 {
        // The beginning of a message that the handshake does not have.
        return Err(invalid(Error::HandshakeNotComplete));
    }
    let established = Established {
        alpn: side.alpn_protocol().map(<[u8]>::to_vec),
        chain: side.peer_certificates().map(shared),
    };
    let limit = side.negotiated_cipher_suite().and_then(|suite| suite.tls13());
    let limit = limit.map_or(0, |suite| suite.common.confidentiality_limit);
    let (secrets, schedule) = side.keys().map_err(invalid)?;
    let session = Session::new(io, secrets, schedule, limit, incoming)?;
    Ok((session, established))
}

/// Shows another record, which is read if it has not come yet: returns how many bytes are shown.
async fn show<S: AsyncRead + Unpin>(io: &mut S, incoming: &mut Vec<u8>, shown: usize) -> io::Result<usize> {
    loop {
        let hidden = incoming.get(shown..).unwrap_or_default();
        if let Some((kind, major, length)) = record::head(hidden) {
            // What is no record at all is for the library to say, at once.
            let record = (20..=23).contains(&u8::from(kind)) && major == 3 && length <= record::MOST;
            if !record || hidden.len() >= length {
                return Ok(shown + hidden.len().min(length));
            }
        }
        if incoming.len() > MOST {
            return Err(invalid(Error::PeerSentOversizedRecord));
        }
        incoming.reserve(4096);
        if io.read_buf(incoming).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer ended the TLS handshake"));
        }
    }
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) -> Result<(), Error> {
    let begin = outgoing.len();
    loop {
        match data.encode(outgoing.get_mut(begin..).unwrap_or_default()) {
            Ok(written) => {
                outgoing.truncate(begin + written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => outgoing.resize(begin + size.required_size, 0),
            Err(error) => return Err(Error::General(error.to_string())),
        }
    }
}

/// Sends what the library has to say to a peer that it refuses, as far as the connection takes it. No further: the
/// library is not to look once more at what it refused.
async fn say_why<H: Handshake, S: AsyncWrite + Unpin>(side: &mut H, mut outgoing: Vec<u8>, io: &mut S) {
    while side.wants_write()
        && let Ok(ConnectionState::EncodeTlsData(mut data)) = side.step(&mut []).state
        && encode(&mut data, &mut outgoing).is_ok()
    {}
    if io.write_all(&outgoing).await.is_ok() {
        let _ = io.flush().await;
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
