//! A controller whose every answer a test decides: real TLS 1.3 and gRPC, no logic of its own beyond the protocol.

mod discovery;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use mesh_core::{
    identity::SpiffeId,
    name::WorkloadRef,
    resource::{DestinationKey, ResourceName},
};
use mesh_proto::{
    convert::{Resource, ResourceBody, Wire as _},
    discovery::v1::{Resource as Message, discovery_server::DiscoveryServer},
    identity::v1::identity_server::IdentityServer,
    telemetry::v1::{ReportRequest, telemetry_server::TelemetryServer},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tonic::{codegen::Service as _, service::Routes};

pub use self::state::{Answered, Certified};
use self::state::{Scope, Services, State};
use crate::{
    ca::{Svid, TestCa, identity_of},
    serve::Served,
    tls::{ClientAuth, mesh_server},
};

/// A controller that says what it is told to say.
///
/// Resources are set by name; who subscribes gets them, with the endpoints that a destination names, as versioned
/// deltas. A destination that was never set is not answered, as if the controller were still looking.
pub struct FakeController {
    ca: Arc<TestCa>,
    svid: Svid,
    state: Arc<State>,
    address: SocketAddr,
    served: Option<Served>,
}

/// The identity in the client certificate of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer(pub(crate) Option<SpiffeId>);

impl FakeController {
    /// Starts at `address` (port 0: any) with the controller's certificate of `ca`. The trust bundle of `ca` is set.
    pub async fn start(address: SocketAddr, ca: Arc<TestCa>) -> Self {
        let svid = ca.controller();
        Self::start_as(address, ca, svid).await
    }

    /// As [`FakeController::start`], with another certificate: one that is bad, or another workload's.
    pub async fn start_as(address: SocketAddr, ca: Arc<TestCa>, svid: Svid) -> Self {
        let state = Arc::new(State::new(Arc::clone(&ca)));
        let served = serve(address, &ca, &svid, &state).await;
        let controller = Self { address: served.address(), ca, svid, state, served: Some(served) };
        controller.set(ResourceName::TrustBundle, ResourceBody::TrustBundle(controller.ca.bundle()));
        controller
    }

    /// Where it listens, or listened and will listen again.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The trust domain that it stands for.
    #[must_use]
    pub fn ca(&self) -> &Arc<TestCa> {
        &self.ca
    }

    /// Goes away: listener and all connections. What was set, and what was heard, stays.
    pub async fn stop(&mut self) {
        if let Some(served) = self.served.take() {
            served.stop().await;
        }
    }

    /// Comes back on the same port.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.served = Some(serve(self.address, &self.ca, &self.svid, &self.state).await);
    }

    /// Lets the holder of `token` be `id`.
    pub fn allow_token(&self, token: &str, id: SpiffeId) {
        self.state.tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), id);
    }

    /// Lifetime of certificates from now on, and when they are to be renewed (unless set: 1 h and 30 min).
    pub fn set_lifetime(&self, lifetime: Duration, renew_after: Duration) {
        *self.state.lifetime.lock().unwrap_or_else(PoisonError::into_inner) = (lifetime, renew_after);
    }

    /// Sets a resource for all who subscribe it.
    pub fn set(&self, name: ResourceName, body: ResourceBody) {
        self.set_message(None, Resource::new(name, body).to_wire());
    }

    /// Sets a resource for the proxy of one workload: this is how "workload" is set.
    pub fn set_for(&self, workload: &WorkloadRef, name: ResourceName, body: ResourceBody) {
        self.set_message(Some(workload), Resource::new(name, body).to_wire());
    }

    /// Sets the destination of a host.
    ///
    /// # Panics
    /// When `host` is none.
    pub fn set_host(&self, host: &str, destination: mesh_core::config::Destination) {
        let key = DestinationKey::Host(host.parse().expect("a host"));
        self.set(ResourceName::Destination(key), ResourceBody::Destination(destination));
    }

    /// Sets a message as it is, however broken: for all, or for the proxy of one workload.
    pub fn set_message(&self, workload: Option<&WorkloadRef>, message: Message) {
        let scope: Scope = (workload.cloned(), message.name.clone());
        self.state.resources.send_modify(|resources| {
            resources.insert(scope, message);
        });
    }

    /// Takes a resource away, for all and for each workload.
    pub fn remove(&self, name: &ResourceName) {
        let name = name.to_string();
        self.state.resources.send_modify(|resources| resources.retain(|(_, other), _| *other != name));
    }

    /// Every certificate that was asked for, granted or not.
    #[must_use]
    pub fn certified(&self) -> Vec<Certified> {
        self.state.certified.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every answer (ack) that came.
    #[must_use]
    pub fn answers(&self) -> Vec<Answered> {
        self.state.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the newest stream of a workload's proxy subscribes, or did until it ended; empty: there was none.
    #[must_use]
    pub fn subscriptions(&self, workload: &WorkloadRef) -> BTreeSet<String> {
        let all = self.state.subscriptions.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(workload).cloned().unwrap_or_default()
    }

    /// Every greeting (hello) that came: one for each stream.
    #[must_use]
    pub fn hellos(&self) -> Vec<mesh_proto::discovery::v1::Hello> {
        self.state.hellos.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every report that came.
    #[must_use]
    pub fn reports(&self) -> Vec<ReportRequest> {
        self.state.reports.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections accepted since the last start.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.served.as_ref().map_or(0, Served::accepted)
    }
}

async fn serve(address: SocketAddr, ca: &TestCa, svid: &Svid, state: &Arc<State>) -> Served {
    let acceptor = TlsAcceptor::from(mesh_server(ca, svid, ClientAuth::Optional, &[b"h2"]));
    let services = Services(Arc::clone(state));
    let routes = Routes::new(IdentityServer::new(services.clone()))
        .add_service(DiscoveryServer::new(services.clone()))
        .add_service(TelemetryServer::new(services))
        .prepare();
    Served::start(address, move |stream, _| connection(stream, acceptor.clone(), routes.clone())).await
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, routes: Routes) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = Peer(leaf.and_then(|leaf| identity_of(leaf)));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        routes.clone().call(request)
    });
    let server = auto::Builder::new(TokioExecutor::new()).http2_only();
    // A proxy that goes away is no fault of this server.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// Appends, up to a bound that no test needs.
fn remember<T>(list: &Mutex<Vec<T>>, item: T) {
    const MAX_REMEMBERED: usize = 100_000;
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    if list.len() < MAX_REMEMBERED {
        list.push(item);
    }
}
