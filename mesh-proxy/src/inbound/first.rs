//! The first bytes of a call: a load balancer's introduction where that is declared, then what the caller speaks.

use std::io;

use mesh_core::{edge::Direction, protocol::Protocol, reason::Reason};
use tokio::time::timeout;

use super::{
    port::Callee,
    proxy_header::{Parsed, parse},
    tcp::Greeted,
};
use crate::detect::{DETECT_TIMEOUT, Detected, Opening, Rules, race};

/// What the first bytes say.
pub(super) struct First {
    /// What the caller speaks; None: its bytes are not clear in time, or the application was the first.
    pub client: Option<Detected>,
    /// The caller's connection.
    pub opening: Opening,
    /// The connection to the application, if it stands already.
    pub app: Option<Box<Greeted>>,
}

/// Reads the PROXY protocol header with which callers without mesh TLS must begin on a port that accepts these, and
/// believes it. Ok(false): a TLS record begins, which only a peer may send without one.
///
/// # Errors
/// [`Reason::ProxyHeaderInvalid`].
pub(super) async fn introduction(callee: &mut Callee, opening: &mut Opening) -> Result<bool, Reason> {
    let read = async {
        loop {
            if opening.begins_tls() {
                return Ok(None);
            }
            match parse(opening.seen()) {
                Parsed::Header(length, ends) => return Ok(Some((length, ends))),
                Parsed::More if opening.more().await? > 0 => {}
                Parsed::More | Parsed::Invalid => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    };
    let read: Result<io::Result<_>, _> = timeout(DETECT_TIMEOUT, read).await;
    match read {
        Ok(Ok(Some((length, ends)))) => {
            opening.skip(length);
            if let Some(ends) = ends {
                callee.introduced(ends);
            }
            Ok(true)
        }
        Ok(Ok(None)) => Ok(false),
        Ok(Err(_)) | Err(_) => Err(Reason::ProxyHeaderInvalid),
    }
}

/// Finds out what a call speaks. None: it ended.
pub(super) async fn look(callee: &Callee, mut opening: Opening) -> Option<First> {
    let worker = &callee.worker;
    if callee.looks_into_requests() {
        let (client, opening) = worker.detect(Direction::Inbound, opening, DETECT_TIMEOUT).await?;
        return Some(First { client, opening, app: None });
    }
    let learned = worker.learned.get(callee.port);
    let rules = match callee.declared {
        Protocol::Opaque => Rules::opaque(learned, true),
        Protocol::Undeclared | Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => {
            Rules::undeclared(learned, true)
        }
    };
    let connect = async {
        callee.may_speak_first()?;
        callee.connect().await
    };
    let raced = tokio::select! {
        raced = Box::pin(race(&mut opening, rules, connect)) => raced.ok()?,
        () = worker.too_late(Direction::Inbound) => return None,
    };
    if let Some(learned) = raced.learned {
        worker.learned.set(callee.port, learned);
    }
    let greeted = raced.server.and_then(Result::ok).map(|stream| Greeted { stream, said: raced.said });
    // A header that says nobody in particular calls is not for a peer.
    let kept = raced.client != Some(Detected::MeshTls) || callee.proxy.send.is_none();
    Some(First { client: raced.client, opening, app: greeted.filter(|_| kept).map(Box::new) })
}
