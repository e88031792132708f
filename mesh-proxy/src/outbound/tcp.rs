//! Bytes from the application, carried without being looked into.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use mesh_core::{
    addr::PeerAddr,
    edge::Direction,
    name::Host,
    protocol::{MeshAlpn, Protocol},
    reason::Reason,
    resource::DestinationKey,
};
use tokio::net::TcpStream;

use super::{
    destinations::Destination,
    table::{Choice, Kind, Table},
};
use crate::{
    balance::Flight,
    net::{
        Stream,
        copy::{Counts, bidirectional},
        dial::dial,
    },
    telemetry::{EdgeStats, Outcome, access_log::Entry},
    tls::Credentials,
    worker::Worker,
};

/// Endpoints that are tried for one connection.
const ATTEMPTS: usize = 3;

/// Carries a connection to a declared upstream (explicit mode).
pub(crate) async fn declared(worker: &Rc<Worker>, stream: TcpStream, peer: PeerAddr, host: &Host) {
    let key = DestinationKey::Host(host.clone());
    match worker.destinations.get(worker, &key) {
        Ok(destination) => carry(worker, Stream::tcp(stream), peer, &destination).await,
        Err(reason) => worker.refused(Direction::Outbound, reason),
    }
}

/// Carries a connection to a destination.
pub(super) async fn carry(worker: &Rc<Worker>, stream: Stream, peer: PeerAddr, destination: &Destination) {
    destination.touch();
    let began = Instant::now();
    let table = match destination.table(worker).await {
        Ok(table) => table,
        Err(reason) => return refuse(worker, peer, reason),
    };
    match connect(worker, &table, peer).await {
        Ok(Connected { stream: upstream, credentials, choice, mut flight }) => {
            choice.edge.connection();
            flight.answered();
            let upstream_address = Some(choice.endpoint.upstream.address());
            let ended = Ended { worker, edge: choice.edge, peer, upstream: upstream_address, began };
            copy(stream, upstream, credentials, ended).await;
        }
        Err(refused) => {
            let (reason, edge, upstream) = *refused;
            Ended { worker, edge, peer, upstream, began }.because(reason);
        }
    }
}

/// Counts a connection that goes nowhere.
pub(super) fn refuse(worker: &Worker, peer: PeerAddr, reason: Reason) {
    let edge = worker.bare_edge(Direction::Outbound, Protocol::Opaque);
    Ended { worker, edge, peer, upstream: None, began: Instant::now() }.because(reason);
}

/// Carries a connection to where it was going, outside the mesh.
pub(super) async fn pass_through(
    worker: &Rc<Worker>,
    stream: Stream,
    peer: PeerAddr,
    table: &Table,
    original: SocketAddr,
) {
    let began = Instant::now();
    let edge = table.edge(Protocol::Opaque);
    let ended = Ended { worker, edge, peer, upstream: Some(original), began };
    match Box::pin(dial(original, None)).await {
        Ok(upstream) => {
            ended.edge.connection();
            copy(stream, upstream, None, ended).await;
        }
        Err(reason) => ended.because(reason),
    }
}

type Refused = Box<(Reason, Arc<EdgeStats>, Option<SocketAddr>)>;

/// A connection to an endpoint.
struct Connected {
    stream: Stream,
    /// What the endpoint authenticated with.
    credentials: Option<Credentials>,
    choice: Choice,
    flight: Flight,
}

async fn connect(worker: &Rc<Worker>, table: &Table, peer: PeerAddr) -> Result<Connected, Refused> {
    if let Kind::Unknown(text) = table.kind() {
        tracing::info!(detail = text, "unknown destination of a declared upstream");
    }
    let mut choice = table
        .choose(None, Protocol::Opaque, Some(peer.0.ip()), None)
        .map_err(|none| Box::new((none.reason, none.edge, None)))?;
    let mut attempt = 1;
    loop {
        let endpoint = Rc::clone(&choice.endpoint);
        let refused = |edge, reason| Box::new((reason, edge, Some(endpoint.upstream.address())));
        let epoch = match endpoint.endpoint.identity {
            None => None,
            Some(_) => match worker.wait_for_tls().await {
                Ok(epoch) => Some(epoch),
                Err(reason) => return Err(refused(choice.edge, reason)),
            },
        };
        let mut flight = Flight::start(&endpoint);
        match endpoint.upstream.connect(MeshAlpn::Tcp, epoch.as_deref()).await {
            Ok(stream) => {
                let credentials = epoch.and_then(|epoch| stream.callee(epoch.roots_hash));
                return Ok(Connected { stream, credentials, choice, flight });
            }
            Err(reason) => {
                flight.failed();
                drop(flight);
                attempt += 1;
                choice = match table.choose(None, Protocol::Opaque, Some(peer.0.ip()), Some(&endpoint)) {
                    Ok(other) if attempt <= ATTEMPTS && !Rc::ptr_eq(&other.endpoint, &endpoint) => other,
                    _ => return Err(refused(choice.edge, reason)),
                };
            }
        }
    }
}

async fn copy(mut caller: Stream, mut upstream: Stream, credentials: Option<Credentials>, ended: Ended<'_>) {
    let counts = Counts::default();
    let overdue = Box::pin(ended.worker.overdue(credentials));
    // Dropped half-way, at a drain's end for instance, it is counted all the same.
    let counted = Counted { counts: &counts, ended: Some(ended) };
    let reason = tokio::select! {
        outcome = bidirectional(&mut caller, &mut upstream, counted.counts) => {
            outcome.is_err().then_some(Reason::UpstreamReset)
        }
        reason = overdue => Some(reason),
    };
    counted.finish(reason);
}

struct Counted<'a> {
    counts: &'a Counts,
    ended: Option<Ended<'a>>,
}

impl Counted<'_> {
    fn finish(mut self, reason: Option<Reason>) {
        if let Some(ended) = self.ended.take() {
            ended.write(self.counts, reason, reason.is_some());
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended.write(self.counts, Some(Reason::ShuttingDown), true);
        }
    }
}

/// A connection that ends: how it is counted.
struct Ended<'a> {
    worker: &'a Worker,
    edge: Arc<EdgeStats>,
    peer: PeerAddr,
    upstream: Option<SocketAddr>,
    began: Instant,
}

impl Ended<'_> {
    fn because(self, reason: Reason) {
        tracing::debug!(reason = reason.code(), "TCP connection not carried");
        self.write(&Counts::default(), Some(reason), true);
    }

    fn write(self, counts: &Counts, reason: Option<Reason>, failed: bool) {
        let outcome = Outcome {
            status: None,
            failed,
            reason,
            micros: self.began.elapsed().as_micros() as u64,
            request_bytes: counts.forth.get(),
            response_bytes: counts.back.get(),
        };
        self.edge.finished(&outcome);
        if self.worker.access_log.enabled() {
            self.worker.access_log.write(Entry {
                direction: Direction::Outbound,
                edge: Some(self.edge),
                peer: Some(self.peer.0),
                upstream: self.upstream,
                method: None,
                authority: None,
                path: None,
                outcome,
            });
        }
    }
}
