//! A destination as this worker uses it: endpoints with their connections, edges with their counters.

use std::{cell::OnceCell, net::IpAddr, rc::Rc, sync::Arc, time::Instant};

use http::HeaderValue;
use mesh_core::{
    config::Destination,
    edge::{Direction, EdgeKey},
    filter::{Filter, Mirror},
    identity::SpiffeId,
    matching::RequestParts,
    name::ServicePort,
    protocol::Protocol,
    reason::Reason,
    route::{Backend, RouteRule, ServiceRoutes},
    settings::BackendSettings,
};

use super::plan::{Plan, ServiceState};
use crate::{
    balance::{Affinity, Balancer, EndpointState, Picked},
    control::Resolved,
    limits::Circuit,
    telemetry::{EdgeStats, Shard},
    worker::Worker,
};

/// Where the calls of one destination go.
pub(crate) struct Table {
    resolved: Arc<Resolved>,
    shard: Arc<Shard>,
    own: Option<SpiffeId>,
    rules: Vec<Rule>,
    /// What takes copies of requests.
    mirrors: Vec<(ServicePort, Target)>,
    /// What is counted for the Service; None: it is none.
    service: Option<Rc<ServiceState>>,
    /// A rule looks at paths.
    paths: bool,
}

/// One rule.
struct Rule {
    /// Its backends, by their place in it.
    targets: Vec<Target>,
    plan: Option<Box<Plan>>,
}

/// One backend of one rule.
struct Target {
    /// What may be in use towards it; None: it is not limited.
    circuit: Option<Rc<Circuit>>,
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
    /// The hash of the call's key, where the choice followed from one.
    pub hash: Option<u64>,
    /// Which backend of the rule it is, by index.
    pub backend: usize,
    /// What may be in use towards the backend; None: it is not limited.
    pub circuit: Option<Rc<Circuit>>,
    /// The backend has no other endpoint.
    pub alone: bool,
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
        let target = |service: &ServicePort, settings: Option<&Arc<BackendSettings>>| {
            let endpoints = resolved.endpoints.get(service);
            let endpoints: Vec<_> =
                endpoints.iter().flat_map(|all| all.iter()).map(|e| worker.endpoints.get(e)).collect();
            let edges = endpoints.iter().map(|_| Default::default()).collect();
            let limits = settings.map(|settings| settings.breaker).unwrap_or_default();
            let circuit = worker.shared.circuit(service, limits).map(Rc::new);
            Target { circuit, balancer: Balancer::new(worker, endpoints, settings), edges }
        };
        let backend = |backend: &Backend| target(&backend.service, backend.settings.as_ref());
        let mut mirrors: Vec<(ServicePort, Target)> = Vec::new();
        let (rules, paths, service) = match &resolved.destination {
            Destination::Service(routes) => {
                let rule = |rule: &RouteRule| Rule {
                    targets: rule.backends.iter().map(backend).collect(),
                    plan: Plan::of(routes, rule).map(Box::new),
                };
                for filter in routes.rules.iter().flat_map(RouteRule::all_filters) {
                    if let Filter::Mirror(Mirror { service, settings, .. }) = filter
                        && !mirrors.iter().any(|(known, _)| known == service)
                    {
                        mirrors.push((service.clone(), target(service, settings.as_ref())));
                    }
                }
                let service = worker.services.get(&routes.service);
                (routes.rules.iter().map(rule).collect(), routes.looks_at_paths(), Some(service))
            }
            Destination::Passthrough | Destination::Unknown(_) => (Vec::new(), false, None),
        };
        let own = worker.workload().map(|workload| workload.identity.clone());
        Self { shard: Arc::clone(&worker.shard), own, rules, mirrors, service, paths, resolved }
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
    /// which counts where nothing is declared. Where there is another endpoint than those of `avoid`, that is taken.
    ///
    /// # Errors
    /// [`Nowhere`].
    pub(crate) fn choose(
        &self,
        request: Option<&RequestParts<'_>>,
        seen: Protocol,
        source: Option<IpAddr>,
        avoid: &[Rc<EndpointState>],
    ) -> Result<Choice, Box<Nowhere>> {
        let rule = self.rule(request, seen)?;
        let call = Affinity { headers: request.map(|request| request.headers), source, hash: None };
        self.pick(rule, call, seen, avoid)
    }

    /// Chooses the rule that a call follows.
    ///
    /// # Errors
    /// [`Nowhere`].
    pub(crate) fn rule(
        &self,
        request: Option<&RequestParts<'_>>,
        seen: Protocol,
    ) -> Result<usize, Box<Nowhere>> {
        let Kind::Service(routes) = self.kind() else {
            return Err(self.nowhere(Reason::UnknownDestination, None, None, seen));
        };
        let none = || self.nowhere(Reason::RouteNotMatched, None, None, seen);
        routes.matching_rule(request).ok_or_else(none)
    }

    /// Chooses backend and endpoint of a rule; none of `avoid`, where there is another endpoint.
    ///
    /// # Errors
    /// [`Nowhere`].
    pub(crate) fn pick(
        &self,
        rule: usize,
        call: Affinity<'_>,
        seen: Protocol,
        avoid: &[Rc<EndpointState>],
    ) -> Result<Choice, Box<Nowhere>> {
        let Kind::Service(routes) = self.kind() else {
            return Err(self.nowhere(Reason::UnknownDestination, None, None, seen));
        };
        let selection = routes
            .select_backend(rule, fastrand::u64(..))
            .map_err(|none| self.nowhere(none.reason, none.rule, None, seen))?;
        let target = self.target(rule, selection.backend);
        let picked = target.and_then(|target| target.balancer.pick(call, avoid));
        picked
            .and_then(|picked| self.choice(rule, selection.backend, picked, seen))
            .ok_or_else(|| self.nowhere(Reason::NoHealthyEndpoint, Some(rule), Some(selection.backend), seen))
    }

    /// Chooses another endpoint of the same backend, none of `tried`, the failed one included. Where there is none, with
    /// `same` one of them once more. What the call is chosen by stays what it was.
    pub(crate) fn another(
        &self,
        rule: usize,
        failed: &Choice,
        tried: &[Rc<EndpointState>],
        source: IpAddr,
        seen: Protocol,
        same: bool,
    ) -> Option<Choice> {
        let call = Affinity { headers: None, source: Some(source), hash: failed.hash };
        let picked = self.target(rule, failed.backend)?.balancer.pick(call, tried)?;
        let mut choice = self.choice(rule, failed.backend, picked, seen)?;
        let new = !tried.iter().any(|one| Rc::ptr_eq(one, &choice.endpoint));
        // The caller's key as it was made at first.
        choice.cookie.clone_from(&failed.cookie);
        (new || same).then_some(choice)
    }

    fn target(&self, rule: usize, backend: usize) -> Option<&Target> {
        self.rules.get(rule)?.targets.get(backend)
    }

    fn choice(&self, rule: usize, backend: usize, picked: Picked, seen: Protocol) -> Option<Choice> {
        let target = self.target(rule, backend)?;
        let Picked { at, cookie, hash } = picked;
        let endpoints = target.balancer.endpoints();
        let endpoint = endpoints.get(at)?;
        let key = || self.key(Some(rule), Some(backend), Some(endpoint), seen);
        let edge = match target.edges.get(at).and_then(|all| all.get(seen as usize)) {
            Some(cell) => Arc::clone(cell.get_or_init(|| self.shard.edge(&key()))),
            None => self.shard.edge(&key()),
        };
        let (endpoint, circuit, alone) = (Rc::clone(endpoint), target.circuit.clone(), endpoints.len() < 2);
        Some(Choice { endpoint, edge, cookie, hash, backend, circuit, alone })
    }

    /// An endpoint that takes copies of requests now, and what may be in use towards its Service. None: there is none.
    pub(crate) fn mirror(
        &self,
        service: &ServicePort,
        call: Affinity<'_>,
    ) -> Option<(Rc<EndpointState>, Option<Rc<Circuit>>)> {
        let (_, target) = self.mirrors.iter().find(|(name, _)| name == service)?;
        let at = target.balancer.pick(call, &[])?.at;
        Some((Rc::clone(target.balancer.endpoints().get(at)?), target.circuit.clone()))
    }

    /// What is configured for the calls of a rule; None: nothing.
    pub(crate) fn plan(&self, rule: usize) -> Option<&Plan> {
        self.rules.get(rule)?.plan.as_deref()
    }

    /// A rule as the controller describes it.
    pub(crate) fn route(&self, rule: usize) -> Option<&RouteRule> {
        match self.kind() {
            Kind::Service(routes) => routes.rules.get(rule),
            Kind::Passthrough | Kind::Unknown(_) => None,
        }
    }

    /// Counts a request that began at `now`, for the retry budget.
    pub(crate) fn count(&self, now: Instant) {
        if let (Kind::Service(routes), Some(service)) = (self.kind(), &self.service) {
            service.request(&routes.calls.budget, now);
        }
    }

    /// Takes a retry out of the budget of the Service, if there is one left.
    pub(crate) fn may_retry(&self, worker: &Worker) -> bool {
        match (self.kind(), &self.service) {
            (Kind::Service(routes), Some(service)) => {
                service.retry(&routes.calls.budget, worker.config.workers)
            }
            _ => false,
        }
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
