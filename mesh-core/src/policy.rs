//! Who may call a workload. Deny beats allow, allow beats the default; the order of rules does not matter.

use http::Method;

use crate::{
    identity::SpiffeId,
    matching::{RequestMatch, RequestParts},
    name::ObjectRef,
    reason::Reason,
};

/// Policy of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySet {
    /// Whether callers without mesh TLS are let in at all.
    pub tls_mode: TlsMode,
    /// What happens to a call that no rule matches.
    pub default_action: DefaultAction,
    /// The object that set the default.
    pub default_source: ObjectRef,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// Whether callers without mesh TLS are let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsMode {
    /// They are, as unauthenticated callers.
    #[default]
    Permissive,
    /// They are refused.
    Strict,
}

/// What happens to a call that no rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DefaultAction {
    /// Let in.
    Allow,
    /// Let in when the caller has a mesh identity.
    Authenticated,
    /// Refused.
    Deny,
    /// Refused when the caller has a mesh identity; callers without one follow the TLS mode (SMI's own default).
    Smi,
}

/// Whether a rule allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// What matches is let in.
    Allow,
    /// What matches is refused.
    Deny,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The object that holds it.
    pub object: ObjectRef,
    /// Allow or deny.
    pub action: Action,
    /// Callers, of which one must match; empty matches nobody.
    pub sources: Vec<Source>,
    /// Ports of the workload to which it is confined; empty: all.
    pub ports: Vec<u16>,
    /// Whether it looks into requests.
    pub scope: Scope,
}

/// Whether a rule looks into requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Any connection and any request.
    Any,
    /// HTTP requests that fulfil one of these conditions.
    Http(Vec<RequestMatch>),
}

/// A caller or a set of callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Exactly this identity.
    Identity(SpiffeId),
    /// Every service account of this namespace, in the caller's trust domain.
    Namespace(String),
    /// Every caller with a mesh identity.
    Authenticated,
    /// Every caller.
    Any,
}

/// One call, as policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The caller's verified identity; None: it has none.
    pub source: Option<&'a SpiffeId>,
    /// The workload's port.
    pub port: u16,
    /// The request; None for an opaque connection.
    pub request: Option<&'a RequestParts<'a>>,
}

/// The verdict and who gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Ok: let in.
    pub verdict: Result<(), Reason>,
    /// The object that decided.
    pub by: &'a ObjectRef,
}

impl Decision<'_> {
    /// True when the call is let in.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.verdict.is_ok()
    }
}

/// Decides one call.
///
/// An opaque connection (`request` is None) is matched by an HTTP-scoped deny rule, for it could carry what the rule
/// denies, and never by an HTTP-scoped allow rule: a rule about requests never degrades to a rule about connections. So is
/// CONNECT matched by every HTTP-scoped deny rule, for what is inside its tunnel is not seen. Only an HTTP-scoped allow rule
/// that names it lets it in: an application that is no proxy may answer it like any request, and read what is inside as more.
///
/// A path is denied in whatever reading some server may have of it, and allowed in the strictest one only.
#[must_use]
pub fn decide<'a>(policy: &'a PolicySet, call: &Call<'_>) -> Decision<'a> {
    if call.source.is_none() && policy.tls_mode == TlsMode::Strict {
        return Decision { verdict: Err(Reason::TlsRequired), by: &policy.default_source };
    }
    let find = |action: Action| {
        policy.rules.iter().find(|rule| rule.action == action && rule.matches(call)).map(|rule| &rule.object)
    };
    if let Some(by) = find(Action::Deny) {
        return Decision { verdict: Err(Reason::AuthzDenied), by };
    }
    if let Some(by) = find(Action::Allow) {
        return Decision { verdict: Ok(()), by };
    }
    let verdict = match policy.default_action {
        DefaultAction::Allow => Ok(()),
        DefaultAction::Authenticated if call.source.is_some() => Ok(()),
        DefaultAction::Authenticated => Err(Reason::TlsRequired),
        DefaultAction::Smi if call.source.is_none() => Ok(()),
        DefaultAction::Deny | DefaultAction::Smi => Err(Reason::AuthzDenied),
    };
    let verdict = if call.is_connect() { verdict.and(Err(Reason::AuthzDenied)) } else { verdict };
    Decision { verdict, by: &policy.default_source }
}

impl Call<'_> {
    fn is_connect(&self) -> bool {
        self.request.is_some_and(|request| request.method == Method::CONNECT)
    }
}

impl Rule {
    fn matches(&self, call: &Call<'_>) -> bool {
        let in_scope = match (&self.scope, call.request) {
            (Scope::Any, _) => self.action == Action::Deny || !call.is_connect(),
            (Scope::Http(conditions), Some(request)) => conditions.iter().any(|c| match self.action {
                Action::Allow if c.methods.is_empty() => !call.is_connect() && c.matches(request),
                Action::Allow => c.matches(request),
                Action::Deny => call.is_connect() || c.may_match(request),
            }),
            (Scope::Http(_), None) => self.action == Action::Deny,
        };
        in_scope
            && (self.ports.is_empty() || self.ports.contains(&call.port))
            && self.sources.iter().any(|source| source.matches(call.source))
    }
}

impl Source {
    fn matches(&self, caller: Option<&SpiffeId>) -> bool {
        match (self, caller) {
            (Self::Any, _) | (Self::Authenticated, Some(_)) => true,
            (Self::Identity(wanted), Some(id)) => wanted == id,
            (Self::Namespace(wanted), Some(id)) => {
                id.namespace_and_account().is_some_and(|(namespace, _)| namespace == wanted)
            }
            (Self::Authenticated | Self::Identity(_) | Self::Namespace(_), None) => false,
        }
    }
}

impl PolicySet {
    /// True when a rule for `port` looks into requests, so that these must be told apart where that is possible.
    #[must_use]
    pub fn looks_into_requests(&self, port: u16) -> bool {
        self.rules
            .iter()
            .filter(|rule| rule.ports.is_empty() || rule.ports.contains(&port))
            .any(|rule| matches!(rule.scope, Scope::Http(_)))
    }

    /// True when a rule for `port` looks at paths, so that these must be normalised before they are matched.
    #[must_use]
    pub fn looks_at_paths(&self, port: u16) -> bool {
        self.rules.iter().filter(|rule| rule.ports.is_empty() || rule.ports.contains(&port)).any(|rule| {
            match &rule.scope {
                Scope::Any => false,
                Scope::Http(conditions) => conditions.iter().any(|c| c.path.is_some() && !c.is_any()),
            }
        })
    }
}
