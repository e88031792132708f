//! Conditions on requests.

use http::Method;
use mesh_core::matching::{PathMatch, Pattern, PatternError, RequestMatch, ValueMatch};

use super::{At as _, ConvertError, MAX_ITEMS, Wire, bounded::header_name, each, text};
use crate::common::v1::{self as pb, field_match, path_match, value_match};

impl Wire for RequestMatch {
    type Message = pb::RequestMatch;

    fn to_wire(&self) -> pb::RequestMatch {
        pb::RequestMatch {
            path: self.path.as_ref().map(Wire::to_wire),
            methods: self.methods.iter().map(|method| method.as_str().to_owned()).collect(),
            headers: self.headers.iter().map(|(name, value)| field_to_wire(name.as_str(), value)).collect(),
            query: self.query.iter().map(|(name, value)| field_to_wire(name, value)).collect(),
            hosts: super::to_list(&self.hosts),
        }
    }

    fn from_wire(message: &pb::RequestMatch) -> Result<Self, ConvertError> {
        Ok(Self {
            path: super::optional(message.path.as_ref(), "path")?,
            methods: each(&message.methods, "methods", MAX_ITEMS, |method| {
                let method = text(method, "")?;
                Method::from_bytes(method.as_bytes())
                    .map_err(|_| ConvertError::new(method, "a method (RFC 9110 section 9.1)"))
            })?,
            headers: each(&message.headers, "headers", MAX_ITEMS, |field| {
                Ok((header_name(&field.name, "name")?, value_from_wire(field)?))
            })?,
            query: each(&message.query, "query", MAX_ITEMS, |field| {
                let name = text(&field.name, "name")?;
                if name.is_empty() {
                    return Err(ConvertError::new(name, "the name of a query parameter")).at("name");
                }
                Ok((name.to_owned(), value_from_wire(field)?))
            })?,
            hosts: super::list(&message.hosts, "hosts")?,
        })
    }
}

impl Wire for PathMatch {
    type Message = pb::PathMatch;

    fn to_wire(&self) -> pb::PathMatch {
        let kind = match self {
            Self::Exact(path) => path_match::Kind::Exact(path.clone()),
            Self::Prefix(path) => path_match::Kind::Prefix(path.clone()),
            Self::Regex(pattern) if pattern.is_whole() => path_match::Kind::Regex(pattern.source().into()),
            Self::Regex(pattern) => path_match::Kind::RegexStart(pattern.source().into()),
        };
        pb::PathMatch { kind: Some(kind) }
    }

    fn from_wire(message: &pb::PathMatch) -> Result<Self, ConvertError> {
        Ok(match message.kind.as_ref().ok_or_else(ConvertError::missing)? {
            path_match::Kind::Exact(path) => Self::Exact(text(path, "exact")?.into()),
            path_match::Kind::Prefix(path) => Self::Prefix(text(path, "prefix")?.into()),
            path_match::Kind::Regex(source) => Self::Regex(pattern(source, "regex", Pattern::whole)?),
            path_match::Kind::RegexStart(source) => {
                Self::Regex(pattern(source, "regex_start", Pattern::start)?)
            }
        })
    }
}

impl Wire for ValueMatch {
    type Message = pb::ValueMatch;

    fn to_wire(&self) -> pb::ValueMatch {
        let kind = match self {
            Self::Exact(exact) => value_match::Kind::Exact(exact.clone()),
            Self::Regex(pattern) => value_match::Kind::Regex(pattern.source().into()),
        };
        pb::ValueMatch { kind: Some(kind) }
    }

    fn from_wire(message: &pb::ValueMatch) -> Result<Self, ConvertError> {
        Ok(match message.kind.as_ref().ok_or_else(ConvertError::missing)? {
            value_match::Kind::Exact(exact) => Self::Exact(text(exact, "exact")?.into()),
            value_match::Kind::Regex(source) => Self::Regex(pattern(source, "regex", Pattern::whole)?),
        })
    }
}

fn field_to_wire(name: &str, value: &ValueMatch) -> pb::FieldMatch {
    let kind = match value {
        ValueMatch::Exact(exact) => field_match::Kind::Exact(exact.clone()),
        ValueMatch::Regex(pattern) => field_match::Kind::Regex(pattern.source().into()),
    };
    pb::FieldMatch { name: name.into(), kind: Some(kind) }
}

fn value_from_wire(message: &pb::FieldMatch) -> Result<ValueMatch, ConvertError> {
    Ok(match message.kind.as_ref().ok_or_else(ConvertError::missing)? {
        field_match::Kind::Exact(exact) => ValueMatch::Exact(text(exact, "exact")?.into()),
        field_match::Kind::Regex(source) => ValueMatch::Regex(pattern(source, "regex", Pattern::whole)?),
    })
}

fn pattern(
    source: &str,
    field: &str,
    compile: fn(&str) -> Result<Pattern, PatternError>,
) -> Result<Pattern, ConvertError> {
    compile(source).map_err(|error| ConvertError::new(source, error.to_string())).at(field)
}
