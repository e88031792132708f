//! Any connection of the application, redirected by the firewall: its original destination says where it goes.

use std::rc::Rc;

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
    detect::{DETECT_TIMEOUT, Detected, Opening},
    http::serve::HEAD_TIMEOUT,
    net::{Stream, original::outbound_destination},
    worker::Worker,
};

/// Serves a redirected connection.
pub(crate) async fn serve(worker: &Rc<Worker>, stream: TcpStream, peer: PeerAddr, listener: ListenAddr) {
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
    let (declared, conditions) = match table.kind() {
        Kind::Service(routes) => (routes.protocol, routes.looks_into_requests()),
        Kind::Passthrough => {
            return tcp::pass_through(worker, Opening::new(stream), peer, &table, original.0).await;
        }
        Kind::Unknown(_) => (Protocol::Opaque, false),
    };
    let (protocol, opening) = match declared {
        Protocol::Opaque => (Protocol::Opaque, Opening::new(stream)),
        Protocol::Undeclared if !conditions => {
            let raced = tcp::undeclared(worker, Opening::new(stream), peer, &destination, &table).await;
            let Some(http) = raced else { return };
            http
        }
        Protocol::Undeclared | Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => {
            drop(table);
            let Some(found) = http_or_bytes(worker, stream, declared).await else { return };
            found
        }
    };
    match protocol {
        Protocol::Http1 | Protocol::Http2 => {
            let stream = Stream::Tcp(opening.into_stream());
            serve_http(worker, stream, peer, Some((destination, original.0)), protocol).await;
        }
        Protocol::Undeclared | Protocol::Grpc | Protocol::Opaque => {
            tcp::carry(worker, opening, peer, &destination).await;
        }
    }
}

/// What a connection speaks where HTTP is declared or routes look into requests. None: it ended.
async fn http_or_bytes(
    worker: &Worker,
    stream: TcpStream,
    declared: Protocol,
) -> Option<(Protocol, Opening)> {
    // Silence says nothing about the protocol, and a connection for requests is not made one for bytes by it.
    let within = if declared == Protocol::Undeclared { HEAD_TIMEOUT } else { DETECT_TIMEOUT };
    let (detected, opening) = worker.detect(Direction::Outbound, Opening::new(stream), within).await?;
    let protocol = match (detected, declared) {
        (Some(Detected::Http1), _) => Protocol::Http1,
        (Some(Detected::Http2), _) => Protocol::Http2,
        (None, Protocol::Http1) => Protocol::Http1,
        (None, Protocol::Http2 | Protocol::Grpc) => Protocol::Http2,
        (None, Protocol::Undeclared | Protocol::Opaque) => {
            worker.refused(Direction::Outbound, Reason::BadRequest);
            return None;
        }
        // Bytes that are not what was declared: routes about requests do not apply to them (and do not match).
        (Some(Detected::Other | Detected::MeshTls | Detected::ForeignTls), _) => Protocol::Opaque,
    };
    Some((protocol, opening))
}
