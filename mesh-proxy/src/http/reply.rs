//! Responses that the proxy makes itself: they say why.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use mesh_core::reason::Reason;

use super::{
    body::ResponseBody,
    exchange::Exchange,
    headers::{MESH_REASON, MESH_UNPROCESSED},
};

/// Whom a response goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Audience {
    /// The proxy's own application or a peer with a mesh identity: strangers are not told the mesh's reasons.
    pub trusted: bool,
    /// The request was gRPC, and wants its answer in that form.
    pub grpc: bool,
}

/// An answer by which the proxy refuses a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal<'a> {
    /// Why.
    pub reason: Reason,
    /// What to say instead of the reason's hint; empty: that.
    pub detail: &'a str,
    /// Another status than the reason's.
    pub status: Option<StatusCode>,
    /// Another status of gRPC than the reason's.
    pub grpc: Option<u16>,
    /// Seconds after which it is worth to ask again.
    pub retry_after: Option<u64>,
    /// The application never saw the request: the caller's proxy may send it elsewhere.
    pub unprocessed: bool,
}

impl Refusal<'_> {
    /// As the reason says.
    pub(crate) fn of(reason: Reason) -> Self {
        Self { reason, detail: "", status: None, grpc: None, retry_after: None, unprocessed: false }
    }

    /// Makes the response; the exchange is counted with it.
    pub(crate) fn respond(&self, mut exchange: Exchange, to: Audience) -> Response<ResponseBody> {
        exchange.because(self.reason);
        let mut response = if to.grpc { self.grpc(to) } else { self.plain(to) };
        let fields = response.headers_mut();
        if to.trusted {
            fields.insert(MESH_REASON, HeaderValue::from_static(self.reason.code()));
        }
        if to.trusted && self.unprocessed {
            fields.insert(MESH_UNPROCESSED, HeaderValue::from_static("1"));
        }
        if let Some(seconds) = self.retry_after {
            fields.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        exchange.head(response.status(), response.headers());
        response.map(|text| ResponseBody::text(text, exchange))
    }

    fn plain(&self, to: Audience) -> Response<Bytes> {
        let status = self.status.unwrap_or_else(|| self.reason.http_status());
        let text = match to.trusted {
            true => format!("{}: {}\n", self.reason.code(), sentence(self.reason, self.detail)),
            false => format!("{}\n", status.canonical_reason().unwrap_or("Refused")),
        };
        let mut response = Response::new(Bytes::from(text));
        *response.status_mut() = status;
        let length = HeaderValue::from(response.body().len());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().insert(CONTENT_LENGTH, length);
        response
    }

    /// Trailers-Only (gRPC over HTTP/2, "Responses"): the status travels in the headers, there is no body.
    fn grpc(&self, to: Audience) -> Response<Bytes> {
        let mapped = self.status.map(grpc_status_of);
        let status = self.grpc.or(mapped).unwrap_or_else(|| self.reason.grpc_status() as u16);
        let text = format!("{}: {}", self.reason.code(), sentence(self.reason, self.detail));
        trailers_only(status, if to.trusted { &text } else { "" })
    }
}

/// Makes the response to a request that `reason` ends, or that a fault of its own body did; the exchange is counted with
/// it.
pub(crate) fn refuse(
    exchange: Exchange,
    reason: Reason,
    detail: &str,
    to: Audience,
) -> Response<ResponseBody> {
    let reason = exchange.fault().unwrap_or(reason);
    Refusal { detail, ..Refusal::of(reason) }.respond(exchange, to)
}

/// Makes a response that is none of an error of the mesh's: what a route says. gRPC callers get its status as theirs.
pub(crate) fn give(
    mut exchange: Exchange,
    status: StatusCode,
    headers: HeaderMap,
    text: String,
    to: Audience,
) -> Response<ResponseBody> {
    let mut response = if to.grpc && !status.is_success() {
        trailers_only(grpc_status_of(status), &text)
    } else {
        let mut response = Response::new(Bytes::from(text));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    };
    if response.status() != StatusCode::NO_CONTENT {
        let length = HeaderValue::from(response.body().len());
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    exchange.head(response.status(), response.headers());
    response.map(|text| ResponseBody::text(text, exchange))
}

/// The trailers that end a gRPC response early.
pub(crate) fn trailers(reason: Reason) -> HeaderMap {
    let text = format!("{}: {}", reason.code(), reason.hint());
    trailers_only(reason.grpc_status() as u16, &text)
        .into_parts()
        .0
        .headers
        .into_iter()
        .filter_map(|(name, value)| Some((name?, value)))
        .filter(|(name, _)| name != CONTENT_TYPE)
        .collect()
}

fn trailers_only(status: u16, message: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(status));
    if !message.is_empty()
        && let Ok(value) = HeaderValue::try_from(percent_encode(message))
    {
        fields.insert(HeaderName::from_static("grpc-message"), value);
    }
    response
}

/// What a status of HTTP is in gRPC (grpc/doc/http-grpc-status-mapping.md).
fn grpc_status_of(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

fn sentence(reason: Reason, detail: &str) -> &str {
    if detail.is_empty() { reason.hint() } else { detail }
}

/// As gRPC wants `grpc-message`: printable ASCII except '%' as it is, the rest encoded.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..0x20 | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_to_friends_only() {
        let to = Audience { trusted: true, grpc: false };
        let unknown = Refusal { detail: "no Service \"nosuch\"", ..Refusal::of(Reason::UnknownDestination) };
        let text = unknown.plain(to).into_body();
        assert_eq!(text, "UNKNOWN_DESTINATION: no Service \"nosuch\"\n");
        let stranger = Refusal::of(Reason::TlsRequired).plain(Audience { trusted: false, grpc: false });
        assert_eq!(
            (stranger.status(), stranger.into_body().as_ref()),
            (StatusCode::FORBIDDEN, &b"Forbidden\n"[..])
        );
    }

    #[test]
    fn grpc_callers_get_trailers_only() {
        let denied = Refusal { detail: "50 % no\n", ..Refusal::of(Reason::AuthzDenied) };
        let response = denied.grpc(Audience { trusted: true, grpc: true });
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()["grpc-message"], "AUTHZ_DENIED: 50 %25 no%0A");
    }
}
