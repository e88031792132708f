//! How calls to a Service are routed.

use std::sync::Arc;

use mesh_core::route::{Backend, MAX_WEIGHT, RouteRule, ServiceRoutes};

use super::{
    At as _, ConvertError, Wire, calls::unless_default, each, filter::MAX_FILTERS, list, optional, required,
    to_list,
};
use crate::discovery::v1 as pb;

impl Wire for ServiceRoutes {
    type Message = pb::ServiceDestination;

    fn to_wire(&self) -> pb::ServiceDestination {
        pb::ServiceDestination {
            service: Some(self.service.to_wire()),
            protocol: self.protocol.to_wire(),
            rules: to_list(&self.rules),
            calls: unless_default(self.calls.as_ref()),
        }
    }

    fn from_wire(message: &pb::ServiceDestination) -> Result<Self, ConvertError> {
        Ok(Self {
            service: required(message.service.as_ref(), "service")?,
            protocol: Wire::from_wire(&message.protocol).at("protocol")?,
            rules: list(&message.rules, "rules")?,
            calls: Arc::new(optional(message.calls.as_ref(), "calls")?.unwrap_or_default()),
        })
    }
}

impl Wire for RouteRule {
    type Message = pb::RouteRule;

    fn to_wire(&self) -> pb::RouteRule {
        pb::RouteRule {
            object: Some(self.object.to_wire()),
            index: self.index,
            matches: to_list(&self.matches),
            backends: to_list(&self.backends),
            filters: to_list(&self.filters),
            timeouts: unless_default(&self.timeouts),
            retry: self.retry.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: &pb::RouteRule) -> Result<Self, ConvertError> {
        Ok(Self {
            object: required(message.object.as_ref(), "object")?,
            index: message.index,
            matches: list(&message.matches, "matches")?,
            filters: each(&message.filters, "filters", MAX_FILTERS, Wire::from_wire)?,
            timeouts: optional(message.timeouts.as_ref(), "timeouts")?.unwrap_or_default(),
            retry: optional(message.retry.as_ref(), "retry")?,
            backends: list(&message.backends, "backends")?,
        })
    }
}

impl Wire for Backend {
    type Message = pb::Backend;

    fn to_wire(&self) -> pb::Backend {
        pb::Backend {
            service: Some(self.service.to_wire()),
            weight: self.weight,
            invalid: self.invalid,
            filters: to_list(&self.filters),
            settings: self.settings.as_deref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: &pb::Backend) -> Result<Self, ConvertError> {
        if message.weight > MAX_WEIGHT {
            return Err(ConvertError::new(message.weight, format!("a weight of at most {MAX_WEIGHT}")))
                .at("weight");
        }
        Ok(Self {
            service: required(message.service.as_ref(), "service")?,
            weight: message.weight,
            invalid: message.invalid,
            filters: each(&message.filters, "filters", MAX_FILTERS, Wire::from_wire)?,
            settings: optional(message.settings.as_ref(), "settings")?.map(Arc::new),
        })
    }
}
