//! Filters of routes: what refers to other objects is resolved.

use mesh_core::{
    filter::{Filter, Mirror},
    name::ServicePort,
};
use std::sync::Arc;

use crate::{
    compile::index::{Index, Item},
    object::{FilterAction, FilterOfRoute, HttpRoute},
};

/// The filters at `field` of a route. A copy that would go nowhere is left out; an answer that does not exist is left out
/// as well, and so its requests are refused, for such a rule has no backends.
pub(crate) fn lower(
    index: &mut Index<'_>,
    route: Item<'_, HttpRoute>,
    field: &str,
    filters: &[FilterOfRoute],
) -> Vec<Filter> {
    let mut found = Vec::with_capacity(filters.len());
    for (at, filter) in filters.iter().enumerate() {
        let field = || format!("{field}.filters[{at}]");
        match &filter.action {
            FilterAction::Own(own) => found.push(own.clone()),
            FilterAction::Mirror { service, port, share } => {
                let key = service.key();
                if index.port(key, *port).is_none() {
                    let remedy = index.suggest_service(key.0, key.1);
                    let message = format!(
                        "Service {}/{} with port {port} does not exist: nothing is copied",
                        key.0, key.1
                    );
                    let field = format!("{}.requestMirror.backendRef", field());
                    index.problems.warn(route.located, filter.line, &field, message, remedy);
                    continue;
                }
                let service = ServicePort {
                    namespace: Arc::clone(&service.namespace),
                    name: Arc::clone(&service.name),
                    port: *port,
                };
                found.push(Filter::Mirror(Mirror { service, share: *share, settings: None }));
            }
            FilterAction::Respond(name) => {
                let key = (&*route.object.name.namespace, &**name);
                let policy = index.policies.iter().find(|policy| policy.object.name.key() == key);
                if let Some(respond) = policy.and_then(|policy| policy.object.respond.as_ref()) {
                    found.push(Filter::Respond(respond.clone()));
                    continue;
                }
                let message = match policy {
                    Some(_) => format!("TrafficPolicy {name} has no directResponse: requests are refused"),
                    None => format!("TrafficPolicy {name} does not exist: requests are refused"),
                };
                let remedy = "write a TrafficPolicy with directResponse, and name it here";
                let field = format!("{}.extensionRef.name", field());
                index.problems.warn(route.located, filter.line, &field, message, remedy);
            }
        }
    }
    found
}
