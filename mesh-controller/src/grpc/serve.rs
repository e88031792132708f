//! Accepts connections at the control port and hands their calls to the services.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use mesh_proto::{
    discovery::v1::discovery_server::DiscoveryServer, identity::v1::identity_server::IdentityServer,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{Status, body::Body};
use tower::Service;

use super::{
    Shared,
    discovery::DiscoveryService,
    http2_server,
    identity::IdentityService,
    peer::{Peer, Rpc, admit, identity_of},
    telemetry::TelemetryService,
    tls::{Tls, TlsError},
};
use crate::{
    app::stopped,
    ca::unix,
    gate::{Gate, Place},
    metrics::Metrics,
};

/// What metrics call the port.
const PORT: &str = "control";
/// Most connections at a time.
const MAX_CONNECTIONS: usize = 8192;
/// Most of these without client certificate: they must not take the place of proxies.
const MAX_STRANGERS: usize = 256;
/// Most of these of one address in a cluster, where each pod has its own: others must come to their certificates, too.
const STRANGERS_OF_ONE: usize = 8;
/// Most connections of one address whose TLS does not stand yet.
const HANDSHAKES_OF_ONE: usize = 32;
/// Most calls at a time on one connection.
const MAX_STREAMS: u32 = 32;
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Time for a call that is no stream.
const UNARY: Duration = Duration::from_secs(10);
/// Life of a connection without client certificate: enough to bootstrap.
const ANONYMOUS: Duration = Duration::from_secs(60);
/// Time in which such a connection must ask for a certificate.
const FIRST_CALL: Duration = Duration::from_secs(10);
/// Time that connections get to end when the controller stops.
const DRAIN: Duration = Duration::from_secs(2);

type Answer = Response<Body>;

/// The control port.
pub(crate) struct Server {
    tls: Tls,
    shared: Arc<Shared>,
    identity: IdentityServer<IdentityService>,
    discovery: DiscoveryServer<DiscoveryService>,
    telemetry: TelemetryService,
    gates: Gates,
}

/// Who may have how many connections.
struct Gates {
    all: Arc<Gate>,
    /// Those whose TLS does not stand yet.
    handshakes: Arc<Gate>,
    /// Those without client certificate.
    strangers: Arc<Gate>,
}

impl Gates {
    /// `has_addresses`: each caller has an address of its own, as pods do. Many on one machine have the same.
    fn new(has_addresses: bool, metrics: &Metrics) -> Self {
        let gate = |reason, most: usize, most_of_one: usize| {
            Gate::new((PORT, reason), most, if has_addresses { most_of_one } else { most }, metrics)
        };
        Self {
            all: gate("too_many", MAX_CONNECTIONS, MAX_CONNECTIONS),
            handshakes: gate("too_many_handshakes", MAX_CONNECTIONS, HANDSHAKES_OF_ONE),
            strangers: gate("too_many_without_certificate", MAX_STRANGERS, STRANGERS_OF_ONE),
        }
    }
}

impl Server {
    /// Sets up TLS and services; `stop` turns true when the controller is to stop.
    pub(crate) fn new(shared: Arc<Shared>, stop: watch::Receiver<bool>) -> Result<Self, TlsError> {
        const IDENTITY_BYTES: usize = 64 * 1024;
        const STREAM_BYTES: usize = 4 * 1024 * 1024;
        let identity = IdentityService::new(Arc::clone(&shared));
        let discovery = DiscoveryService::new(Arc::clone(&shared), stop);
        let telemetry = TelemetryService::new(Arc::clone(&shared));
        Ok(Self {
            tls: Tls::new(Arc::clone(&shared.ca), &shared.trust_domain)?,
            gates: Gates::new(shared.proofs.are_of_pods(), &shared.metrics),
            shared,
            identity: IdentityServer::new(identity).max_decoding_message_size(IDENTITY_BYTES),
            discovery: DiscoveryServer::new(discovery).max_decoding_message_size(STREAM_BYTES),
            telemetry,
        })
    }

    /// Serves until `stop` turns true and connections have ended, or their time is over.
    pub(crate) async fn run(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let mut renewal = tokio::spawn({
            let server = Arc::clone(&self);
            async move { server.tls.keep_fresh().await }
        });
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => break,
                // Without it the certificate expires. That this ends is noticed.
                ended = &mut renewal => {
                    tracing::error!(?ended, "the controller's certificate is not renewed any more");
                    break;
                }
            };
            while connections.try_join_next().is_some() {}
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept at the control port");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(place) = self.gates.all.enter(address) else { continue };
            let Some(handshake) = self.gates.handshakes.enter(address) else { continue };
            let (server, stop) = (Arc::clone(&self), stop.clone());
            connections.spawn(async move {
                server.shared.metrics.connections.inc();
                server.connection(stream, (address, handshake), stop).await;
                server.shared.metrics.connections.dec();
                drop(place);
            });
        }
        renewal.abort();
        let _ = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    }

    async fn connection(
        self: &Arc<Self>,
        stream: TcpStream,
        (address, under_way): (SocketAddr, Place),
        mut stop: watch::Receiver<bool>,
    ) {
        let _ = stream.set_nodelay(true);
        let refused = |reason| self.shared.metrics.connection_refused(PORT, reason);
        let handshake = TlsAcceptor::from(self.tls.current()).accept(stream);
        let stream = match timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "TLS handshake failed");
                return refused("handshake");
            }
            Err(_) => return refused("handshake_timeout"),
        };
        drop(under_way);
        let peer = match self.peer(&stream, address) {
            Ok(peer) => peer,
            Err(reason) => return refused(reason),
        };
        let is_stranger = peer.identity.is_none();
        // Held for as long as the connection lives.
        let _stranger = match is_stranger.then(|| self.gates.strangers.enter(address)) {
            Some(None) => return,
            Some(Some(place)) => Some(place),
            None => None,
        };
        let asked = Arc::clone(&peer.asked);
        let life = if is_stranger { ANONYMOUS } else { Duration::from_secs(u64::from(u32::MAX)) };
        let server = Arc::clone(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, peer) = (Arc::clone(&server), peer.clone());
            async move { Ok::<_, Infallible>(server.answer(peer, request).await) }
        });
        let connection = http2_server(MAX_STREAMS).serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = silence(is_stranger, &asked) => return refused("silent"),
            () = tokio::time::sleep(life) => {
                connection.as_mut().graceful_shutdown();
                timeout(UNARY, connection).await.unwrap_or(Ok(()))
            }
            () = stopped(&mut stop) => {
                connection.as_mut().graceful_shutdown();
                timeout(DRAIN, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "connection ended");
        }
    }

    fn peer(&self, stream: &TlsStream<TcpStream>, address: SocketAddr) -> Result<Peer, &'static str> {
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(b"h2") {
            return Err("alpn");
        }
        let identity = match session.peer_certificates().and_then(|chain| chain.first()) {
            None => None,
            Some(leaf) => {
                let identity = identity_of(leaf, &self.shared.trust_domain).map_err(|_| "identity")?;
                Some(Arc::new(identity))
            }
        };
        Ok(Peer { address, identity, asked: Arc::default() })
    }

    async fn answer(&self, peer: Peer, mut request: Request<Incoming>) -> Answer {
        let rpc = Rpc::of(request.uri().path());
        let admitted = admit(rpc, peer.identity.as_deref(), unix(SystemTime::now()));
        let answer = match admitted {
            Err(status) => status.into_http(),
            Ok(()) => {
                request.extensions_mut().insert(peer);
                self.call(rpc, request).await
            }
        };
        if let Some(status) = answer.extensions().get::<Status>() {
            self.shared.metrics.refusal(rpc.as_str(), status.code());
            tracing::debug!(rpc = rpc.as_str(), code = ?status.code(), message = status.message(), "call refused");
        }
        answer
    }

    async fn call(&self, rpc: Rpc, request: Request<Incoming>) -> Answer {
        match rpc {
            Rpc::Certify => in_time(self.identity.clone().call(request)).await,
            Rpc::Report => in_time(self.telemetry.clone().serve(request)).await,
            Rpc::Watch => {
                let answer = self.discovery.clone().call(request).await;
                answer.unwrap_or_else(|never| match never {})
            }
            Rpc::Unknown => Status::unimplemented("the control port knows no such call").into_http(),
        }
    }
}

/// Ends when a connection without certificate has not asked for one in time.
async fn silence(is_stranger: bool, asked: &AtomicBool) {
    tokio::time::sleep(FIRST_CALL).await;
    if !is_stranger || asked.load(Relaxed) {
        std::future::pending::<()>().await;
    }
}

async fn in_time(answer: impl Future<Output = Result<Answer, Infallible>>) -> Answer {
    match timeout(UNARY, answer).await {
        Ok(answer) => answer.unwrap_or_else(|never| match never {}),
        Err(_) => Status::deadline_exceeded("the request did not arrive in time").into_http(),
    }
}
