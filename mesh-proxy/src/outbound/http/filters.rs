//! What a route's filters do to requests and responses.

use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION, ORIGIN},
};
use mesh_core::{
    filter::{Filter, Redirect, Redirected, Respond, is_preflight, matched_prefix},
    reason::Reason,
    route::RouteRule,
};

use crate::http::{
    authority,
    body::ResponseBody,
    exchange::Exchange,
    reply::{self, Audience},
};

/// An answer that a filter gives in place of a backend.
pub(super) struct Given {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

/// A request after its filters, for those that change the response.
#[derive(Default)]
pub(super) struct Filtered {
    /// Where a browser says that it comes from.
    origin: Option<HeaderValue>,
}

/// Applies `filters` of `rule` to a request. Some: one of them answers.
///
/// # Errors
/// Why the changed request cannot be sent.
pub(super) fn request<B>(
    rule: &RouteRule,
    filters: &[Filter],
    request: &mut Request<B>,
    filtered: &mut Filtered,
) -> Result<Option<Given>, Reason> {
    // What the rule matched, before a filter changes it.
    let prefix = matched_prefix(&rule.matches, request.uri().path());
    for filter in filters {
        match filter {
            Filter::RequestHeaders(changes) => {
                changes.apply(request.headers_mut());
                if let Some(host) = changes.host() {
                    authority::set_host(request, host.to_str().map_err(|_| Reason::BackendInvalid)?)?;
                }
            }
            Filter::Rewrite { host, path } => {
                if let Some(path) = path {
                    let path = path.apply(request.uri().path(), prefix);
                    authority::set_path(request.uri_mut(), &path)?;
                }
                if let Some(host) = host {
                    authority::set_host(request, host)?;
                }
            }
            Filter::Redirect(redirect) => return Ok(Some(Given::redirect(redirect, request, prefix)?)),
            Filter::Respond(respond) => return Ok(Some(Given::respond(respond))),
            Filter::Cors(cors) => {
                if is_preflight(request.method(), request.headers()) {
                    let headers = cors.preflight(request.headers());
                    return Ok(Some(Given { status: StatusCode::NO_CONTENT, headers, text: String::new() }));
                }
                filtered.origin = request.headers().get(ORIGIN).cloned();
            }
            // Once it is known that the request is sent at all.
            Filter::Mirror(_) | Filter::ResponseHeaders(_) => {}
        }
    }
    Ok(None)
}

/// Applies `filters` to a response.
pub(super) fn response(filters: &[Filter], filtered: &Filtered, headers: &mut HeaderMap) {
    for filter in filters {
        match filter {
            Filter::ResponseHeaders(changes) => changes.apply(headers),
            Filter::Cors(cors) => {
                if let Some(origin) = &filtered.origin
                    && cors.allows(origin)
                {
                    cors.respond(origin, headers);
                }
            }
            Filter::RequestHeaders(_)
            | Filter::Rewrite { .. }
            | Filter::Redirect(_)
            | Filter::Mirror(_)
            | Filter::Respond(_) => {}
        }
    }
}

impl Given {
    fn redirect<B>(redirect: &Redirect, request: &Request<B>, prefix: &str) -> Result<Self, Reason> {
        let location = redirect.location(&Redirected {
            // What comes here is never encrypted.
            scheme: "http",
            authority: authority::named(request.uri(), request.headers()).unwrap_or_default(),
            path: request.uri().path(),
            query: request.uri().query(),
            prefix,
        });
        let location = HeaderValue::try_from(location).map_err(|_| Reason::BackendInvalid)?;
        let headers = HeaderMap::from_iter([(LOCATION, location)]);
        Ok(Self { status: redirect.status, headers, text: String::new() })
    }

    fn respond(respond: &Respond) -> Self {
        let plain = || HeaderValue::from_static("text/plain; charset=utf-8");
        let kind = respond.content_type.clone().unwrap_or_else(plain);
        let headers = match respond.body.is_empty() {
            true => HeaderMap::new(),
            false => HeaderMap::from_iter([(CONTENT_TYPE, kind)]),
        };
        Self { status: respond.status, headers, text: respond.body.to_string() }
    }

    /// The response.
    pub(super) fn into_response(self, exchange: Exchange, to: Audience) -> Response<ResponseBody> {
        reply::give(exchange, self.status, self.headers, self.text, to)
    }
}
