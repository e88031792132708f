//! Connections to upstreams, kept and shared by the requests of one worker.
//!
//! *Invariant:* a connection is used for what it was verified for: the pool belongs to one address and one expected
//! identity, and a connection that was made under an older certificate or older roots takes no new request.

mod h1;
mod h2;
mod trust;

use std::{
    cell::RefCell,
    mem,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response};
use mesh_core::{
    identity::SpiffeId,
    protocol::MeshAlpn,
    reason::Reason,
    resilience::breaker::{Counted, Kind},
};
use rustls::ClientConfig;

pub(crate) use self::h1::Received;
use crate::{
    balance::Flight,
    http::{
        authority::copy_head,
        body::{Incoming, RequestBody},
    },
    limits::Circuit,
    net::{
        Stream,
        dial::{CONNECT_TIMEOUT, dial_within},
    },
    telemetry::Refusals,
    tls::TlsEpoch,
};

/// How often all connections are looked through.
pub(crate) const SWEEP: Duration = Duration::from_secs(1);

/// How HTTP travels on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
    /// HTTP/1.1 requests within HTTP/2; only between proxies.
    H1OverH2,
}

impl Wire {
    fn alpn(self) -> MeshAlpn {
        match self {
            Self::H1 => MeshAlpn::H1,
            Self::H2 => MeshAlpn::H2,
            Self::H1OverH2 => MeshAlpn::H1OverH2,
        }
    }
}

/// All connections to one address with one expected identity.
pub(crate) struct Upstream {
    address: SocketAddr,
    /// None: plaintext. Never changes, so a peer with an identity is never called in plaintext.
    identity: Option<SpiffeId>,
    /// How long an HTTP/1 connection is kept idle: shorter than servers do.
    keep_idle: Duration,
    /// Where is counted what of its connections is refused.
    refusals: Refusals,
    trust: trust::Trust,
    h1: h1::Idle,
    h2: h2::Shared,
    h1_over_h2: h2::Shared,
    /// TLS configurations of the newest epoch that was used, by ALPN.
    configs: RefCell<Configs>,
}

#[derive(Default)]
struct Configs {
    generation: u64,
    by_alpn: Vec<(MeshAlpn, Arc<ClientConfig>)>,
}

/// On which terms a request is sent.
pub(crate) struct Terms<'a> {
    /// The certificate to use; None: plaintext.
    pub epoch: Option<&'a TlsEpoch>,
    /// How long connecting may take; None: as long as usual.
    pub connect: Option<Duration>,
    /// What may be in use towards the Service; None: it is not limited.
    pub circuit: Option<&'a Circuit>,
    /// The request's head is wanted after it was sent, to be sent again.
    pub keep_head: bool,
}

impl<'a> Terms<'a> {
    /// With a certificate and nothing else that is not as usual.
    pub(crate) fn usual(epoch: Option<&'a TlsEpoch>) -> Self {
        Self { epoch, connect: None, circuit: None, keep_head: false }
    }

    /// Takes a request's head to send it: HTTP/2 wants it for itself, HTTP/1 only writes it.
    fn take_head(&self, request: &mut Request<RequestBody>) -> Request<()> {
        if self.keep_head {
            return copy_head(request);
        }
        let body = mem::replace(request.body_mut(), RequestBody::none());
        mem::replace(request, Request::new(body)).map(drop)
    }

    /// Counts a connection, or a request that waits for one.
    ///
    /// # Errors
    /// [`Reason::CircuitOpen`].
    pub(crate) fn take(&self, kind: Kind) -> Result<Option<Counted>, Reason> {
        self.circuit.map_or(Ok(None), |circuit| circuit.take(kind))
    }
}

/// Why a request was not answered.
pub(crate) struct Failure {
    /// What to tell the caller.
    pub reason: Reason,
    /// Nothing of the request was sent, and it is whole: it may go elsewhere.
    pub unsent: bool,
    /// The peer did not look at the request: it said so (RFC 9113 sections 6.8 and 8.7), or the connection ended before
    /// anything of it was sent.
    pub refused: bool,
}

impl Failure {
    fn unsent(reason: Reason) -> Self {
        Self { reason, unsent: true, refused: false }
    }

    fn broken(reason: Reason) -> Self {
        Self { reason, unsent: false, refused: false }
    }
}

/// What a response in progress takes of an upstream.
pub(crate) struct Lease {
    _stream: Option<h2::Lease>,
    /// The load that it puts on the endpoint.
    pub flight: Option<Flight>,
    /// True when the connection was made for this request.
    pub fresh: bool,
}

impl Upstream {
    /// A pool without connections.
    pub(crate) fn new(
        address: SocketAddr,
        identity: Option<SpiffeId>,
        keep_idle: Duration,
        refusals: Refusals,
    ) -> Rc<Self> {
        Rc::new(Self {
            address,
            identity,
            keep_idle,
            refusals,
            trust: trust::Trust::default(),
            h1: h1::Idle::default(),
            h2: h2::Shared::default(),
            h1_over_h2: h2::Shared::default(),
            configs: RefCell::default(),
        })
    }

    /// Where it connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request on a connection that speaks `wire`, and waits for the response's head. Its body is taken unless it
    /// is [unsent](Failure::unsent); its head may be, unless it is to be [kept](Terms::keep_head).
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn send(
        self: &Rc<Self>,
        wire: Wire,
        terms: &Terms<'_>,
        request: &mut Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let sent = match wire {
            Wire::H1 => h1::send(self, terms, request).await,
            Wire::H2 => h2::send(self, &self.h2, wire, terms, request).await,
            Wire::H1OverH2 => h2::send(self, &self.h1_over_h2, wire, terms, request).await,
        };
        sent.map_err(|failure| Failure { reason: self.trust.cause(failure.reason), ..failure })
    }

    /// Opens a connection for bytes, which is not shared.
    ///
    /// # Errors
    /// The reason to tell.
    pub(crate) async fn connect(&self, alpn: MeshAlpn, terms: &Terms<'_>) -> Result<Stream, Reason> {
        let tls = match (&self.identity, terms.epoch) {
            (None, _) => None,
            (Some(identity), Some(epoch)) => Some(self.config(identity, alpn, epoch)),
            (Some(_), None) => return Err(Reason::DiscoveryUnavailable),
        };
        // In a box: it is large, rare, and would otherwise be part of every request's future.
        let within = terms.connect.unwrap_or(CONNECT_TIMEOUT);
        let stream = Box::pin(dial_within(self.address, tls, within)).await?;
        if let Some(epoch) = terms.epoch {
            self.trust.hold(&stream, epoch)?;
        }
        Ok(stream)
    }

    fn config(&self, identity: &SpiffeId, alpn: MeshAlpn, epoch: &TlsEpoch) -> Arc<ClientConfig> {
        let mut configs = self.configs.borrow_mut();
        if configs.generation != epoch.generation {
            configs.generation = epoch.generation;
            configs.by_alpn.clear();
        }
        if let Some((_, config)) = configs.by_alpn.iter().find(|(name, _)| *name == alpn) {
            return Arc::clone(config);
        }
        let config = epoch.client_config(identity, alpn);
        configs.by_alpn.push((alpn, Arc::clone(&config)));
        config
    }

    /// Says under which certificates, of this side and of the peer, connections may be used; 0 for plaintext.
    fn generation(&self, epoch: Option<&TlsEpoch>) -> u64 {
        match (&self.identity, epoch) {
            (Some(_), Some(epoch)) => epoch.generation.wrapping_add(self.trust.withdrawn.get() << 32),
            _ => 0,
        }
    }

    /// Closes what was idle for too long, or was made under another certificate than the newest. What the peer was no
    /// longer trusted with for a while is cut. Returns how many connections it is from now on not trusted with.
    pub(crate) fn sweep(&self, now: Instant, epoch: Option<&TlsEpoch>) -> usize {
        self.trust.look(now, epoch);
        let generation = self.generation(epoch);
        self.h1.sweep(now, SWEEP, generation);
        self.h2.sweep(generation);
        self.h1_over_h2.sweep(generation);
        self.trust.ending(now)
    }
}
