//! Who speaks first? Where that is not known, the server is connected to while the client's first bytes are awaited,
//! so that a server that speaks first is not kept waiting. Nothing is sent to it before that is decided.

use std::{
    cell::Cell,
    future::Future,
    io,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{io::AsyncReadExt, time::timeout};

use super::{DETECT_TIMEOUT, Detected, Learned, Look, Opening, UNCLEAR_WAIT, parse::greets_as_http};
use crate::net::Stream;

/// First bytes of the server that are read at once, in bytes.
const GREETING: usize = 1024;

/// Peers send their ClientHello with the connection: who has not begun by now is no peer. The timer ticks in
/// milliseconds, so that this is one on the average.
const HEAD_START: Duration = Duration::from_micros(500);

/// How a race is run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// What the client's bytes are looked through for.
    pub look: Look,
    /// How long the client may speak before the server is connected to.
    pub head_start: Duration,
    /// How long the client's bytes, once they come, may leave open what they are.
    pub unclear: Duration,
    /// Mesh TLS of the client is for this proxy.
    pub inbound: bool,
}

impl Rules {
    /// For a client of this workload, or of another one (`inbound`), where nothing is declared.
    pub(crate) fn undeclared(learned: Learned, inbound: bool) -> Self {
        let (head_start, unclear) = match learned {
            Learned::Unknown if inbound => (HEAD_START, UNCLEAR_WAIT),
            Learned::Unknown | Learned::ServerFirst => (Duration::ZERO, UNCLEAR_WAIT),
            Learned::Http => (DETECT_TIMEOUT, DETECT_TIMEOUT),
        };
        Self { look: Look::Http, head_start, unclear, inbound }
    }

    /// Where bytes are not looked into.
    pub(crate) fn opaque(learned: Learned, inbound: bool) -> Self {
        Self { look: Look::Tls, ..Self::undeclared(learned, inbound) }
    }
}

/// How it ended.
pub(crate) struct Raced<C, E> {
    /// What the client speaks; None: its bytes are not clear, or the server was the first.
    pub client: Option<Detected>,
    /// The connection to the server; None: none was made, or it is not wanted.
    pub server: Option<Result<C, E>>,
    /// What the server has said already.
    pub said: Bytes,
    /// What to remember.
    pub learned: Option<Learned>,
}

impl<C, E> Raced<C, E> {
    fn new(client: Option<Detected>, server: Option<Result<C, E>>) -> Self {
        Self { client, server, said: Bytes::new(), learned: None }
    }

    /// The client speaks HTTP.
    fn http(client: Detected) -> Self {
        Self { learned: Some(Learned::Http), ..Self::new(Some(client), None) }
    }
}

/// Runs a race between the client of `opening` and the server that `connect` leads to. The client's silence has no
/// limit, for it may be waiting for the server, as the server may be for it.
///
/// # Errors
/// When reading from the client fails.
pub(crate) async fn race<C, E>(
    opening: &mut Opening,
    rules: Rules,
    connect: impl Future<Output = Result<C, E>>,
) -> io::Result<Raced<C, E>>
where
    C: AsMut<Stream>,
{
    let begun = Cell::new(false);
    let mut connect = pin!(connect);
    let mut client = pin!(opening.begun_and_clear(rules.look, rules.unclear, &begun));
    let http = |client| matches!(client, Some(Detected::Http1 | Detected::Http2));
    let ours = |client| rules.inbound && client == Some(Detected::MeshTls);
    // What the client said ends the race before a connection stands.
    if !rules.head_start.is_zero()
        && let Ok(client) = timeout(rules.head_start, client.as_mut()).await
    {
        return Ok(match client? {
            Some(client) if http(Some(client)) => Raced::http(client),
            client => Raced::new(client, None),
        });
    }
    let connected = tokio::select! {
        biased;
        client = client.as_mut() => return Ok(match client? {
            Some(client) if http(Some(client)) => Raced::http(client),
            client if ours(client) => Raced::new(client, None),
            client => Raced::new(client, Some(connect.as_mut().await)),
        }),
        connected = connect.as_mut() => connected,
    };
    let mut server = match connected {
        Ok(server) => server,
        Err(error) if rules.look == Look::Tls && !rules.inbound => {
            return Ok(Raced::new(None, Some(Err(error))));
        }
        // A client of HTTP, or of mesh TLS, is answered in another way.
        Err(error) => {
            return Ok(match soon(client, &begun, rules.look).await? {
                Some(client) if http(Some(client)) => Raced::http(client),
                client => Raced::new(client, Some(Err(error))),
            });
        }
    };
    let mut said = BytesMut::with_capacity(GREETING);
    tokio::select! {
        biased;
        client = client.as_mut() => Ok(match client? {
            Some(client) if http(Some(client)) => Raced::http(client),
            client => Raced::new(client, Some(Ok(server))),
        }),
        read = server.as_mut().read_buf(&mut said) => match read {
            Ok(1..) if rules.look == Look::Http && greets_as_http(&said) => {
                drop(server);
                let client = match timeout(DETECT_TIMEOUT, client).await {
                    Ok(client) => client?,
                    Err(_) => None,
                };
                Ok(Raced::http(client.filter(|client| http(Some(*client))).unwrap_or(Detected::Http1)))
            }
            Ok(1..) => {
                let said = said.freeze();
                Ok(Raced { said, learned: Some(Learned::ServerFirst), ..Raced::new(None, Some(Ok(server))) })
            }
            // Closed without a word: perhaps only bytes are refused there.
            Ok(0) | Err(_) => Ok(match soon(client, &begun, rules.look).await? {
                Some(client) if http(Some(client)) => Raced::http(client),
                client => Raced::new(client, Some(Ok(server))),
            }),
        },
    }
}

/// Waits a little longer for the client to begin: a connection that is opened long before its first request is not to
/// be taken for one that waits for the server.
async fn soon(
    mut client: Pin<&mut impl Future<Output = io::Result<Option<Detected>>>>,
    begun: &Cell<bool>,
    look: Look,
) -> io::Result<Option<Detected>> {
    let within = match look {
        Look::Http => DETECT_TIMEOUT,
        Look::Tls => UNCLEAR_WAIT,
    };
    match timeout(within, client.as_mut()).await {
        Ok(client) => client,
        Err(_) if begun.get() => client.await,
        Err(_) => Ok(None),
    }
}
