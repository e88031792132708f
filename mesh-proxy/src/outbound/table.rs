//! A destination as this worker uses it: endpoints with their connections, edges with their counters.

use std::{cell::OnceCell, net::IpAddr, rc::Rc, sync::Arc};

use http::HeaderValue;
use mesh_core::{
    config::Destination,
    edge::{Direction, EdgeKey},
    identity::SpiffeId,
    matching::RequestParts,
    name::ServicePort,
    protocol::Protocol,
    reason::Reason,
    route::{Backend, ServiceRoutes},
};

use crate::{
    balance::{Affinity, Balancer, EndpointState, Picked},
    control::Resolved,
    telemetry::{EdgeStats, Shard},
    worker::Worker,
};

/// Where the calls of one destination go.
pub(crate) struct Table {
    resolved: Arc<Resolved>,
    shard: Arc<Shard>,
    own: Option<SpiffeId>,
    /// Backends by rule, then by their place in it.
    rules: Vec<Vec<Target>>,
    /// A rule looks at paths.
    paths: bool,
}

/// One backend of one rule.
struct Target {
    balancer: Balancer,
    /// Edges by endpoint, then by what the call speaks.
    edges: Vec<[OnceCell<Arc<EdgeStats>>; PROTOCOLS]>,
}

const PROTOCOLS: usize = 5;

/// A call that has somewhere to go.
pub(crate) struct Choice {
    /// The endpoint.
    pub endpoint: Rc<EndpointState>,
    /// What is counted.
    pub edge: Arc<EdgeStats>,
    /// A cookie for the response, so that the caller comes back to this endpoint.
    pub cookie: Option<HeaderValue>,
}

/// A call that has nowhere to go.
pub(crate) struct Nowhere {
    /// Why.
    pub reason: Reason,
    /// What is counted.
    pub edge: Arc<EdgeStats>,
}

/// What a destination is.
pub(crate) enum Kind<'a> {
    /// A Service of the mesh.
    Service(&'a ServiceRoutes),
    /// Not in the mesh.
    Passthrough,
    /// Nothing; says what was looked for.
    Unknown(&'a str),
}

impl Table {
    /// Prepares what the controller answered.
    pub(crate) fn new(worker: &Rc<Worker>, resolved: Arc<Resolved>) -> Self {
        let target = |backend: &Backend| {
            let endpoints = resolved.endpoints.get(&backend.service);
            let endpoints: Vec<_> =
                endpoints.iter().flat_map(|all| all.iter()).map(|e| worker.endpoints.get(e)).collect();
            let edges = endpoints.iter().map(|_| Default::default()).collect();
            Target { balancer: Balancer::new(worker, endpoints, backend.settings.as_ref()), edges }
        };
        let (rules, paths) = match &resolved.destination {
            Destination::Service(routes) => {
                let rules =
                    routes.rules.iter().map(|rule| rule.backends.iter().map(target).collect()).collect();
                (rules, routes.looks_at_paths())
            }
            Destination::Passthrough | Destination::Unknown(_) => (Vec::new(), false),
        };
        let own = worker.workload().map(|workload| workload.identity.clone());
        Self { shard: Arc::clone(&worker.shard), own, rules, paths, resolved }
    }

    /// True when it was made of this answer.
    pub(crate) fn is_of(&self, resolved: &Arc<Resolved>) -> bool {
        Arc::ptr_eq(&self.resolved, resolved)
    }

    /// False when it was made before this workload's own identity was known.
    pub(crate) fn is_named(&self) -> bool {
        self.own.is_some()
    }

    /// What the destination is.
    pub(crate) fn kind(&self) -> Kind<'_> {
        match &self.resolved.destination {
            Destination::Service(routes) => Kind::Service(routes),
            Destination::Passthrough => Kind::Passthrough,
            Destination::Unknown(text) => Kind::Unknown(text),
        }
    }

    /// True when paths must be normalised before routes are matched.
    pub(crate) fn looks_at_paths(&self) -> bool {
        self.paths
    }

    /// Chooses rule, backend and endpoint. `request` is None for opaque connections; `seen` is what the call speaks,
    /// which counts where nothing is declared. Where there is another endpoint than `avoid`, that is taken.
    ///
    /// # Errors
    /// [`Nowhere`].
    pub(crate) fn choose(
        &self,
        request: Option<&RequestParts<'_>>,
        seen: Protocol,
        source: Option<IpAddr>,
        avoid: Option<&Rc<EndpointState>>,
    ) -> Result<Choice, Box<Nowhere>> {
        let Kind::Service(routes) = self.kind() else {
            return Err(self.nowhere(Reason::UnknownDestination, None, None, seen));
        };
        let selection = routes
            .select(request, fastrand::u64(..))
            .map_err(|none| self.nowhere(none.reason, none.rule, None, seen))?;
        let target = self.rules.get(selection.rule).and_then(|rule| rule.get(selection.backend));
        let call = Affinity { headers: request.map(|request| request.headers), source };
        let picked = target.and_then(|target| Some((target, target.balancer.pick(call, avoid)?)));
        let chosen = picked.and_then(|(target, picked)| {
            let endpoint = target.balancer.endpoints().get(picked.at)?;
            Some((target, picked, endpoint))
        });
        let Some((target, Picked { at, cookie }, endpoint)) = chosen else {
            let (rule, backend) = (Some(selection.rule), Some(selection.backend));
            return Err(self.nowhere(Reason::NoHealthyEndpoint, rule, backend, seen));
        };
        let key = || self.key(Some(selection.rule), Some(selection.backend), Some(endpoint), seen);
        let edge = match target.edges.get(at).and_then(|all| all.get(seen as usize)) {
            Some(cell) => Arc::clone(cell.get_or_init(|| self.shard.edge(&key()))),
            None => self.shard.edge(&key()),
        };
        Ok(Choice { endpoint: Rc::clone(endpoint), edge, cookie })
    }

    /// Counters of calls that go to no endpoint of the mesh.
    pub(crate) fn edge(&self, seen: Protocol) -> Arc<EdgeStats> {
        self.shard.edge(&self.key(None, None, None, seen))
    }

    fn nowhere(
        &self,
        reason: Reason,
        rule: Option<usize>,
        backend: Option<usize>,
        seen: Protocol,
    ) -> Box<Nowhere> {
        Box::new(Nowhere { reason, edge: self.shard.edge(&self.key(rule, backend, None, seen)) })
    }

    fn key(
        &self,
        rule: Option<usize>,
        backend: Option<usize>,
        endpoint: Option<&Rc<EndpointState>>,
        seen: Protocol,
    ) -> EdgeKey {
        let routes = match self.kind() {
            Kind::Service(routes) => Some(routes),
            Kind::Passthrough | Kind::Unknown(_) => None,
        };
        let rule = rule.and_then(|at| routes?.rules.get(at));
        let backend: Option<&ServicePort> =
            backend.and_then(|at| rule?.backends.get(at)).map(|backend| &backend.service);
        let endpoint = endpoint.map(|state| &state.endpoint);
        let declared = routes.map_or(Protocol::Undeclared, |routes| routes.protocol);
        EdgeKey {
            direction: Direction::Outbound,
            source: self.own.clone(),
            destination: endpoint.and_then(|e| e.identity.clone()),
            service: routes.map(|routes| routes.service.clone()),
            backend: backend.cloned(),
            destination_workload: endpoint.map(|e| e.workload.clone()),
            rule: rule.map(|rule| rule.object.clone()),
            protocol: if declared == Protocol::Undeclared { seen } else { declared },
            secured: endpoint.is_some_and(|e| e.identity.is_some()),
        }
    }
}
