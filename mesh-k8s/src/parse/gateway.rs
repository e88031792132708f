//! Gateway API: HTTPRoute with Service parents.

use std::collections::BTreeSet;

use mesh_core::{
    name::{is_dns_label, is_dns_name},
    route::MAX_WEIGHT,
};

use crate::{
    object::{BackendOfRoute, HttpRoute, Name, ParentOfRoute, RuleOfRoute},
    parse::{
        metadata::Metadata,
        reader::{Field, Fields, Reader},
        requests::route_match,
    },
};

pub(crate) fn read(reader: &mut Reader, metadata: Metadata, spec: &Field<'_>) -> Option<HttpRoute> {
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
        for item in reader.list(&list) {
            rules.push(rule(reader, &item, &metadata));
        }
    }
    fields.unsupported(reader, &["useDefaultGateways"]);
    fields.finish(reader);
    Some(HttpRoute { name: metadata.name, parents, rules })
}

/// `group` and `kind` of a reference: true for a Service. Gateway API writes the core group as "".
fn is_service(reader: &mut Reader, fields: &mut Fields<'_>, default: bool) -> bool {
    let group = fields.optional("group").and_then(|f| reader.text(&f));
    let kind = fields.optional("kind").map(|f| reader.text(&f).unwrap_or_default());
    matches!(group, None | Some("" | "core")) && kind.map_or(default, |kind| kind == "Service")
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

fn rule(reader: &mut Reader, item: &Field<'_>, metadata: &Metadata) -> RuleOfRoute {
    let mut fields = reader.fields(item);
    let mut matches = Vec::new();
    if let Some(list) = fields.optional("matches") {
        for item in reader.list(&list) {
            matches.push(route_match(reader, &item));
        }
    }
    let mut backends = Vec::new();
    if let Some(list) = fields.optional("backendRefs") {
        for item in reader.list(&list) {
            backends.extend(backend(reader, &item, metadata));
        }
        if !backends.is_empty() && backends.iter().all(|b| b.weight == 0) {
            let message = "the weights sum to 0: every request of this rule is refused";
            reader.warn(list.line(), &list.path, message, "give at least one backend a weight above 0");
        }
    } else {
        let message = "the rule has no backends: every request of it is refused";
        reader.warn(item.line(), &item.path, message, "add \"backendRefs:\"");
    }
    fields.ignore(&["name"]);
    fields.unsupported(reader, &["filters", "timeouts", "retry", "sessionPersistence"]);
    fields.finish(reader);
    RuleOfRoute { matches, backends, line: item.line() }
}

fn backend(reader: &mut Reader, item: &Field<'_>, metadata: &Metadata) -> Option<BackendOfRoute> {
    let mut fields = reader.fields(item);
    if !is_service(reader, &mut fields, true) {
        reader.refuse(
            item.line(),
            &item.path,
            "the backend is no Service",
            "write the name and port of a Service",
        );
        return None;
    }
    let name =
        fields.required(reader, "name").and_then(|f| reader.name(&f, is_dns_name, "the name of a Service"));
    let namespace = match fields.optional("namespace") {
        Some(field) => reader.name(&field, is_dns_label, "a namespace").map(Into::into),
        None => Some(metadata.name.namespace.clone()),
    };
    let port = fields.required(reader, "port").and_then(|f| reader.port(&f));
    let weight = fields.optional("weight").map_or(Some(1), |f| reader.integer(&f, "a weight", 0, MAX_WEIGHT));
    fields.unsupported(reader, &["filters"]);
    fields.finish(reader);
    let service = Name { namespace: namespace?, name: name?.into() };
    Some(BackendOfRoute { service, port: port?, weight: weight?, line: item.line() })
}
