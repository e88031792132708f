//! What a route does to calls besides sending them somewhere.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode, header::HOST};
use mesh_core::{
    filter::{Cors, Filter, HeaderChanges, Mirror, PathChange, Redirect, Respond, may_change},
    name::is_dns_name,
};

use super::{
    At as _, ConvertError, MAX_TEXT_BYTES, Wire,
    bounded::{header_name, share, within},
    each, optional, port, required, text,
};
use crate::discovery::v1::{self as pb, filter, path_change};

/// Most filters of a rule or backend.
pub(super) const MAX_FILTERS: usize = 64;

impl Wire for Filter {
    type Message = pb::Filter;

    fn to_wire(&self) -> pb::Filter {
        let kind = match self {
            Self::RequestHeaders(changes) => filter::Kind::RequestHeaders(changes.to_wire()),
            Self::ResponseHeaders(changes) => filter::Kind::ResponseHeaders(changes.to_wire()),
            Self::Rewrite { host, path } => filter::Kind::Rewrite(pb::Rewrite {
                host: text_or_empty(host.as_ref()),
                path: path.as_ref().map(Wire::to_wire),
            }),
            Self::Redirect(redirect) => filter::Kind::Redirect(redirect.to_wire()),
            Self::Mirror(mirror) => filter::Kind::Mirror(mirror.to_wire()),
            Self::Cors(cors) => filter::Kind::Cors(cors.to_wire()),
            Self::Respond(respond) => filter::Kind::Respond(respond.to_wire()),
        };
        pb::Filter { kind: Some(kind) }
    }

    fn from_wire(message: &pb::Filter) -> Result<Self, ConvertError> {
        match message.kind.as_ref().ok_or_else(ConvertError::missing)? {
            filter::Kind::RequestHeaders(changes) => {
                HeaderChanges::from_wire(changes).map(Self::RequestHeaders).at("request_headers")
            }
            filter::Kind::ResponseHeaders(changes) => {
                HeaderChanges::from_wire(changes).map(Self::ResponseHeaders).at("response_headers")
            }
            filter::Kind::Rewrite(rewrite) => Ok(Self::Rewrite {
                host: host(&rewrite.host).at("rewrite")?,
                path: optional(rewrite.path.as_ref(), "path").at("rewrite")?,
            }),
            filter::Kind::Redirect(redirect) => {
                Redirect::from_wire(redirect).map(Self::Redirect).at("redirect")
            }
            filter::Kind::Mirror(mirror) => Mirror::from_wire(mirror).map(Self::Mirror).at("mirror"),
            filter::Kind::Cors(cors) => Cors::from_wire(cors).map(Self::Cors).at("cors"),
            filter::Kind::Respond(respond) => Respond::from_wire(respond).map(Self::Respond).at("respond"),
        }
    }
}

fn text_or_empty(value: Option<&Arc<str>>) -> String {
    value.map(|text| text.as_ref().to_owned()).unwrap_or_default()
}

/// A DNS name; empty stands for None.
fn host(value: &str) -> Result<Option<Arc<str>>, ConvertError> {
    match value {
        "" => Ok(None),
        name if is_dns_name(name) => Ok(Some(name.into())),
        other => Err(ConvertError::new(other, "a DNS name (RFC 1123)")).at("host"),
    }
}

impl Wire for HeaderChanges {
    type Message = pb::HeaderChanges;

    fn to_wire(&self) -> pb::HeaderChanges {
        let field = |(name, value): &(HeaderName, HeaderValue)| pb::HeaderField {
            name: name.as_str().into(),
            value: value.as_bytes().to_vec(),
        };
        pb::HeaderChanges {
            set: self.set.iter().map(field).collect(),
            add: self.add.iter().map(field).collect(),
            remove: self.remove.iter().map(|name| name.as_str().into()).collect(),
        }
    }

    fn from_wire(message: &pb::HeaderChanges) -> Result<Self, ConvertError> {
        let field = |field: &pb::HeaderField| {
            Ok((changeable(&field.name, "name")?, header_value(&field.value, "value")?))
        };
        // A host that is set is rewritten.
        let set = |message: &pb::HeaderField| {
            if message.name == HOST.as_str() {
                return Ok((HOST, header_value(&message.value, "value")?));
            }
            field(message)
        };
        Ok(Self {
            set: each(&message.set, "set", Self::MAX, set)?,
            add: each(&message.add, "add", Self::MAX, field)?,
            remove: each(&message.remove, "remove", Self::MAX, |name| changeable(name, ""))?,
        })
    }
}

fn changeable(name: &str, field: &str) -> Result<HeaderName, ConvertError> {
    let name = header_name(name, field)?;
    if may_change(&name) {
        return Ok(name);
    }
    let wanted = "a header that is neither Host, part of a message's framing, nor mesh-*";
    Err(ConvertError::new(name.as_str(), wanted)).at(field)
}

fn header_value(value: &[u8], field: &str) -> Result<HeaderValue, ConvertError> {
    let wanted = || ConvertError::new(value, format!("a header value of at most {MAX_TEXT_BYTES} bytes"));
    if value.len() > MAX_TEXT_BYTES {
        return Err(wanted()).at(field);
    }
    HeaderValue::from_bytes(value).map_err(|_| wanted()).at(field)
}

impl Wire for PathChange {
    type Message = pb::PathChange;

    fn to_wire(&self) -> pb::PathChange {
        let kind = match self {
            Self::Full(path) => path_change::Kind::Full(path.as_ref().into()),
            Self::Prefix(path) => path_change::Kind::Prefix(path.as_ref().into()),
        };
        pb::PathChange { kind: Some(kind) }
    }

    fn from_wire(message: &pb::PathChange) -> Result<Self, ConvertError> {
        let wanted = |path: &str| ConvertError::new(path, "a path that begins with '/', without query");
        match message.kind.as_ref().ok_or_else(ConvertError::missing)? {
            path_change::Kind::Full(path) if Self::is_path(text(path, "full")?) => {
                Ok(Self::Full(path.as_str().into()))
            }
            path_change::Kind::Full(path) => Err(wanted(path)).at("full"),
            path_change::Kind::Prefix(path) if path.is_empty() || Self::is_path(text(path, "prefix")?) => {
                Ok(Self::Prefix(path.as_str().into()))
            }
            path_change::Kind::Prefix(path) => Err(wanted(path)).at("prefix"),
        }
    }
}

impl Wire for Redirect {
    type Message = pb::Redirect;

    fn to_wire(&self) -> pb::Redirect {
        pb::Redirect {
            scheme: text_or_empty(self.scheme.as_ref()),
            host: text_or_empty(self.host.as_ref()),
            port: self.port.unwrap_or_default().into(),
            path: self.path.as_ref().map(Wire::to_wire),
            status: self.status.as_u16().into(),
        }
    }

    fn from_wire(message: &pb::Redirect) -> Result<Self, ConvertError> {
        let scheme = match message.scheme.as_str() {
            "" => None,
            scheme @ ("http" | "https") => Some(scheme.into()),
            other => return Err(ConvertError::new(other, "http, https or nothing")).at("scheme"),
        };
        let known = Self::STATUSES.into_iter().find(|status| u32::from(*status) == message.status);
        let status = known.and_then(|status| StatusCode::from_u16(status).ok());
        Ok(Self {
            scheme,
            host: host(&message.host)?,
            port: if message.port == 0 { None } else { Some(port(message.port, "port")?) },
            path: optional(message.path.as_ref(), "path")?,
            status: status
                .ok_or_else(|| ConvertError::new(message.status, "301, 302, 303, 307 or 308"))
                .at("status")?,
        })
    }
}

impl Wire for Mirror {
    type Message = pb::Mirror;

    fn to_wire(&self) -> pb::Mirror {
        pb::Mirror {
            service: Some(self.service.to_wire()),
            share_ppm: self.share.parts_per_million(),
            settings: self.settings.as_deref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: &pb::Mirror) -> Result<Self, ConvertError> {
        Ok(Self {
            service: required(message.service.as_ref(), "service")?,
            share: share(message.share_ppm, "share_ppm")?,
            settings: optional(message.settings.as_ref(), "settings")?.map(Arc::new),
        })
    }
}

impl Wire for Cors {
    type Message = pb::Cors;

    fn to_wire(&self) -> pb::Cors {
        let names = |list: &[HeaderName]| list.iter().map(|name| name.as_str().to_owned()).collect();
        pb::Cors {
            origins: self.origins.iter().map(|origin| origin.as_ref().into()).collect(),
            credentials: self.credentials,
            methods: self.methods.iter().map(|method| method.as_str().into()).collect(),
            any_method: self.any_method,
            headers: names(&self.headers),
            any_header: self.any_header,
            expose: names(&self.expose),
            max_age: self.max_age,
        }
    }

    fn from_wire(message: &pb::Cors) -> Result<Self, ConvertError> {
        let names = |list: &[String], field| each(list, field, Self::MAX, |name| header_name(name, ""));
        Ok(Self {
            origins: each(&message.origins, "origins", Self::MAX, |origin| {
                if Self::is_origin(text(origin, "")?) {
                    return Ok(origin.as_str().into());
                }
                Err(ConvertError::new(origin, "\"*\" or scheme://host[:port]"))
            })?,
            credentials: message.credentials,
            methods: each(&message.methods, "methods", Self::MAX, |method| {
                Method::from_bytes(method.as_bytes())
                    .map_err(|_| ConvertError::new(method, "a method (RFC 9110 section 9.1)"))
            })?,
            any_method: message.any_method,
            headers: names(&message.headers, "headers")?,
            any_header: message.any_header,
            expose: names(&message.expose, "expose")?,
            max_age: message.max_age,
        })
    }
}

impl Wire for Respond {
    type Message = pb::Respond;

    fn to_wire(&self) -> pb::Respond {
        pb::Respond {
            status: self.status.as_u16().into(),
            body: self.body.as_ref().into(),
            content_type: self.content_type.as_ref().map(|v| v.as_bytes().to_vec()).unwrap_or_default(),
        }
    }

    fn from_wire(message: &pb::Respond) -> Result<Self, ConvertError> {
        let status = within(message.status, 200..=599, "status")?;
        if message.body.len() > Self::MAX_BODY {
            let length = format!("{} bytes", message.body.len());
            return Err(ConvertError::new(length, format!("at most {} bytes", Self::MAX_BODY))).at("body");
        }
        let content_type = match message.content_type.as_slice() {
            [] => None,
            value => Some(header_value(value, "content_type")?),
        };
        Ok(Self {
            status: u16::try_from(status)
                .ok()
                .and_then(|status| StatusCode::from_u16(status).ok())
                .ok_or_else(|| ConvertError::new(status, "a status"))
                .at("status")?,
            body: message.body.as_str().into(),
            content_type,
        })
    }
}
