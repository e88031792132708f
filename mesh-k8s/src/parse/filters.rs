//! Filters of routes (Gateway API HTTPRouteFilter and GRPCRouteFilter).

use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use mesh_core::{
    filter::{Cors, Filter, HeaderChanges, PathChange, Redirect, may_change},
    name::is_dns_name,
};

use crate::{
    labels::API_GROUP,
    object::{FilterAction, FilterOfRoute},
    parse::{
        gateway::reference,
        metadata::Metadata,
        reader::{Field, Fields, Reader},
        requests::{bounded, header_name, plain_path},
        values::{boolean, share},
    },
};

/// Most filters of one rule or backend (Gateway API).
const MAX_FILTERS: usize = 16;

/// The kinds of filters, as they are written, and the field that holds what each is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
    Redirect,
    Mirror,
    Cors,
    Extension,
}

const KINDS: [(&str, Kind); 7] = [
    ("RequestHeaderModifier", Kind::RequestHeaders),
    ("ResponseHeaderModifier", Kind::ResponseHeaders),
    ("URLRewrite", Kind::Rewrite),
    ("RequestRedirect", Kind::Redirect),
    ("RequestMirror", Kind::Mirror),
    ("CORS", Kind::Cors),
    ("ExtensionRef", Kind::Extension),
];

impl Kind {
    fn field(self) -> &'static str {
        match self {
            Self::RequestHeaders => "requestHeaderModifier",
            Self::ResponseHeaders => "responseHeaderModifier",
            Self::Rewrite => "urlRewrite",
            Self::Redirect => "requestRedirect",
            Self::Mirror => "requestMirror",
            Self::Cors => "cors",
            Self::Extension => "extensionRef",
        }
    }

    /// True for what GRPCRoute has.
    fn is_grpc(self) -> bool {
        match self {
            Self::RequestHeaders | Self::ResponseHeaders | Self::Mirror | Self::Extension => true,
            Self::Rewrite | Self::Redirect | Self::Cors => false,
        }
    }

    /// True for what a backend can have: what answers by itself does so before a backend is chosen.
    fn fits_backend(self) -> bool {
        match self {
            Self::RequestHeaders | Self::ResponseHeaders | Self::Rewrite | Self::Mirror => true,
            Self::Redirect | Self::Cors | Self::Extension => false,
        }
    }
}

/// Where filters stand.
#[derive(Clone, Copy)]
pub(crate) struct Place<'m> {
    pub(crate) metadata: &'m Metadata,
    pub(crate) grpc: bool,
    pub(crate) backend: bool,
}

/// The filters of a rule or backend.
pub(crate) fn filters(reader: &mut Reader, fields: &mut Fields<'_>, place: Place<'_>) -> Vec<FilterOfRoute> {
    let Some(list) = fields.optional("filters") else { return Vec::new() };
    let items = reader.list(&list);
    if items.len() > MAX_FILTERS {
        let message = format!("{} filters; at most {MAX_FILTERS} are read", items.len());
        reader.refuse(list.line(), &list.path, message, "leave out some");
        return Vec::new();
    }
    let mut seen: Vec<Kind> = Vec::new();
    let mut found = Vec::with_capacity(items.len());
    for item in &items {
        let Some((kind, action)) = filter(reader, item, place) else { continue };
        let repeatable = matches!(kind, Kind::Mirror | Kind::Extension);
        if !repeatable && seen.contains(&kind) {
            let message = format!("{} is there twice", kind.field());
            reader.refuse(item.line(), &item.path, message, "put both into one filter");
        }
        let both = [Kind::Rewrite, Kind::Redirect];
        if both.contains(&kind) && seen.iter().any(|other| both.contains(other) && *other != kind) {
            let message = "urlRewrite and requestRedirect exclude each other";
            reader.refuse(item.line(), &item.path, message, "keep one of them");
        }
        seen.push(kind);
        found.extend(action.map(|action| FilterOfRoute { action, line: item.line() }));
    }
    found
}

fn filter(reader: &mut Reader, item: &Field<'_>, place: Place<'_>) -> Option<(Kind, Option<FilterAction>)> {
    let mut fields = reader.fields(item);
    let kind_field = fields.required(reader, "type");
    let choices: Vec<(&'static str, Kind)> =
        KINDS.into_iter().filter(|(_, kind)| !place.grpc || kind.is_grpc()).collect();
    let kind = kind_field.as_ref().and_then(|f| reader.choice(f, &choices));
    let Some(kind) = kind else {
        fields.ignore(&KINDS.map(|(_, kind)| kind.field()));
        fields.finish(reader);
        return None;
    };
    if place.backend && !kind.fits_backend() {
        let message = "this filter answers or leads elsewhere before a backend is chosen";
        reader.refuse(item.line(), &item.path, message, "put it into the filters of the rule");
    }
    let body = fields.required(reader, kind.field());
    fields.finish(reader);
    let body = body?;
    let action = match kind {
        Kind::RequestHeaders => own(Filter::RequestHeaders(header_changes(reader, &body))),
        Kind::ResponseHeaders => own(Filter::ResponseHeaders(header_changes(reader, &body))),
        Kind::Rewrite => rewrite(reader, &body).and_then(own),
        Kind::Redirect => redirect(reader, &body).and_then(own),
        Kind::Mirror => mirror(reader, &body, place.metadata),
        Kind::Cors => own(Filter::Cors(cors(reader, &body))),
        Kind::Extension => extension(reader, &body),
    };
    Some((kind, action))
}

#[expect(clippy::unnecessary_wraps, reason = "as the other kinds, which can fail")]
fn own(filter: Filter) -> Option<FilterAction> {
    Some(FilterAction::Own(filter))
}

fn header_changes(reader: &mut Reader, field: &Field<'_>) -> HeaderChanges {
    let mut fields = reader.fields(field);
    let mut changes = HeaderChanges::default();
    for (name, into) in [("set", &mut changes.set), ("add", &mut changes.add)] {
        let Some(list) = fields.optional(name) else { continue };
        let mut seen = BTreeSet::new();
        for item in at_most(reader, &list, HeaderChanges::MAX) {
            let mut fields = reader.fields(&item);
            let name = fields.required(reader, "name").and_then(|f| changeable(reader, &f));
            let value = fields.required(reader, "value").and_then(|f| header_value(reader, &f));
            fields.finish(reader);
            let (Some(name), Some(value)) = (name, value) else { continue };
            if !seen.insert(name.to_string()) {
                let message = format!("header {name} is there twice");
                reader.refuse(item.line(), &item.path, message, "keep one of them");
            }
            into.push((name, value));
        }
    }
    if let Some(list) = fields.optional("remove") {
        for item in at_most(reader, &list, HeaderChanges::MAX) {
            changes.remove.extend(changeable(reader, &item));
        }
    }
    if fields.is_empty() {
        reader.refuse(field.line(), &field.path, "the filter changes nothing", "add set, add or remove");
    }
    fields.finish(reader);
    changes
}

/// The items of a list that proxies are told no longer than `max`.
pub(crate) fn at_most<'a>(reader: &mut Reader, list: &Field<'a>, max: usize) -> Vec<Field<'a>> {
    let items = reader.list(list);
    if items.len() <= max {
        return items;
    }
    let message = format!("{} items; at most {max} are read", items.len());
    reader.refuse(list.line(), &list.path, message, "leave out some");
    Vec::new()
}

fn changeable(reader: &mut Reader, field: &Field<'_>) -> Option<HeaderName> {
    let text = reader.text(field)?;
    let name = header_name(reader, text, field)?;
    if may_change(&name) {
        return Some(name);
    }
    let remedy = "to change the host use URLRewrite; framing and mesh-* headers are set by the proxies alone";
    reader.expected(field, "a header that a route may change", remedy);
    None
}

fn header_value(reader: &mut Reader, field: &Field<'_>) -> Option<HeaderValue> {
    let text = bounded(reader, field)?;
    let value = HeaderValue::from_str(text).ok().filter(|_| text.is_ascii());
    if value.is_none() {
        reader.expected(field, "a header value in ASCII", "leave out other characters");
    }
    value
}

fn host(reader: &mut Reader, fields: &mut Fields<'_>) -> Option<Arc<str>> {
    let field = fields.optional("hostname")?;
    reader.name(&field, is_dns_name, "a host name without port and wildcard").map(Arc::from)
}

/// `path` of a rewrite or redirect.
fn path_change(reader: &mut Reader, field: &Field<'_>) -> Option<PathChange> {
    let mut fields = reader.fields(field);
    let full = fields
        .required(reader, "type")
        .and_then(|f| reader.choice(&f, &[("ReplaceFullPath", true), ("ReplacePrefixMatch", false)]));
    let Some(full) = full else {
        fields.ignore(&["replaceFullPath", "replacePrefixMatch"]);
        fields.finish(reader);
        return None;
    };
    let value = fields.required(reader, if full { "replaceFullPath" } else { "replacePrefixMatch" });
    fields.finish(reader);
    let value = value?;
    if !full && value.node.text() == Some("") {
        return Some(PathChange::Prefix("".into()));
    }
    let path = plain_path(reader, &value)?;
    if !PathChange::is_path(&path) {
        let remedy = "write other characters in percent-encoding, as in %20";
        reader.expected(&value, "a path of characters that requests may have (RFC 3986)", remedy);
        return None;
    }
    Some(if full { PathChange::Full(path.into()) } else { PathChange::Prefix(path.into()) })
}

fn rewrite(reader: &mut Reader, field: &Field<'_>) -> Option<Filter> {
    let mut fields = reader.fields(field);
    let host = host(reader, &mut fields);
    let path = fields.optional("path").and_then(|f| path_change(reader, &f));
    if fields.is_empty() {
        reader.refuse(field.line(), &field.path, "the filter changes nothing", "add hostname or path");
    }
    fields.finish(reader);
    Some(Filter::Rewrite { host, path })
}

fn redirect(reader: &mut Reader, field: &Field<'_>) -> Option<Filter> {
    let mut fields = reader.fields(field);
    let scheme = fields
        .optional("scheme")
        .and_then(|f| reader.choice(&f, &[("http", "http"), ("https", "https")]))
        .map(Arc::from);
    let host = host(reader, &mut fields);
    let path = fields.optional("path").and_then(|f| path_change(reader, &f));
    let port = fields.optional("port").and_then(|f| reader.port(&f));
    let mut status = StatusCode::FOUND;
    if let Some(field) = fields.optional("statusCode") {
        let code = reader.integer(&field, "a status of a redirect", 301, 308);
        let known = Redirect::STATUSES.into_iter().find(|status| Some(u32::from(*status)) == code);
        match known.and_then(|code| StatusCode::from_u16(code).ok()) {
            Some(known) => status = known,
            None if code.is_some() => {
                reader.expected(&field, "a status of a redirect", "write 301, 302, 303, 307 or 308");
            }
            None => {}
        }
    }
    fields.finish(reader);
    Some(Filter::Redirect(Redirect { scheme, host, port, path, status }))
}

fn mirror(reader: &mut Reader, field: &Field<'_>, metadata: &Metadata) -> Option<FilterAction> {
    let mut fields = reader.fields(field);
    let target = fields.required(reader, "backendRef").and_then(|item| {
        let mut fields = reader.fields(&item);
        let target = reference(reader, &mut fields, &item, metadata);
        fields.finish(reader);
        target
    });
    let share = share(reader, &mut fields);
    fields.finish(reader);
    let (service, port) = target?;
    Some(FilterAction::Mirror { service, port, share: share? })
}

fn cors(reader: &mut Reader, field: &Field<'_>) -> Cors {
    let mut fields = reader.fields(field);
    let mut cors = Cors { max_age: 5, ..Cors::default() };
    for item in optional_list(reader, &mut fields, "allowOrigins") {
        let Some(text) = reader.text(&item) else { continue };
        if Cors::is_origin(text) {
            cors.origins.push(text.into());
        } else {
            let remedy = "write * or scheme://host[:port] in lower case, as in https://*.example.com";
            reader.expected(&item, "an origin", remedy);
        }
    }
    cors.credentials =
        fields.optional("allowCredentials").and_then(|f| boolean(reader, &f)).unwrap_or_default();
    for item in optional_list(reader, &mut fields, "allowMethods") {
        match reader.text(&item) {
            Some("*") => cors.any_method = true,
            Some(text) => match Method::from_bytes(text.as_bytes()) {
                Ok(method) => cors.methods.push(method),
                Err(_) => reader.expected(&item, "a method", "write one, as in GET, or *"),
            },
            None => {}
        }
    }
    for item in optional_list(reader, &mut fields, "allowHeaders") {
        match reader.text(&item) {
            Some("*") => cors.any_header = true,
            Some(text) => cors.headers.extend(header_name(reader, text, &item)),
            None => {}
        }
    }
    for item in optional_list(reader, &mut fields, "exposeHeaders") {
        if let Some(text) = reader.text(&item) {
            cors.expose.extend(header_name(reader, text, &item));
        }
    }
    if let Some(field) = fields.optional("maxAge") {
        cors.max_age = reader.integer(&field, "seconds", 1, i32::MAX as u32).unwrap_or(cors.max_age);
    }
    fields.finish(reader);
    cors
}

fn optional_list<'a>(reader: &mut Reader, fields: &mut Fields<'a>, name: &'static str) -> Vec<Field<'a>> {
    fields.optional(name).map(|list| at_most(reader, &list, 64)).unwrap_or_default()
}

/// The mesh's own filter: a TrafficPolicy that says how to answer.
fn extension(reader: &mut Reader, field: &Field<'_>) -> Option<FilterAction> {
    let mut fields = reader.fields(field);
    fields.required(reader, "group").and_then(|f| reader.choice(&f, &[(API_GROUP, ())]));
    fields.required(reader, "kind").and_then(|f| reader.choice(&f, &[("TrafficPolicy", ())]));
    let name = fields.required(reader, "name");
    let name = name.and_then(|f| reader.name(&f, is_dns_name, "the name of a TrafficPolicy"));
    fields.finish(reader);
    Some(FilterAction::Respond(name?.into()))
}
