//! Where a call to a Service goes: rules by precedence, backends by weight.

use std::sync::Arc;

use crate::{
    balance::weighted,
    filter::Filter,
    matching::{PathMatch, RequestMatch, RequestParts},
    name::{ObjectRef, ServicePort},
    protocol::Protocol,
    reason::Reason,
    settings::{BackendSettings, CallSettings, Retry, Timeouts},
};

/// Largest weight of one backend (Gateway API).
pub const MAX_WEIGHT: u32 = 1_000_000;

/// A Service of the mesh and how calls to it are routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRoutes {
    /// The Service and port that were addressed.
    pub service: ServicePort,
    /// What it speaks.
    pub protocol: Protocol,
    /// Rules by precedence (see [`sort_rules`]).
    pub rules: Vec<RouteRule>,
    /// What holds for every call, unless a rule says otherwise.
    pub calls: Arc<CallSettings>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// The object that holds it.
    pub object: ObjectRef,
    /// Its index in the object, from 0.
    pub index: u32,
    /// Conditions of which one must hold; empty: always.
    pub matches: Vec<RequestMatch>,
    /// What is done to matching calls.
    pub filters: Vec<Filter>,
    /// Time limits; where they say nothing, [`ServiceRoutes::calls`] does.
    pub timeouts: Timeouts,
    /// Which failures are tried again; None: as [`ServiceRoutes::calls`] says.
    pub retry: Option<Retry>,
    /// Where matching calls go; empty is right only with a filter that answers.
    pub backends: Vec<Backend>,
}

impl RouteRule {
    /// A rule without conditions and filters.
    #[must_use]
    pub fn new(object: ObjectRef, backends: Vec<Backend>) -> Self {
        Self {
            object,
            index: 0,
            matches: Vec::new(),
            filters: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            backends,
        }
    }
}

/// One weighted backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The Service port whose endpoints take the calls.
    pub service: ServicePort,
    /// Relative weight, 0 to [`MAX_WEIGHT`].
    pub weight: u32,
    /// True: the reference is invalid and its share of the calls is refused.
    pub invalid: bool,
    /// What is done to its share of the calls, after the rule's own filters.
    pub filters: Vec<Filter>,
    /// How calls are spread over its endpoints; None: the defaults.
    pub settings: Option<Arc<BackendSettings>>,
}

impl Backend {
    /// A backend with the defaults.
    #[must_use]
    pub fn new(service: ServicePort, weight: u32) -> Self {
        Self { service, weight, invalid: false, filters: Vec::new(), settings: None }
    }
}

/// What was chosen: the rule and the backend, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Index in [`ServiceRoutes::rules`].
    pub rule: usize,
    /// Index in [`RouteRule::backends`].
    pub backend: usize,
}

/// Why nothing was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoBackend {
    /// [`Reason::RouteNotMatched`] or [`Reason::BackendInvalid`].
    pub reason: Reason,
    /// The rule that matched, if one did.
    pub rule: Option<usize>,
}

impl ServiceRoutes {
    /// Routes with the defaults.
    #[must_use]
    pub fn new(service: ServicePort, protocol: Protocol, rules: Vec<RouteRule>) -> Self {
        Self { service, protocol, rules, calls: Arc::default() }
    }

    /// The first rule that fits. `request` is None for opaque connections: only rules without conditions fit these.
    #[must_use]
    pub fn matching_rule(&self, request: Option<&RequestParts<'_>>) -> Option<usize> {
        self.rules.iter().position(|rule| rule.fits(request))
    }

    /// Chooses rule and backend. `random` is uniform over all of u64.
    ///
    /// # Errors
    /// [`NoBackend`] says why the call has nowhere to go.
    pub fn select(&self, request: Option<&RequestParts<'_>>, random: u64) -> Result<Selection, NoBackend> {
        let none = NoBackend { reason: Reason::RouteNotMatched, rule: None };
        let index = self.matching_rule(request).ok_or(none)?;
        self.select_backend(index, random)
    }

    /// Chooses a backend of the rule at `index`. `random` is uniform over all of u64.
    ///
    /// # Errors
    /// [`NoBackend`] says why the call has nowhere to go.
    pub fn select_backend(&self, index: usize, random: u64) -> Result<Selection, NoBackend> {
        let invalid = NoBackend { reason: Reason::BackendInvalid, rule: Some(index) };
        let rule = self.rules.get(index).ok_or(invalid)?;
        let backend = weighted::pick(rule.backends.iter().map(|b| b.weight), random).ok_or(invalid)?;
        match rule.backends.get(backend) {
            Some(chosen) if !chosen.invalid => Ok(Selection { rule: index, backend }),
            _ => Err(invalid),
        }
    }

    /// The Service ports whose endpoints these routes need: those of valid backends, and those that take copies.
    pub fn needed(&self) -> impl Iterator<Item = &ServicePort> {
        fn mirrors(filters: &[Filter]) -> impl Iterator<Item = &ServicePort> {
            filters.iter().filter_map(|filter| match filter {
                Filter::Mirror(mirror) => Some(&mirror.service),
                Filter::RequestHeaders(_)
                | Filter::ResponseHeaders(_)
                | Filter::Rewrite { .. }
                | Filter::Redirect(_)
                | Filter::Cors(_)
                | Filter::Respond(_) => None,
            })
        }
        self.rules.iter().flat_map(|rule| {
            let backends = rule.backends.iter().filter(|backend| !backend.invalid);
            mirrors(&rule.filters)
                .chain(backends.flat_map(|b| std::iter::once(&b.service).chain(mirrors(&b.filters))))
        })
    }

    /// Time limits of an opaque connection.
    #[must_use]
    pub fn opaque_timeouts(&self) -> Timeouts {
        let rule = self.matching_rule(None).and_then(|at| self.rules.get(at));
        rule.map_or(self.calls.timeouts, |rule| rule.timeouts.or(self.calls.timeouts))
    }

    /// True when a rule looks into requests: calls are not to be carried as bytes before it is known that they are.
    #[must_use]
    pub fn looks_into_requests(&self) -> bool {
        let conditions = |rule: &RouteRule| rule.matches.iter().any(|m| !m.is_any());
        let filters = |rule: &RouteRule| {
            !rule.filters.is_empty() || rule.backends.iter().any(|backend| !backend.filters.is_empty())
        };
        self.rules.iter().any(|rule| conditions(rule) || filters(rule))
    }

    /// True when a rule looks at paths, so that these must be normalised.
    #[must_use]
    pub fn looks_at_paths(&self) -> bool {
        self.rules.iter().flat_map(|rule| &rule.matches).any(|m| m.path.is_some() && !m.is_any())
    }
}

impl RouteRule {
    /// The filters of calls to one backend, by its index: the rule's own, then the backend's. None: of calls that have
    /// no backend.
    #[must_use]
    pub fn filters_towards(&self, backend: Option<usize>) -> [&[Filter]; 2] {
        let backend = backend.and_then(|at| self.backends.get(at));
        [&self.filters, backend.map_or(&[], |backend| &backend.filters)]
    }

    /// Its filters, and those of its backends.
    pub fn all_filters(&self) -> impl Iterator<Item = &Filter> {
        self.filters.iter().chain(self.backends.iter().flat_map(|backend| &backend.filters))
    }

    fn fits(&self, request: Option<&RequestParts<'_>>) -> bool {
        match request {
            _ if self.matches.is_empty() => true,
            Some(request) => self.matches.iter().any(|m| m.matches(request)),
            None => self.matches.iter().any(RequestMatch::is_any),
        }
    }
}

/// How specific one condition is: greater is more specific (Gateway API HTTPRouteRule: exact path, longest prefix,
/// method, most headers, most query parameters; a regular expression ranks between exact and prefix).
#[must_use]
pub fn specificity(condition: &RequestMatch) -> (u8, usize, bool, usize, usize) {
    let (kind, length) = match &condition.path {
        Some(PathMatch::Exact(path)) => (3, path.len()),
        Some(PathMatch::Regex(pattern)) => (2, pattern.source().len()),
        Some(PathMatch::Prefix(prefix)) => (1, prefix.trim_end_matches('/').len()),
        None => (1, 0),
    };
    (kind, length, !condition.methods.is_empty(), condition.headers.len(), condition.query.len())
}

/// Puts rules in order of precedence. A rule with several conditions is split, so that each takes its own place.
/// Ties keep the given order: the caller passes the oldest object first, then by namespace and name, then by index.
#[must_use]
pub fn sort_rules(rules: Vec<RouteRule>) -> Vec<RouteRule> {
    let mut split: Vec<RouteRule> = Vec::with_capacity(rules.len());
    for rule in rules {
        if rule.matches.len() <= 1 {
            split.push(rule);
            continue;
        }
        for condition in &rule.matches {
            split.push(RouteRule { matches: vec![condition.clone()], ..rule.clone() });
        }
    }
    let any = RequestMatch::default();
    split.sort_by_key(|rule| std::cmp::Reverse(specificity(rule.matches.first().unwrap_or(&any))));
    split
}
