//! Gateway API: HTTPRoute and GRPCRoute with Service parents.

use std::collections::BTreeSet;

use mesh_core::{
    filter::{Filter, PathChange},
    matching::{PathMatch, RequestMatch},
    name::{is_dns_label, is_dns_name},
    route::MAX_WEIGHT,
    settings::{MAX_DURATION, Retry, RetryOn, Timeouts},
};

use crate::{
    labels::API_GROUP,
    object::{BackendOfRoute, FilterAction, FilterOfRoute, HttpRoute, Name, ParentOfRoute, RuleOfRoute},
    parse::{
        filters::{self, at_most, filters},
        metadata::Metadata,
        reader::{Field, Fields, Reader},
        requests::{grpc_match, route_match},
        values::{limit, positive},
    },
};

/// Statuses that are tried again where a route's retry names none.
const RETRIED: [u16; 4] = [500, 502, 503, 504];

pub(crate) fn read(
    reader: &mut Reader,
    metadata: Metadata,
    spec: &Field<'_>,
    grpc: bool,
) -> Option<HttpRoute> {
    let mut fields = reader.fields(spec);
    let mut parents = Vec::new();
    if let Some(list) = fields.required(reader, "parentRefs") {
        let problems = reader.problems.len();
        for item in reader.list(&list) {
            parents.extend(parent(reader, &item, &metadata));
        }
        if parents.is_empty() && reader.problems.len() == problems {
            reader.refuse(list.line(), &list.path, "no parent is a Service", "write \"kind: Service\"");
        } else if parents.is_empty() && !reader.is_refused() {
            let remedy = "write \"group: ''\" and \"kind: Service\" for a route between workloads";
            reader.refuse(
                list.line(),
                &list.path,
                "no parent is a Service: the mesh has nothing to route",
                remedy,
            );
        }
        let mut seen = BTreeSet::new();
        for parent in &parents {
            if !seen.insert((&parent.service, parent.port)) {
                let message = format!("Service {} is there twice", parent.service.name);
                reader.refuse(parent.line, &list.path, message, "keep one of them");
            }
        }
    }
    if let Some(field) = fields.optional("hostnames") {
        let message = "hostnames have no effect on routes of Services";
        reader.warn(field.line(), &field.path, message, "match the host header in rules[].matches[].headers");
    }
    let mut rules = Vec::new();
    if let Some(list) = fields.required(reader, "rules") {
        let mut names = BTreeSet::new();
        for item in reader.list(&list) {
            rules.push(rule(reader, &item, &metadata, grpc, &mut names));
        }
    }
    fields.unsupported(reader, &["useDefaultGateways"]);
    fields.finish(reader);
    Some(HttpRoute { name: metadata.name, parents, rules })
}

/// `group` and `kind` of a reference: true for a Service, or what stands for one. Gateway API writes the core group as
/// "".
pub(crate) fn is_service(reader: &mut Reader, fields: &mut Fields<'_>, default: bool) -> bool {
    let group = fields.optional("group").and_then(|f| reader.text(&f));
    let kind = fields.optional("kind").map(|f| reader.text(&f).unwrap_or_default());
    match group {
        None | Some("" | "core") => kind.map_or(default, |kind| kind == "Service"),
        Some(group) => group == API_GROUP && kind == Some("ExternalService"),
    }
}

fn parent(reader: &mut Reader, item: &Field<'_>, metadata: &Metadata) -> Option<ParentOfRoute> {
    let mut fields = reader.fields(item);
    if !is_service(reader, &mut fields, false) {
        let message = "the parent is no Service: it is left out";
        reader.warn(
            item.line(),
            &item.path,
            message,
            "the mesh binds routes to Services (group '', kind Service)",
        );
        return None;
    }
    let name =
        fields.required(reader, "name").and_then(|f| reader.name(&f, is_dns_label, "the name of a Service"));
    let port = fields.optional("port").map(|f| reader.port(&f));
    if let Some(field) = fields.optional("namespace") {
        let namespace = reader.name(&field, is_dns_label, "a namespace");
        if namespace.is_some_and(|n| n != &*metadata.name.namespace && !metadata.name.namespace.is_empty()) {
            let message = format!(
                "{} is not the route's own namespace: consumer routes are not supported yet",
                field.node.value
            );
            reader.refuse(field.line(), &field.path, message, "put the route into the Service's namespace");
        }
    }
    fields.unsupported(reader, &["sectionName"]);
    fields.finish(reader);
    let service = Name { namespace: metadata.name.namespace.clone(), name: name?.into() };
    Some(ParentOfRoute { service, port: port.map_or(Some(None), |p| p.map(Some))?, line: item.line() })
}

fn rule<'a>(
    reader: &mut Reader,
    item: &Field<'a>,
    metadata: &Metadata,
    grpc: bool,
    names: &mut BTreeSet<&'a str>,
) -> RuleOfRoute {
    let mut fields = reader.fields(item);
    if let Some(field) = fields.optional("name")
        && let Some(name) = reader.name(&field, is_dns_name, "the name of a rule")
        && !names.insert(name)
    {
        reader.refuse(field.line(), &field.path, "another rule has this name", "give each its own");
    }
    let mut matches = Vec::new();
    if let Some(list) = fields.optional("matches") {
        for item in reader.list(&list) {
            matches.push(if grpc { grpc_match(reader, &item) } else { route_match(reader, &item) });
        }
    }
    let place = filters::Place { metadata, grpc, backend: false };
    let filters = filters(reader, &mut fields, place);
    let mut found = RuleOfRoute {
        matches,
        filters,
        timeouts: Timeouts::default(),
        retry: None,
        backends: Vec::new(),
        line: item.line(),
    };
    if !grpc {
        found.timeouts = fields.optional("timeouts").map(|f| timeouts(reader, &f)).unwrap_or_default();
        found.retry = fields.optional("retry").map(|f| retry(reader, &f));
    }
    backends(reader, &mut fields, metadata, grpc, &mut found);
    let of_backends = found.backends.iter().flat_map(|backend| &backend.filters);
    if replaces_prefix(found.filters.iter().chain(of_backends)) && !found.matches.iter().all(has_prefix) {
        let message = "replacePrefixMatch needs a prefix: a match of this rule has another path condition";
        reader.refuse(item.line(), &item.path, message, "write type: PathPrefix in all matches of the rule");
    }
    fields.unsupported(reader, &["sessionPersistence"]);
    fields.finish(reader);
    found
}

fn replaces_prefix<'f>(mut filters: impl Iterator<Item = &'f FilterOfRoute>) -> bool {
    filters.any(|filter| match &filter.action {
        FilterAction::Own(Filter::Rewrite { path, .. }) => matches!(path, Some(PathChange::Prefix(_))),
        FilterAction::Own(Filter::Redirect(redirect)) => {
            matches!(redirect.path, Some(PathChange::Prefix(_)))
        }
        FilterAction::Own(_) | FilterAction::Mirror { .. } | FilterAction::Respond(_) => false,
    })
}

fn has_prefix(condition: &RequestMatch) -> bool {
    matches!(condition.path, None | Some(PathMatch::Prefix(_)))
}

/// The backends of a rule, and whether it is right that it has some or none.
fn backends(
    reader: &mut Reader,
    fields: &mut Fields<'_>,
    metadata: &Metadata,
    grpc: bool,
    rule: &mut RuleOfRoute,
) {
    let answers = |filter: &FilterOfRoute| match &filter.action {
        FilterAction::Own(filter) => matches!(filter, Filter::Redirect(_) | Filter::Respond(_)),
        FilterAction::Respond(_) => true,
        FilterAction::Mirror { .. } => false,
    };
    let answers = rule.filters.iter().any(answers);
    let Some(list) = fields.optional("backendRefs") else {
        if !answers {
            let message = "the rule has no backends: every request of it is refused";
            reader.warn(fields.line(), fields.path(), message, "add \"backendRefs:\"");
        }
        return;
    };
    if answers {
        let message = "a filter of this rule answers by itself: no backend is ever called";
        reader.refuse(list.line(), &list.path, message, "remove the backends, or the filter");
    }
    for item in reader.list(&list) {
        rule.backends.extend(backend(reader, &item, metadata, grpc));
    }
    if !rule.backends.is_empty() && rule.backends.iter().all(|b| b.weight == 0) {
        let message = "the weights sum to 0: every request of this rule is refused";
        reader.warn(list.line(), &list.path, message, "give at least one backend a weight above 0");
    }
}

fn timeouts(reader: &mut Reader, field: &Field<'_>) -> Timeouts {
    let mut fields = reader.fields(field);
    let request = fields.optional("request").and_then(|f| limit(reader, &f));
    let per_try = fields.optional("backendRequest");
    let per_try_limit = per_try.as_ref().and_then(|f| limit(reader, f));
    if let (Some(field), Some(per_try), Some(request)) = (per_try, per_try_limit, request)
        && per_try > request
        && per_try < MAX_DURATION
    {
        reader.expected(
            &field,
            "at most the timeout of the request",
            "make it shorter, or the request longer",
        );
    }
    fields.finish(reader);
    Timeouts { request, per_try: per_try_limit, ..Timeouts::default() }
}

/// HTTPRouteRetry (GEP-1731): the statuses of `codes`, and failures of the connection.
fn retry(reader: &mut Reader, field: &Field<'_>) -> Retry {
    let mut fields = reader.fields(field);
    let mut codes: Vec<u16> = Vec::new();
    if let Some(list) = fields.optional("codes") {
        for item in at_most(reader, &list, 200) {
            let code = reader.integer(&item, "a status of an error", 400, 599);
            codes.extend(code.and_then(|code| u16::try_from(code).ok()));
        }
    } else {
        codes.extend(RETRIED);
    }
    codes.sort_unstable();
    codes.dedup();
    let attempts = fields
        .optional("attempts")
        .map_or(Some(1), |f| reader.integer(&f, "a number of retries", 0, Retry::MAX_RETRIES));
    let backoff = fields.optional("backoff").and_then(|f| positive(reader, &f));
    fields.finish(reader);
    let failures = [RetryOn::ConnectFailure, RetryOn::Reset, RetryOn::Timeout];
    Retry {
        retries: attempts.unwrap_or_default(),
        on: failures.into_iter().chain(codes.into_iter().map(RetryOn::Status)).collect(),
        non_idempotent: false,
        backoff,
        max_backoff: None,
    }
}

fn backend(reader: &mut Reader, item: &Field<'_>, metadata: &Metadata, grpc: bool) -> Option<BackendOfRoute> {
    let mut fields = reader.fields(item);
    let target = reference(reader, &mut fields, item, metadata);
    let weight = fields.optional("weight").map_or(Some(1), |f| reader.integer(&f, "a weight", 0, MAX_WEIGHT));
    let place = filters::Place { metadata, grpc, backend: true };
    let filters = filters(reader, &mut fields, place);
    fields.finish(reader);
    let (service, port) = target?;
    Some(BackendOfRoute { service, port, weight: weight?, filters, line: item.line() })
}

/// A reference to a port of a Service: group, kind, name, namespace and port.
pub(crate) fn reference(
    reader: &mut Reader,
    fields: &mut Fields<'_>,
    item: &Field<'_>,
    metadata: &Metadata,
) -> Option<(Name, u16)> {
    let is_service = is_service(reader, fields, true);
    if !is_service {
        let remedy = "write the name and port of a Service";
        reader.refuse(item.line(), &item.path, "the backend is no Service", remedy);
    }
    let name = fields.required(reader, "name");
    let name = name.and_then(|f| reader.name(&f, is_dns_name, "the name of a Service"));
    let namespace = match fields.optional("namespace") {
        Some(field) => reader.name(&field, is_dns_label, "a namespace").map(Into::into),
        None => Some(metadata.name.namespace.clone()),
    };
    let port = fields.required(reader, "port").and_then(|f| reader.port(&f));
    is_service.then_some((Name { namespace: namespace?, name: name?.into() }, port?))
}
