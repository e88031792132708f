//! Any connection of the application, redirected by the firewall: its original destination says where it goes.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use mesh_core::{
    addr::{ListenAddr, PeerAddr},
    edge::Direction,
    protocol::Protocol,
    reason::Reason,
    resource::DestinationKey,
};
use tokio::net::TcpStream;

use super::{http::serve_http, table::Kind, tcp};
use crate::{
    detect::{DETECT_TIMEOUT, Detected},
    net::{Prefixed, Stream, original::outbound_destination},
    worker::Worker,
};

/// How long the first bytes are waited for where no protocol is declared: the server may be the one to speak first.
const UNDECLARED_WAIT: Duration = Duration::from_millis(500);

/// Serves a redirected connection.
pub(crate) async fn serve(worker: &Rc<Worker>, mut stream: TcpStream, peer: PeerAddr, listener: ListenAddr) {
    let original = match outbound_destination(&stream, peer, listener) {
        Ok(original) => original,
        Err(error) => {
            tracing::info!(peer = %peer, %error, "outbound connection refused");
            return worker.refused(Direction::Outbound, Reason::LoopDetected);
        }
    };
    let destination = match worker.destinations.get(worker, &DestinationKey::Addr(original)) {
        Ok(destination) => destination,
        Err(reason) => return worker.refused(Direction::Outbound, reason),
    };
    destination.touch();
    let Ok(table) = destination.table(worker).await else {
        return tcp::refuse(worker, peer, Reason::DiscoveryUnavailable);
    };
    let declared = match table.kind() {
        Kind::Service(routes) => routes.protocol,
        Kind::Passthrough => {
            return tcp::pass_through(worker, Stream::tcp(stream), peer, &table, original.0).await;
        }
        Kind::Unknown(_) => Protocol::Opaque,
    };
    drop(table);
    let Some((protocol, bytes)) = protocol_of(worker, &mut stream, declared).await else { return };
    let stream = Stream::Tcp(Prefixed::new(stream, bytes));
    match protocol {
        Protocol::Http1 | Protocol::Http2 => {
            serve_http(worker, stream, peer, Some(destination), protocol).await
        }
        _ => tcp::carry(worker, stream, peer, &destination).await,
    }
}

/// What the connection speaks: HTTP/1, HTTP/2 or something that is not looked into. None: it ended.
async fn protocol_of(
    worker: &Worker,
    stream: &mut TcpStream,
    declared: Protocol,
) -> Option<(Protocol, Bytes)> {
    let within = match declared {
        Protocol::Opaque => return Some((Protocol::Opaque, Bytes::new())),
        Protocol::Undeclared => UNDECLARED_WAIT,
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => DETECT_TIMEOUT,
    };
    let (detected, bytes) = worker.detect(Direction::Outbound, stream, within).await?;
    let protocol = match (detected, declared) {
        (Some(Detected::Http1), _) => Protocol::Http1,
        (Some(Detected::Http2), _) => Protocol::Http2,
        (None, Protocol::Http1) => Protocol::Http1,
        (None, Protocol::Http2 | Protocol::Grpc) => Protocol::Http2,
        // Bytes that are not what was declared: routes about requests do not apply to them (and do not match).
        (Some(Detected::Other | Detected::MeshTls | Detected::ForeignTls) | None, _) => Protocol::Opaque,
    };
    Some((protocol, bytes))
}
