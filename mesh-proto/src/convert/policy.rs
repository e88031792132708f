//! Who may call a workload.

use mesh_core::policy::{Action, DefaultAction, PolicySet, Rule, Scope, Source, TlsMode};

use super::{
    At as _, ConvertError, MAX_ITEMS, Wire, common::label, each, list, parsed, port, required, to_list,
};
use crate::discovery::v1::{self as pb, access_rule, source};

impl Wire for PolicySet {
    type Message = pb::InboundPolicy;

    fn to_wire(&self) -> pb::InboundPolicy {
        let tls_mode = match self.tls_mode {
            TlsMode::Permissive => pb::TlsMode::Permissive,
            TlsMode::Strict => pb::TlsMode::Strict,
        };
        let default_action = match self.default_action {
            DefaultAction::Allow => pb::DefaultAction::Allow,
            DefaultAction::Authenticated => pb::DefaultAction::Authenticated,
            DefaultAction::Deny => pb::DefaultAction::Deny,
            DefaultAction::Smi => pb::DefaultAction::Smi,
        };
        pb::InboundPolicy {
            tls_mode: tls_mode.into(),
            default_action: default_action.into(),
            default_source: Some(self.default_source.to_wire()),
            rules: to_list(&self.rules),
        }
    }

    fn from_wire(message: &pb::InboundPolicy) -> Result<Self, ConvertError> {
        let tls_mode = match pb::TlsMode::try_from(message.tls_mode) {
            Ok(pb::TlsMode::Unspecified | pb::TlsMode::Permissive) => TlsMode::Permissive,
            Ok(pb::TlsMode::Strict) => TlsMode::Strict,
            Err(_) => return Err(ConvertError::new(message.tls_mode, "a number of TlsMode")).at("tls_mode"),
        };
        let default_action = match pb::DefaultAction::try_from(message.default_action) {
            Ok(pb::DefaultAction::Allow) => DefaultAction::Allow,
            Ok(pb::DefaultAction::Authenticated) => DefaultAction::Authenticated,
            Ok(pb::DefaultAction::Deny) => DefaultAction::Deny,
            Ok(pb::DefaultAction::Smi) => DefaultAction::Smi,
            Ok(pb::DefaultAction::Unspecified) | Err(_) => {
                let wanted = "a number of DefaultAction that is not 0";
                return Err(ConvertError::new(message.default_action, wanted)).at("default_action");
            }
        };
        Ok(Self {
            tls_mode,
            default_action,
            default_source: required(message.default_source.as_ref(), "default_source")?,
            rules: list(&message.rules, "rules")?,
        })
    }
}

impl Wire for Rule {
    type Message = pb::AccessRule;

    fn to_wire(&self) -> pb::AccessRule {
        let scope = match &self.scope {
            Scope::Any => access_rule::Scope::Any(pb::AnyRequest {}),
            Scope::Http(matches) => access_rule::Scope::Http(pb::HttpRequests { matches: to_list(matches) }),
        };
        pb::AccessRule {
            object: Some(self.object.to_wire()),
            deny: self.action == Action::Deny,
            sources: to_list(&self.sources),
            ports: self.ports.iter().copied().map(u32::from).collect(),
            scope: Some(scope),
        }
    }

    fn from_wire(message: &pb::AccessRule) -> Result<Self, ConvertError> {
        let scope = match message.scope.as_ref().ok_or_else(ConvertError::missing).at("scope")? {
            access_rule::Scope::Any(pb::AnyRequest {}) => Scope::Any,
            access_rule::Scope::Http(http) if http.matches.is_empty() => {
                // Would never match: a deny rule that was meant to deny something would let it through.
                return Err(ConvertError::new("an empty list", "at least one condition")).at("http.matches");
            }
            access_rule::Scope::Http(http) => Scope::Http(list(&http.matches, "http.matches")?),
        };
        Ok(Self {
            object: required(message.object.as_ref(), "object")?,
            action: if message.deny { Action::Deny } else { Action::Allow },
            sources: list(&message.sources, "sources")?,
            ports: each(&message.ports, "ports", MAX_ITEMS, |value| port(*value, ""))?,
            scope,
        })
    }
}

impl Wire for Source {
    type Message = pb::Source;

    fn to_wire(&self) -> pb::Source {
        let kind = match self {
            Self::Identity(id) => source::Kind::Identity(id.as_str().into()),
            Self::Namespace(namespace) => source::Kind::Namespace(namespace.clone()),
            Self::Authenticated => source::Kind::AnyAuthenticated(true),
            Self::Any => source::Kind::Any(true),
        };
        pb::Source { kind: Some(kind) }
    }

    fn from_wire(message: &pb::Source) -> Result<Self, ConvertError> {
        match message.kind.as_ref().ok_or_else(ConvertError::missing)? {
            source::Kind::Identity(id) => parsed(id, "identity").map(Self::Identity),
            source::Kind::Namespace(namespace) => Ok(Self::Namespace(label(namespace, "namespace")?.into())),
            source::Kind::AnyAuthenticated(true) => Ok(Self::Authenticated),
            source::Kind::Any(true) => Ok(Self::Any),
            source::Kind::AnyAuthenticated(false) => {
                Err(ConvertError::new(false, "true")).at("any_authenticated")
            }
            source::Kind::Any(false) => Err(ConvertError::new(false, "true")).at("any"),
        }
    }
}
