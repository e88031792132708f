//! Conditions on requests, as HTTPRoute and HTTPRouteGroup write them.

use http::{HeaderName, Method};
use mesh_core::{
    matching::{PathMatch, Pattern, RequestMatch, ValueMatch},
    path::normalise,
};

use crate::parse::{
    reader::{Field, Fields, Reader},
    tree::Value,
};

/// Longest value of a condition, in bytes (Gateway API allows 4096 for header values, 1024 for paths).
const MAX_VALUE: usize = 4096;

/// Most conditions on headers, and on query parameters, of one match (Gateway API allows 16).
const MAX_FIELDS: usize = 64;

const METHODS: [(&str, &Method); 9] = [
    ("GET", &Method::GET),
    ("HEAD", &Method::HEAD),
    ("POST", &Method::POST),
    ("PUT", &Method::PUT),
    ("DELETE", &Method::DELETE),
    ("CONNECT", &Method::CONNECT),
    ("OPTIONS", &Method::OPTIONS),
    ("TRACE", &Method::TRACE),
    ("PATCH", &Method::PATCH),
];

#[derive(Clone, Copy)]
enum PathKind {
    Exact,
    Prefix,
    Regex,
}

/// One HTTPRouteMatch (Gateway API).
pub(crate) fn route_match(reader: &mut Reader, item: &Field<'_>) -> RequestMatch {
    let mut fields = reader.fields(item);
    let path = fields.optional("path").and_then(|f| path(reader, &f));
    let methods =
        fields.optional("method").and_then(|f| reader.choice(&f, &METHODS)).cloned().into_iter().collect();
    let mut found = RequestMatch { path, methods, ..RequestMatch::default() };
    headers(reader, &mut fields, &mut found);
    if let Some(list) = fields.optional("queryParams") {
        for item in few(reader, &list) {
            let Some((name, value, line)) = named_value(reader, &item) else { continue };
            if name.is_empty() {
                let message = "a query parameter without name";
                reader.refuse(line, &format!("{}.name", item.path), message, "write its name");
            }
            if found.query.iter().any(|(n, _)| *n == name) {
                let message = format!("query parameter {name:?} is there twice");
                reader.refuse(line, &item.path, message, "keep one of them");
            }
            found.query.push((name, value));
        }
    }
    fields.finish(reader);
    found
}

fn headers(reader: &mut Reader, fields: &mut Fields<'_>, found: &mut RequestMatch) {
    let Some(list) = fields.optional("headers") else { return };
    for item in few(reader, &list) {
        let Some((name, value, line)) = named_value(reader, &item) else { continue };
        let Some(name) = header_name(reader, &name, &item) else { continue };
        if found.headers.iter().any(|(n, _)| *n == name) {
            let message = format!("header {name} is there twice");
            reader.refuse(line, &item.path, message, "keep one of them");
        }
        found.headers.push((name, value));
    }
}

/// One GRPCRouteMatch (Gateway API): service and method are the two segments of the path.
pub(crate) fn grpc_match(reader: &mut Reader, item: &Field<'_>) -> RequestMatch {
    let mut fields = reader.fields(item);
    let path = fields.optional("method").and_then(|f| grpc_method(reader, &f));
    let mut found = RequestMatch { path, ..RequestMatch::default() };
    headers(reader, &mut fields, &mut found);
    fields.finish(reader);
    found
}

fn grpc_method(reader: &mut Reader, field: &Field<'_>) -> Option<PathMatch> {
    let mut fields = reader.fields(field);
    let is_regex = fields
        .optional("type")
        .map_or(Some(false), |f| reader.choice(&f, &[("Exact", false), ("RegularExpression", true)]));
    let service_field = fields.optional("service");
    let method_field = fields.optional("method");
    fields.finish(reader);
    let is_regex = is_regex?;
    if service_field.is_none() && method_field.is_none() {
        let message = "neither service nor method is there";
        reader.refuse(field.line(), &field.path, message, "write one of them, or remove the condition");
        return None;
    }
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let mut part = |field: Option<&Field<'_>>| {
        let Some(field) = field else { return Some(None) };
        if is_regex {
            // Compiled alone, so that a stray ")" cannot join the two.
            return Some(Some(pattern(reader, field, Pattern::whole)?.source().to_owned()));
        }
        let text = bounded(reader, field)?;
        if is_name(text) {
            return Some(Some(text.to_owned()));
        }
        reader.expected(field, "the name of a gRPC service or method", "write it as in package.Service");
        None
    };
    let (service, method) = (part(service_field.as_ref()), part(method_field.as_ref()));
    let (service, method) = (service?, method?);
    match (service, method) {
        (Some(service), Some(method)) if !is_regex => Some(PathMatch::Exact(format!("/{service}/{method}"))),
        (Some(service), None) if !is_regex => Some(PathMatch::Prefix(format!("/{service}"))),
        (service, method) => {
            let any = || "[^/]+".to_owned();
            let literal =
                |text: String| if is_regex { format!("(?:{text})") } else { text.replace('.', "\\.") };
            let source =
                format!("/{}/{}", service.map_or_else(any, literal), method.map_or_else(any, literal));
            match Pattern::whole(&source) {
                Ok(pattern) => Some(PathMatch::Regex(pattern)),
                Err(error) => {
                    reader.refuse(field.line(), &field.path, error.to_string(), "write a shorter pattern");
                    None
                }
            }
        }
    }
}

fn few<'a>(reader: &mut Reader, list: &Field<'a>) -> Vec<Field<'a>> {
    let items = reader.list(list);
    if items.len() <= MAX_FIELDS {
        return items;
    }
    let message = format!("{} conditions; at most {MAX_FIELDS} are read", items.len());
    reader.refuse(list.line(), &list.path, message, "leave out some");
    Vec::new()
}

fn path(reader: &mut Reader, field: &Field<'_>) -> Option<PathMatch> {
    const KINDS: [(&str, PathKind); 3] = [
        ("Exact", PathKind::Exact),
        ("PathPrefix", PathKind::Prefix),
        ("RegularExpression", PathKind::Regex),
    ];
    let mut fields = reader.fields(field);
    let kind = fields.optional("type").map_or(Some(PathKind::Prefix), |f| reader.choice(&f, &KINDS));
    let value = fields.optional("value");
    fields.finish(reader);
    let Some(value) = value else {
        return match kind? {
            PathKind::Prefix => None,
            PathKind::Exact => Some(PathMatch::Exact("/".to_owned())),
            PathKind::Regex => {
                reader.refuse(
                    field.line(),
                    &format!("{}.value", field.path),
                    "the field is missing",
                    "add \"value:\"",
                );
                None
            }
        };
    };
    match kind? {
        PathKind::Exact => plain_path(reader, &value).map(PathMatch::Exact),
        PathKind::Prefix => plain_path(reader, &value).map(PathMatch::Prefix),
        PathKind::Regex => pattern(reader, &value, Pattern::whole).map(PathMatch::Regex),
    }
}

/// A path in the form in which requests are compared: another form could never match.
pub(crate) fn plain_path(reader: &mut Reader, field: &Field<'_>) -> Option<String> {
    let text = reader.text(field)?;
    let is_bad = |c: char| matches!(c, '?' | '#') || c.is_control();
    if text.len() > MAX_VALUE || !text.starts_with('/') || text.contains(is_bad) {
        reader.expected(
            field,
            "a path",
            "begin it with \"/\", and leave out query, fragment and control characters",
        );
        return None;
    }
    match normalise(text) {
        Ok(normal) if normal == text => Some(text.to_owned()),
        Ok(normal) => {
            let remedy = format!("requests are compared in normal form: write {normal:?}");
            reader.expected(field, "a path in normal form", remedy);
            None
        }
        Err(_) => {
            reader.expected(
                field,
                "a path that can be read in one way only",
                "leave out %2F, \"\\\" and \"..\"",
            );
            None
        }
    }
}

/// `name`, `type` and `value` of a header or query condition.
fn named_value(reader: &mut Reader, item: &Field<'_>) -> Option<(String, ValueMatch, u32)> {
    let mut fields = reader.fields(item);
    let is_regex = fields
        .optional("type")
        .map_or(Some(false), |f| reader.choice(&f, &[("Exact", false), ("RegularExpression", true)]));
    let name = fields.required(reader, "name").and_then(|f| bounded(reader, &f));
    let value = fields.required(reader, "value");
    fields.finish(reader);
    let value = value?;
    let value = if is_regex? {
        ValueMatch::Regex(pattern(reader, &value, Pattern::whole)?)
    } else {
        ValueMatch::Exact(bounded(reader, &value)?.to_owned())
    };
    Some((name?.to_owned(), value, item.line()))
}

pub(crate) fn bounded<'a>(reader: &mut Reader, field: &Field<'a>) -> Option<&'a str> {
    let text = reader.text(field)?;
    if text.len() > MAX_VALUE {
        reader.expected(field, &format!("a value of at most {MAX_VALUE} bytes"), "shorten it");
        return None;
    }
    if text.chars().any(char::is_control) {
        reader.expected(field, "text without control characters", "leave them out: no request can match");
        return None;
    }
    Some(text)
}

pub(crate) fn header_name(reader: &mut Reader, name: &str, field: &Field<'_>) -> Option<HeaderName> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    if parsed.is_none() {
        let message = format!("{name:?} is not the name of a header");
        reader.refuse(field.line(), &field.path, message, "use letters, digits and '-'");
    }
    parsed
}

fn pattern(
    reader: &mut Reader,
    field: &Field<'_>,
    compile: fn(&str) -> Result<Pattern, mesh_core::matching::PatternError>,
) -> Option<Pattern> {
    let text = reader.text(field)?;
    if !reader.count_pattern(field) {
        return None;
    }
    match compile(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let message = format!("{}: {error}", field.node.value);
            let remedy = "write it in the syntax of Rust's regex crate: no look-around, no back-references";
            reader.refuse(field.line(), &field.path, message, remedy);
            None
        }
    }
}

/// One match of an HTTPRouteGroup (SMI specs v1alpha4), with its name.
pub(crate) fn group_match(reader: &mut Reader, item: &Field<'_>) -> Option<(String, RequestMatch)> {
    let mut fields = reader.fields(item);
    let name = fields.required(reader, "name").and_then(|f| reader.text(&f));
    let path = fields.optional("pathRegex").and_then(|f| pattern(reader, &f, Pattern::start));
    let mut found = RequestMatch { path: path.map(PathMatch::Regex), ..RequestMatch::default() };
    if let Some(list) = fields.optional("methods") {
        let mut all = false;
        for item in reader.list(&list) {
            if item.node.text() == Some("*") {
                all = true;
            } else {
                found.methods.extend(reader.choice(&item, &METHODS).cloned());
            }
        }
        if all {
            found.methods.clear();
        }
    }
    if let Some(headers) = fields.optional("headers") {
        // The specification's text shows one mapping, its published schema a list of mappings.
        let maps = match &headers.node.value {
            Value::List(_) => reader.list(&headers),
            _ => vec![headers],
        };
        for map in &maps {
            for (name, value) in reader.entries(map) {
                let Some(name) = header_name(reader, name, &value) else { continue };
                if let Some(pattern) = pattern(reader, &value, Pattern::whole) {
                    found.headers.push((name, ValueMatch::Regex(pattern)));
                }
            }
        }
    }
    fields.finish(reader);
    Some((name?.to_owned(), found))
}
