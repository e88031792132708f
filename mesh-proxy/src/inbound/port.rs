//! One connection to one port of the workload: who calls, where it goes, and how its calls are decided and counted.

use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc};

use http::HeaderValue;
use mesh_core::{
    config::WorkloadConfig,
    edge::{Direction, EdgeKey},
    identity::SpiffeId,
    matching::RequestParts,
    name::{ObjectRef, ServicePort},
    policy::{self, Call},
    protocol::{Protocol, ProxyProtocol},
    reason::Reason,
};
use tokio::io::AsyncWriteExt as _;

use super::proxy_header::{self, Ends};
use crate::{
    net::{Stream, dial::dial},
    telemetry::EdgeStats,
    worker::Worker,
};

/// Edges that one connection keeps at hand.
const MAX_EDGES: usize = 16;

/// A call to one port.
pub(super) struct Callee {
    /// The worker.
    pub worker: Rc<Worker>,
    /// The caller's address, and the one that it called.
    pub ends: Ends,
    /// The caller's verified identity; None: it has none.
    pub caller: Option<SpiffeId>,
    /// The caller's identity, for the application.
    pub client_id: Option<HeaderValue>,
    /// The port that was called.
    pub port: u16,
    /// What the application speaks there.
    pub declared: Protocol,
    /// The Service that leads here, for counting.
    pub service: Option<ServicePort>,
    /// Where the application takes it.
    pub app: SocketAddr,
    /// Headers of the PROXY protocol on this port.
    pub proxy: ProxyProtocol,
    edges: RefCell<Edges>,
}

/// Edges by the object that decided, valid for one configuration.
#[derive(Default)]
struct Edges {
    config: Option<Arc<WorkloadConfig>>,
    known: Vec<(Option<ObjectRef>, Protocol, Arc<EdgeStats>)>,
}

/// What policy says about a call, and where it is counted.
pub(super) struct Verdict {
    /// Ok: let in.
    pub verdict: Result<(), Reason>,
    /// What is counted.
    pub edge: Arc<EdgeStats>,
}

impl Callee {
    /// A call by nobody in particular to a port of the workload, that the application takes at `app`.
    pub(super) fn new(worker: &Rc<Worker>, ends: Ends, to: Entrance, app: SocketAddr) -> Self {
        Self {
            worker: Rc::clone(worker),
            ends,
            caller: None,
            client_id: None,
            port: to.port,
            declared: to.protocol,
            service: to.service,
            app,
            proxy: to.proxy,
            edges: RefCell::default(),
        }
    }

    /// The caller has proved to be `caller`.
    pub(super) fn name(&mut self, caller: SpiffeId) {
        self.client_id = HeaderValue::from_str(caller.as_str()).ok();
        self.caller = Some(caller);
        self.edges = RefCell::default();
    }

    /// A load balancer says who really calls.
    pub(super) fn introduced(&mut self, ends: Ends) {
        self.ends = ends;
    }

    /// Connects to the application for bytes; tells it who calls, where it wants to know.
    ///
    /// # Errors
    /// [`Reason::AppUnavailable`].
    pub(super) async fn connect(&self) -> Result<Stream, Reason> {
        let dialled = Box::pin(dial(self.app, None)).await;
        let mut app = dialled.map_err(|_| Reason::AppUnavailable)?;
        if let Some(version) = self.proxy.send {
            let header = proxy_header::write(version, self.ends, self.caller.as_ref().map(SpiffeId::as_str));
            app.write_all(&header).await.map_err(|_| Reason::AppUnavailable)?;
        }
        Ok(app)
    }

    /// May the application be connected to before it is known who calls and what it speaks? Only as far as policy
    /// lets bytes of anybody in, and no rule wants to see requests.
    pub(super) fn may_speak_first(&self) -> Result<(), Reason> {
        let config = self.worker.workload().ok_or(Reason::DiscoveryUnavailable)?;
        let call = Call { source: None, port: self.port, request: None };
        policy::decide(&config.policy, &call).verdict
    }

    /// True when requests are to be looked for before bytes are taken for something else.
    pub(super) fn looks_into_requests(&self) -> bool {
        match self.declared {
            Protocol::Opaque => false,
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => true,
            Protocol::Undeclared => {
                self.worker.workload().is_some_and(|config| config.policy.looks_into_requests(self.port))
            }
        }
    }

    /// Decides a call by the policy of this moment. `request` is None for an opaque connection.
    pub(super) fn decide(&self, request: Option<&RequestParts<'_>>, seen: Protocol) -> Verdict {
        let Some(config) = self.worker.workload() else {
            // Listeners stand only once there is a configuration; without one nothing is let in.
            let edge = self.worker.bare_edge(Direction::Inbound, seen);
            return Verdict { verdict: Err(Reason::DiscoveryUnavailable), edge };
        };
        self.decide_by(&config, request, seen)
    }

    /// Decides a call by the policy of `config`.
    pub(super) fn decide_by(
        &self,
        config: &Arc<WorkloadConfig>,
        request: Option<&RequestParts<'_>>,
        seen: Protocol,
    ) -> Verdict {
        let call = Call { source: self.caller.as_ref(), port: self.port, request };
        let decision = policy::decide(&config.policy, &call);
        let edge = self.edge(config, Some(decision.by), seen);
        Verdict { verdict: decision.verdict, edge }
    }

    /// The edge of calls on which no object decided.
    pub(super) fn undecided(&self, seen: Protocol) -> Arc<EdgeStats> {
        match self.worker.workload() {
            Some(config) => self.edge(&config, None, seen),
            None => self.worker.bare_edge(Direction::Inbound, seen),
        }
    }

    fn edge(&self, config: &Arc<WorkloadConfig>, by: Option<&ObjectRef>, seen: Protocol) -> Arc<EdgeStats> {
        let mut edges = self.edges.borrow_mut();
        if !edges.config.as_ref().is_some_and(|of| Arc::ptr_eq(of, config)) {
            edges.config = Some(Arc::clone(config));
            edges.known.clear();
        }
        let known =
            edges.known.iter().find(|(object, protocol, _)| object.as_ref() == by && *protocol == seen);
        if let Some((_, _, edge)) = known {
            return Arc::clone(edge);
        }
        let edge = self.worker.shard.edge(&EdgeKey {
            direction: Direction::Inbound,
            source: self.caller.clone(),
            destination: Some(config.identity.clone()),
            service: self.service.clone(),
            backend: None,
            destination_workload: Some(config.workload.clone()),
            rule: by.cloned(),
            protocol: if self.declared == Protocol::Undeclared { seen } else { self.declared },
            secured: self.caller.is_some(),
        });
        if edges.known.len() < MAX_EDGES {
            // Most connections have one, and room for four would be what they get.
            edges.known.reserve_exact(1);
            edges.known.push((by.cloned(), seen, Arc::clone(&edge)));
        }
        edge
    }
}

/// A port of the workload, as the newest configuration has it.
pub(super) struct Entrance {
    /// Its number.
    pub port: u16,
    /// What the application speaks there.
    pub protocol: Protocol,
    /// The first Service that leads there.
    pub service: Option<ServicePort>,
    /// Where the application listens, when that is declared.
    pub app: Option<SocketAddr>,
    /// Headers of the PROXY protocol.
    pub proxy: ProxyProtocol,
}

impl Entrance {
    /// Looks a port up; one that is not declared is let in as that.
    pub(super) fn of(worker: &Worker, port: u16) -> Self {
        let config = worker.workload();
        let declared = config.as_ref().and_then(|config| config.inbound.iter().find(|p| p.port == port));
        Self {
            port,
            protocol: declared.map_or(Protocol::Undeclared, |p| p.protocol),
            service: declared.and_then(|p| p.services.first().cloned()),
            app: declared.and_then(|p| p.app_address).map(|address| address.0),
            proxy: declared.map(|p| p.proxy_protocol).unwrap_or_default(),
        }
    }
}
