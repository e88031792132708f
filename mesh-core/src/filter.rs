//! What a route does to calls besides sending them somewhere (Gateway API HTTPRouteFilter, and direct responses).

mod cors;
mod headers;
mod path;
mod redirect;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, StatusCode};

pub use self::{cors::is_preflight, headers::may_change, path::matched_prefix, redirect::Redirected};
use crate::{
    name::{Host, ServicePort},
    settings::{BackendSettings, Share},
};

/// One filter. Filters of a rule apply in the order in which they stand, then those of the chosen backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Changes the header fields of the request.
    RequestHeaders(HeaderChanges),
    /// Changes the header fields of the response.
    ResponseHeaders(HeaderChanges),
    /// Changes host and path of the request.
    Rewrite {
        /// The new host; None: as it is.
        host: Option<Arc<str>>,
        /// The new path; None: as it is.
        path: Option<PathChange>,
    },
    /// Answers with a redirect; no backend is called.
    Redirect(Redirect),
    /// Sends a copy of a share of the requests elsewhere; its answer is dropped.
    Mirror(Mirror),
    /// Cross-origin resource sharing (Fetch standard, section 3.3).
    Cors(Cors),
    /// Answers by itself; no backend is called.
    Respond(Respond),
}

/// Changes of header fields; in the order set, add, remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Fields that get this value alone.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Values that are appended.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Fields that are removed.
    pub remove: Vec<HeaderName>,
}

impl HeaderChanges {
    /// Most changes of one kind.
    pub const MAX: usize = 64;
}

/// A change of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// The whole path becomes this.
    Full(Arc<str>),
    /// The prefix that the rule matched becomes this.
    Prefix(Arc<str>),
}

impl PathChange {
    /// True for what can stand in a request as its path: begins with '/', has neither query nor fragment, and only
    /// characters of RFC 3986 section 3.3.
    #[must_use]
    pub fn is_path(text: &str) -> bool {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
        let escaped = |rest: &str| rest.bytes().take_while(u8::is_ascii_hexdigit).count() >= 2;
        text.starts_with('/') && text.bytes().all(allowed) && text.split('%').skip(1).all(escaped)
    }
}

/// A redirect; None: as in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Arc<str>>,
    /// The host.
    pub host: Option<Arc<str>>,
    /// The port. None: the scheme's well-known port where `scheme` is set, the request's otherwise.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathChange>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

impl Redirect {
    /// Statuses that a redirect may have.
    pub const STATUSES: [u16; 5] = [301, 302, 303, 307, 308];
}

/// Where copies of requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The Service port whose endpoints take them.
    pub service: ServicePort,
    /// The share of the requests that is copied.
    pub share: Share,
    /// How copies are spread over its endpoints; None: the defaults.
    pub settings: Option<Arc<BackendSettings>>,
}

/// Cross-origin resource sharing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins that may call: `*`, `scheme://host[:port]`, or with `*` as the first label(s) of the host.
    pub origins: Vec<Arc<str>>,
    /// Whether credentials may be sent.
    pub credentials: bool,
    /// Methods; empty with `any_method` false: none but the simple ones.
    pub methods: Vec<Method>,
    /// True: any method.
    pub any_method: bool,
    /// Header fields that callers may send.
    pub headers: Vec<HeaderName>,
    /// True: any header field.
    pub any_header: bool,
    /// Header fields of the response that scripts may see.
    pub expose: Vec<HeaderName>,
    /// How long a preflight's answer holds, in seconds.
    pub max_age: u32,
}

impl Cors {
    /// Longest list.
    pub const MAX: usize = 256;

    /// True for what may stand in [`Cors::origins`].
    #[must_use]
    pub fn is_origin(text: &str) -> bool {
        if text == "*" {
            return true;
        }
        let Some((scheme, rest)) = text.split_once("://") else { return false };
        let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
        let rest = rest.strip_prefix("*.").unwrap_or(rest);
        let host_fits = |host: Host| host.to_string() == rest;
        scheme_fits && rest.parse().is_ok_and(host_fits)
    }
}

/// An answer of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// Its status, 200 to 599.
    pub status: StatusCode,
    /// Its body, at most [`Respond::MAX_BODY`] bytes of text.
    pub body: Arc<str>,
    /// Its content type; None: `text/plain; charset=utf-8`.
    pub content_type: Option<HeaderValue>,
}

impl Respond {
    /// Longest body, in bytes.
    pub const MAX_BODY: usize = 16 * 1024;
}
