//! SMI: TrafficSplit, TrafficTarget, HTTPRouteGroup and TCPRoute.

use std::{collections::BTreeSet, sync::Arc};

use mesh_core::{
    name::{is_dns_label, is_dns_name},
    route::MAX_WEIGHT,
};

use crate::{
    object::{
        At, BackendOfSplit, HttpRouteGroup, Name, Object, RuleOfTarget, SpecKind, TcpRoute, TrafficSplit,
        TrafficTarget,
    },
    parse::{
        kubernetes::unique,
        metadata::Metadata,
        reader::{Field, Fields, Reader},
        requests::group_match,
    },
};

pub(crate) fn split(reader: &mut Reader, metadata: Metadata, spec: &Field<'_>) -> Option<TrafficSplit> {
    let mut fields = reader.fields(spec);
    let namespace = &metadata.name.namespace;
    let service = fields
        .required(reader, "service")
        .and_then(|f| service_name(reader, &f, namespace).map(|value| At { value, line: f.line() }));
    let mut backends = Vec::new();
    if let Some(list) = fields.required(reader, "backends") {
        for item in reader.list(&list) {
            let backend = backend(reader, &item, namespace);
            if let (Some(backend), Some(root)) = (&backend, &service)
                && backend.service == root.value
            {
                let message = format!("Service {} is split to itself", root.value);
                let remedy = "name a Service of its own that selects the same Workloads";
                reader.refuse(backend.line, &format!("{}.service", item.path), message, remedy);
            }
            backends.extend(backend.map(|b| (item.path.clone(), b)));
        }
        unique(
            reader,
            "service",
            backends.iter().map(|(path, b)| (b.service.to_string(), path.clone(), b.line)),
        );
        if !backends.is_empty() && backends.iter().all(|(_, b)| b.weight == 0) {
            let message = "the weights sum to 0";
            reader.refuse(list.line(), &list.path, message, "give at least one backend a weight above 0");
        }
    }
    let mut matches = Vec::new();
    if let Some(list) = fields.optional("matches") {
        for item in reader.list(&list) {
            let mut fields = reader.fields(&item);
            fields.ignore(&["apiGroup"]);
            if let Some(kind) = fields.required(reader, "kind") {
                reader.choice(&kind, &[("HTTPRouteGroup", ())]);
            }
            let name = fields.required(reader, "name");
            let name = name.and_then(|f| reader.name(&f, is_dns_name, "the name of an HTTPRouteGroup"));
            fields.finish(reader);
            matches.extend(name.map(|name| At { value: name.into(), line: item.line() }));
        }
    }
    fields.finish(reader);
    let backends = backends.into_iter().map(|(_, b)| b).collect();
    Some(TrafficSplit { name: metadata.name, service: service?, backends, matches })
}

fn backend(reader: &mut Reader, item: &Field<'_>, namespace: &str) -> Option<BackendOfSplit> {
    let mut fields = reader.fields(item);
    let service = fields.required(reader, "service").and_then(|f| service_name(reader, &f, namespace));
    let weight =
        fields.required(reader, "weight").and_then(|f| reader.integer(&f, "a weight", 0, MAX_WEIGHT));
    fields.finish(reader);
    Some(BackendOfSplit { service: service?, weight: weight?, line: item.line() })
}

/// A Service of the split's own namespace, as `svc`, `svc.ns` or `svc.ns.svc.DOMAIN`.
fn service_name(reader: &mut Reader, field: &Field<'_>, namespace: &str) -> Option<Arc<str>> {
    let text = reader.text(field)?;
    let (name, rest) = text.split_once('.').unwrap_or((text, ""));
    let (of, domain) = rest.split_once('.').unwrap_or((rest, ""));
    let own = rest.is_empty() || (of == namespace || namespace.is_empty());
    let is_service = domain.is_empty() || domain == "svc" || domain.starts_with("svc.");
    if is_dns_label(name) && own && is_service {
        return Some(name.into());
    }
    reader.expected(field, "a Service of the split's own namespace", "write the name of the Service alone");
    None
}

pub(crate) fn target(reader: &mut Reader, metadata: Metadata, spec: &Field<'_>) -> Option<TrafficTarget> {
    let mut fields = reader.fields(spec);
    let namespace = Arc::clone(&metadata.name.namespace);
    let destination = fields.required(reader, "destination").and_then(|f| account(reader, &f, &namespace));
    if let Some(to) = &destination
        && to.value.namespace != namespace
        && !namespace.is_empty()
    {
        let message = format!(
            "the destination lies in namespace {}, the TrafficTarget in {namespace}: another namespace could open it",
            to.value.namespace
        );
        let remedy = format!("put the TrafficTarget into namespace {}", to.value.namespace);
        reader.refuse(to.line, "spec.destination.namespace", message, remedy);
    }
    let mut sources = Vec::new();
    if let Some(list) = fields.required(reader, "sources") {
        for item in reader.list(&list) {
            sources.extend(account(reader, &item, &namespace));
        }
    }
    let mut rules = Vec::new();
    if let Some(list) = fields.required(reader, "rules") {
        for item in reader.list(&list) {
            rules.extend(rule(reader, &item));
        }
    }
    fields.finish(reader);
    Some(TrafficTarget { name: metadata.name, destination: destination?, sources, rules })
}

fn account(reader: &mut Reader, item: &Field<'_>, namespace: &Arc<str>) -> Option<At<Name>> {
    let mut fields = reader.fields(item);
    if let Some(kind) = fields.required(reader, "kind") {
        reader.choice(&kind, &[("ServiceAccount", ())]);
    }
    let name = fields.required(reader, "name");
    let name = name.and_then(|f| reader.name(&f, is_dns_name, "the name of a ServiceAccount"));
    let namespace = match fields.optional("namespace") {
        Some(field) => reader.name(&field, is_dns_label, "a namespace").map(Into::into),
        None => Some(Arc::clone(namespace)),
    };
    fields.finish(reader);
    Some(At { value: Name { namespace: namespace?, name: name?.into() }, line: item.line() })
}

fn rule(reader: &mut Reader, item: &Field<'_>) -> Option<RuleOfTarget> {
    const KINDS: [(&str, Option<SpecKind>); 3] = [
        ("HTTPRouteGroup", Some(SpecKind::HttpRouteGroup)),
        ("TCPRoute", Some(SpecKind::TcpRoute)),
        ("UDPRoute", None),
    ];
    let mut fields = reader.fields(item);
    let kind = fields.required(reader, "kind").and_then(|f| {
        let kind = reader.choice(&f, &KINDS)?;
        if kind.is_none() {
            reader.refuse(
                f.line(),
                &f.path,
                "UDPRoute is not supported: the mesh carries TCP only",
                "remove the rule",
            );
        }
        kind
    });
    let name =
        fields.required(reader, "name").and_then(|f| reader.name(&f, is_dns_name, "the name of a route"));
    let mut matches = Vec::new();
    if let Some(list) = fields.optional("matches") {
        if kind == Some(SpecKind::TcpRoute) {
            reader.refuse(list.line(), &list.path, "a TCPRoute has no matches by name", "remove the field");
        }
        for item in reader.list(&list) {
            matches.extend(reader.text(&item).map(|text| At { value: text.to_owned(), line: item.line() }));
        }
    }
    fields.finish(reader);
    Some(RuleOfTarget { kind: kind?, name: name?.into(), matches, line: item.line() })
}

pub(crate) fn route_group(
    reader: &mut Reader,
    metadata: Option<Metadata>,
    spec: Option<&Field<'_>>,
    outside: Option<&Field<'_>>,
) -> Option<Object> {
    let list = match (spec, outside) {
        (Some(spec), _) => {
            let mut fields = reader.fields(spec);
            let list = fields.required(reader, "matches");
            fields.finish(reader);
            list
        }
        (None, Some(outside)) => {
            let message = "matches stand outside of spec, as in versions before v1alpha3";
            reader.warn(outside.line(), &outside.path, message, "put \"spec:\" above them");
            Some(outside.clone())
        }
        (None, None) => None,
    };
    if let (Some(_), Some(outside)) = (spec, outside) {
        reader.refuse(outside.line(), &outside.path, "matches stand outside of spec", "put them into spec");
    }
    let mut matches = Vec::new();
    for item in list.map(|list| reader.list(&list)).unwrap_or_default() {
        matches.extend(group_match(reader, &item).map(|found| (item.path.clone(), item.line(), found)));
    }
    unique(reader, "name", matches.iter().map(|(path, line, (name, _))| (name.clone(), path.clone(), *line)));
    let matches = matches.into_iter().map(|(_, _, found)| found).collect();
    Some(Object::HttpRouteGroup(HttpRouteGroup { name: metadata?.name, matches }))
}

pub(crate) fn tcp_route(
    reader: &mut Reader,
    metadata: Option<Metadata>,
    spec: Option<&Field<'_>>,
) -> Option<Object> {
    let mut ports = BTreeSet::new();
    if let Some(spec) = spec {
        let mut fields = reader.fields(spec);
        if let Some(matches) = fields.optional("matches") {
            read_ports(reader, &matches, &mut ports);
        }
        fields.finish(reader);
    }
    Some(Object::TcpRoute(TcpRoute { name: metadata?.name, ports: ports.into_iter().collect() }))
}

fn read_ports(reader: &mut Reader, matches: &Field<'_>, ports: &mut BTreeSet<u16>) {
    let mut fields: Fields<'_> = reader.fields(matches);
    fields.ignore(&["name"]);
    if let Some(list) = fields.optional("ports") {
        for item in reader.list(&list) {
            ports.extend(reader.port(&item));
        }
    }
    fields.finish(reader);
}
