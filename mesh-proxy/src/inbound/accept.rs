//! A connection comes in: mesh TLS, or something else by the policy's mode.

use std::{future::Future, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;
use mesh_core::{
    addr::{ListenAddr, PeerAddr},
    config::InboundPort,
    edge::Direction,
    identity::SpiffeId,
    protocol::{MeshAlpn, Protocol},
    reason::Reason,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    first::{First, introduction, look},
    http::serve_http,
    port::{Callee, Entrance},
    proxy_header::Ends,
    tcp::{self, Greeted},
};
use crate::{
    detect::{Detected, Opening, PREFACE},
    net::{Accepted, Prefixed, Stream, original::original_destination},
    pool::Wire,
    tls::{
        peer_identity,
        session::{self, Established},
    },
    worker::Worker,
};

/// How long a TLS handshake may take, and after it the HTTP/2 preface.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is left to do for a connection once it is known what it carries: most of its time it needs no more room than
/// this.
pub(crate) type Rest = Pin<Box<dyn Future<Output = ()>>>;

/// Begins with a connection to one declared port (explicit mode). None: it has ended.
pub(crate) async fn explicit(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: PeerAddr,
    port: &InboundPort,
) -> Option<Rest> {
    let to = Entrance::of(worker, port.port);
    let Some(app) = to.app.or_else(|| port.app_address.map(|address| address.0)) else {
        tracing::warn!(port = port.port, "no appAddress is declared: give the Workload's port one");
        worker.refused(Direction::Inbound, Reason::AppUnavailable);
        return None;
    };
    let called = stream.local_addr().ok()?;
    begin(Box::new(Callee::new(worker, Ends { source: peer.0, destination: called }, to, app)), stream).await
}

/// Begins with a redirected connection (transparent mode). None: it has ended.
pub(crate) async fn transparent(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: PeerAddr,
    listener: ListenAddr,
) -> Option<Rest> {
    match original_destination(&stream, listener) {
        Ok(original) => {
            let to = Entrance::of(worker, original.0.port());
            // The address that was called, never loopback: what listens on loopback was not meant for others.
            let app = to.app.unwrap_or(original.0);
            let ends = Ends { source: peer.0, destination: original.0 };
            begin(Box::new(Callee::new(worker, ends, to, app)), stream).await
        }
        Err(error) => {
            tracing::info!(peer = %peer, %error, "inbound connection refused");
            worker.refused(Direction::Inbound, Reason::LoopDetected);
            None
        }
    }
}

/// `callee` is in a box: it is handed on from one step to the next, and each would have room for it.
async fn begin(callee: Box<Callee>, stream: TcpStream) -> Option<Rest> {
    let worker = Rc::clone(&callee.worker);
    match meet(callee, stream).await {
        Ok(rest) => rest,
        Err(reason) => {
            worker.refused(Direction::Inbound, reason);
            None
        }
    }
}

/// Finds out who calls and what the connection carries.
async fn meet(mut callee: Box<Callee>, stream: TcpStream) -> Result<Option<Rest>, Reason> {
    let mut opening = Opening::new(stream);
    let introduced = match callee.proxy.accept {
        true => Box::pin(introduction(&mut callee, &mut opening)).await?,
        false => true,
    };
    let Some(First { client, opening, app }) = Box::pin(look(&callee, opening)).await else {
        return Ok(None);
    };
    let stream = opening.into_stream();
    let (stream, carried) = if client == Some(Detected::MeshTls) {
        let (stream, caller, alpn) = Box::pin(accept(&callee.worker, stream)).await?;
        callee.name(caller);
        (stream, carried_by(alpn))
    } else if !introduced {
        return Err(Reason::ProxyHeaderInvalid);
    } else {
        (Stream::Tcp(stream), plaintext(callee.declared, client).ok_or(Reason::BadRequest)?)
    };
    Ok(Some(rest(callee, stream, carried, app)))
}

fn rest(callee: Box<Callee>, stream: Stream, carried: Carried, greeted: Option<Box<Greeted>>) -> Rest {
    match carried {
        Carried::Http { http2, app } => serve_http(callee, stream, http2, app),
        Carried::Bytes => Box::pin(async move { tcp::carry(&callee, stream, greeted, false).await }),
        Carried::Told => Box::pin(async move { tcp::carry(&callee, stream, greeted, true).await }),
    }
}

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carried {
    /// HTTP; how the caller speaks it, and how the application does.
    Http { http2: bool, app: Wire },
    /// Bytes that are not looked into.
    Bytes,
    /// The same, and the caller wants to be told whether they are taken.
    Told,
}

fn carried_by(alpn: MeshAlpn) -> Carried {
    match alpn {
        MeshAlpn::H1 => Carried::Http { http2: false, app: Wire::H1 },
        MeshAlpn::H2 => Carried::Http { http2: true, app: Wire::H2 },
        MeshAlpn::H1OverH2 => Carried::Http { http2: true, app: Wire::H1 },
        MeshAlpn::TcpTold => Carried::Told,
        MeshAlpn::Tcp => Carried::Bytes,
    }
}

/// What a connection without mesh TLS carries. None: not what the port is for.
fn plaintext(declared: Protocol, detected: Option<Detected>) -> Option<Carried> {
    let app = match declared {
        Protocol::Opaque => return Some(Carried::Bytes),
        Protocol::Http1 => Some(Wire::H1),
        Protocol::Http2 | Protocol::Grpc => Some(Wire::H2),
        Protocol::Undeclared => None,
    };
    match detected {
        Some(Detected::Http1) => Some(Carried::Http { http2: false, app: app.unwrap_or(Wire::H1) }),
        Some(Detected::Http2) => Some(Carried::Http { http2: true, app: app.unwrap_or(Wire::H2) }),
        // The application's own TLS; policy about requests does not match it, a policy that denies some does.
        Some(Detected::ForeignTls | Detected::MeshTls) => Some(Carried::Bytes),
        // HTTP/1 answers 400 to what it cannot read.
        Some(Detected::Other) if declared == Protocol::Http1 => {
            Some(Carried::Http { http2: false, app: Wire::H1 })
        }
        None if declared == Protocol::Http1 => Some(Carried::Http { http2: false, app: Wire::H1 }),
        Some(Detected::Other) | None if app.is_none() => Some(Carried::Bytes),
        Some(Detected::Other) | None => None,
    }
}

/// Mesh TLS: who calls, and what the connection carries.
async fn accept(worker: &Rc<Worker>, stream: Prefixed) -> Result<(Stream, SpiffeId, MeshAlpn), Reason> {
    let epoch = worker.wait_for_tls().await?;
    // In a box: a handshake's state is large and soon over.
    let handshake = Box::pin(session::accept(epoch.server_config(), stream));
    let (session, established) = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(outcome) => outcome.map_err(|error| {
            tracing::debug!(%error, "TLS handshake refused");
            Reason::TlsHandshakeFailed
        })?,
        Err(_) => return Err(Reason::TlsHandshakeFailed),
    };
    let Established { alpn, chain } = established;
    let alpn = alpn.and_then(|alpn| MeshAlpn::from_bytes(&alpn)).ok_or(Reason::TlsHandshakeFailed)?;
    let caller = peer_identity(chain.as_deref()).map_err(|error| {
        tracing::debug!(%error, "peer without an identity");
        Reason::TlsHandshakeFailed
    })?;
    let inner = Prefixed::new(session, Bytes::new());
    let mut accepted = Box::new(Accepted { inner, chain, roots: epoch.roots_hash });
    if matches!(alpn, MeshAlpn::H2 | MeshAlpn::H1OverH2) {
        read_preface(worker, &mut accepted.inner).await?;
    }
    Ok((Stream::Accepted(accepted), caller, alpn))
}

/// Reads the connection preface, to be read again: HTTP/2 would wait for it for ever, even when the proxy drains.
async fn read_preface<S>(worker: &Worker, stream: &mut Prefixed<S>) -> Result<(), Reason>
where
    S: AsyncRead + Unpin,
{
    let mut preface = [0; PREFACE.len()];
    tokio::select! {
        read = timeout(HANDSHAKE_TIMEOUT, stream.read_exact(&mut preface)) => match read {
            Ok(Ok(_)) if preface == *PREFACE => {}
            _ => return Err(Reason::BadRequest),
        },
        () = worker.too_late(Direction::Inbound) => return Err(Reason::ShuttingDown),
    }
    stream.unread(Bytes::from_static(PREFACE));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_carried_as_the_port_declares() {
        let h1 = Some(Carried::Http { http2: false, app: Wire::H1 });
        let check = |declared, detected, expected: Option<Carried>| {
            assert_eq!(plaintext(declared, detected), expected, "{declared} {detected:?}");
        };
        check(Protocol::Undeclared, Some(Detected::Http1), h1);
        check(Protocol::Undeclared, Some(Detected::ForeignTls), Some(Carried::Bytes));
        check(Protocol::Undeclared, None, Some(Carried::Bytes));
        check(Protocol::Http1, Some(Detected::Other), h1);
        check(Protocol::Http1, Some(Detected::Http2), Some(Carried::Http { http2: true, app: Wire::H1 }));
        check(Protocol::Grpc, Some(Detected::Other), None);
        check(Protocol::Opaque, Some(Detected::Http1), Some(Carried::Bytes));
    }
}
