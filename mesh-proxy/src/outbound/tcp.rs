//! Bytes from the application, carried without being looked into.

use std::{future::Future, net::SocketAddr, rc::Rc, sync::Arc, time::Instant};

use bytes::Bytes;
use mesh_core::{
    addr::PeerAddr,
    edge::Direction,
    name::Host,
    protocol::{MeshAlpn, Protocol},
    reason::Reason,
    resilience::breaker::{Counted as InUse, Kind as Breaks},
    resource::DestinationKey,
    settings::Timeouts,
};
use tokio::net::TcpStream;

use super::{
    destinations::Destination,
    table::{Kind, Table},
};
use crate::{
    balance::Flight,
    detect::{Detected, Learned, Opening, Rules, race},
    net::{
        Stream, blame,
        copy::{Counts, bidirectional_after},
        dial::dial,
        overtime::overtime,
    },
    pool::Terms,
    telemetry::{EdgeStats, Outcome, access_log::Entry},
    worker::Worker,
};

/// Endpoints that are tried for one connection.
const ATTEMPTS: usize = 3;

/// Carries a connection to a declared upstream (explicit mode).
pub(crate) async fn declared(worker: &Rc<Worker>, stream: TcpStream, peer: PeerAddr, host: &Host) {
    let key = DestinationKey::Host(host.clone());
    match worker.destinations.get(worker, &key) {
        Ok(destination) => carry(worker, Opening::new(stream), peer, &destination).await,
        Err(reason) => worker.refused(Direction::Outbound, reason),
    }
}

/// Carries a connection to a destination.
pub(super) async fn carry(
    worker: &Rc<Worker>,
    mut opening: Opening,
    peer: PeerAddr,
    destination: &Destination,
) {
    destination.touch();
    let began = Instant::now();
    let table = match destination.table(worker).await {
        Ok(table) => table,
        Err(reason) => return refuse(worker, peer, reason),
    };
    let Some(server) = meet(worker, &mut opening, connect(worker, &table, peer)).await else { return };
    relay(worker, opening, server, peer, began).await;
}

/// Carries a connection to where it was going, outside the mesh.
pub(super) async fn pass_through(
    worker: &Rc<Worker>,
    mut opening: Opening,
    peer: PeerAddr,
    table: &Table,
    original: SocketAddr,
) {
    let began = Instant::now();
    let connect = async {
        let (edge, address) = (table.edge(Protocol::Opaque), original);
        match Box::pin(dial(original, None)).await {
            Ok(stream) => {
                let timeouts = Timeouts::default();
                let held = (None, None);
                Ok(Connected { stream, edge, address, timeouts, held })
            }
            Err(reason) => Err(Box::new((reason, edge, Some(address)))),
        }
    };
    let Some(server) = meet(worker, &mut opening, connect).await else { return };
    relay(worker, opening, server, peer, began).await;
}

/// Finds out what a connection speaks where nothing is declared, and carries it when that is not HTTP: then the
/// protocol and the connection come back.
pub(super) async fn undeclared(
    worker: &Rc<Worker>,
    mut opening: Opening,
    peer: PeerAddr,
    destination: &Destination,
    table: &Table,
) -> Option<(Protocol, Opening)> {
    let began = Instant::now();
    let rules = Rules::undeclared(destination.learned.get(), false);
    let raced = tokio::select! {
        raced = Box::pin(race(&mut opening, rules, connect(worker, table, peer))) => raced.ok()?,
        () = worker.too_late(Direction::Outbound) => return None,
    };
    if let Some(learned) = raced.learned {
        destination.learned.set(learned);
    }
    match raced.client {
        Some(Detected::Http1) => return Some((Protocol::Http1, opening)),
        Some(Detected::Http2) => return Some((Protocol::Http2, opening)),
        Some(Detected::Other | Detected::MeshTls | Detected::ForeignTls) | None => {}
    }
    let server = match raced.server {
        Some(server) => server,
        None => connect(worker, table, peer).await,
    };
    relay(worker, opening, (server, raced.said), peer, began).await;
    None
}

/// Counts a connection that goes nowhere.
pub(super) fn refuse(worker: &Worker, peer: PeerAddr, reason: Reason) {
    let edge = worker.bare_edge(Direction::Outbound, Protocol::Opaque);
    let began = Instant::now();
    Ended { worker, edge, peer, upstream: None, server_name: None, began }.because(reason);
}

/// Why there is no connection, what is counted, and where it was tried.
pub(super) type Refused = Box<(Reason, Arc<EdgeStats>, Option<SocketAddr>)>;

/// The server's side, and what it has said already.
type Server = (Result<Connected, Refused>, Bytes);

/// A connection to a server.
pub(super) struct Connected {
    /// The connection.
    pub stream: Stream,
    /// What is counted.
    pub edge: Arc<EdgeStats>,
    /// Where it leads.
    pub address: SocketAddr,
    /// How long it may stand and be silent.
    pub timeouts: Timeouts,
    /// What it has in use.
    pub held: Held,
}

/// What a connection has in use as long as it stands: the load that it puts on an endpoint, and one of the connections
/// that the Service may have.
pub(super) type Held = (Option<Flight>, Option<InUse>);

impl AsMut<Stream> for Connected {
    fn as_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }
}

/// Connects. When somebody wants to read of it, the client's first bytes are looked at meanwhile, which costs no time:
/// the name that TLS asks for stands in them. None: the client is gone.
async fn meet(
    worker: &Worker,
    opening: &mut Opening,
    connect: impl Future<Output = Result<Connected, Refused>>,
) -> Option<Server> {
    if !worker.access_log.enabled() || !opening.is_silent() {
        return Some((connect.await, Bytes::new()));
    }
    let rules = Rules::opaque(Learned::Unknown, false);
    let raced = Box::pin(race(opening, rules, connect)).await.ok()?;
    // Without a head start there always is an outcome.
    Some((raced.server?, raced.said))
}

/// Connects to an endpoint for bytes; to others, where one cannot be connected to.
pub(super) async fn connect(
    worker: &Rc<Worker>,
    table: &Table,
    peer: PeerAddr,
) -> Result<Connected, Refused> {
    if let Kind::Unknown(text) = table.kind() {
        tracing::info!(detail = text, "unknown destination of a connection for bytes");
    }
    let mut choice = table
        .choose(None, Protocol::Opaque, Some(peer.0.ip()), &[])
        .map_err(|none| Box::new((none.reason, none.edge, None)))?;
    let timeouts = match table.kind() {
        Kind::Service(routes) => routes.opaque_timeouts(),
        Kind::Passthrough | Kind::Unknown(_) => Timeouts::default(),
    };
    let mut tried = Vec::new();
    loop {
        let endpoint = Rc::clone(&choice.endpoint);
        let address = endpoint.upstream.address();
        let refused = |edge, reason| Box::new((reason, edge, Some(address)));
        let epoch = match endpoint.endpoint.identity {
            None => None,
            Some(_) => match worker.wait_for_tls().await {
                Ok(epoch) => Some(epoch),
                Err(reason) => return Err(refused(choice.edge, reason)),
            },
        };
        let terms = Terms {
            connect: timeouts.connect,
            circuit: choice.circuit.as_deref(),
            ..Terms::usual(epoch.as_deref())
        };
        // That it is full is no reason to fill others.
        let counted =
            terms.take(Breaks::Connections).map_err(|reason| refused(Arc::clone(&choice.edge), reason))?;
        let mut flight = Flight::start(&endpoint);
        match endpoint.upstream.connect(MeshAlpn::TcpTold, &terms).await {
            Ok(stream) => {
                flight.answered();
                let (edge, held) = (choice.edge, (Some(flight), counted));
                return Ok(Connected { stream, edge, address, timeouts, held });
            }
            Err(reason) => {
                flight.failed();
                drop((flight, counted));
                tried.push(endpoint);
                let source = Some(peer.0.ip());
                choice = match table.choose(None, Protocol::Opaque, source, &tried) {
                    Ok(other)
                        if tried.len() < ATTEMPTS
                            && !tried.iter().any(|one| Rc::ptr_eq(one, &other.endpoint)) =>
                    {
                        other
                    }
                    _ => return Err(refused(choice.edge, reason)),
                };
            }
        }
    }
}

/// Carries a connection to the server, or counts why there is none.
async fn relay(worker: &Worker, opening: Opening, (server, said): Server, peer: PeerAddr, began: Instant) {
    let server_name = if worker.access_log.enabled() { opening.server_name() } else { None };
    match server {
        Ok(Connected { stream, edge, address, timeouts, held }) => {
            edge.connection();
            let ended = Ended { worker, edge, peer, upstream: Some(address), server_name, began };
            let caller = Stream::Tcp(opening.into_stream());
            copy(caller, (stream, said), timeouts, ended).await;
            drop(held);
        }
        Err(refused) => {
            let (reason, edge, upstream) = *refused;
            Ended { worker, edge, peer, upstream, server_name, began }.because(reason);
        }
    }
}

async fn copy(
    mut caller: Stream,
    (mut upstream, said): (Stream, Bytes),
    timeouts: Timeouts,
    ended: Ended<'_>,
) {
    let counts = Counts::default();
    // Dropped half-way, at a drain's end for instance, it is counted all the same.
    let counted = Counted { counts: &counts, ended: Some(ended) };
    let reason = tokio::select! {
        outcome = bidirectional_after(&mut caller, &mut upstream, said, counted.counts) => {
            outcome.err().map(|error| blame(&error).unwrap_or(Reason::UpstreamReset))
        }
        reason = overtime(timeouts, counted.counts) => Some(reason),
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
    /// The name that the client's TLS asked for.
    server_name: Option<Box<str>>,
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
            retries: 0,
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
                server_name: self.server_name,
                outcome,
            });
        }
    }
}
