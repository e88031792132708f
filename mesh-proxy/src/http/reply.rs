//! Responses that the proxy makes itself: they say why.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use mesh_core::reason::Reason;

use super::{body::ResponseBody, exchange::Exchange, headers::MESH_REASON};

/// Whom a response goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Audience {
    /// The proxy's own application or a peer with a mesh identity: strangers are not told the mesh's reasons.
    pub trusted: bool,
    /// The request was gRPC, and wants its answer in that form.
    pub grpc: bool,
}

/// Makes the response to a request that `reason` ends, or that a fault of its own body did; the exchange is counted with
/// it.
pub(crate) fn refuse(
    mut exchange: Exchange,
    reason: Reason,
    detail: &str,
    to: Audience,
) -> Response<ResponseBody> {
    let reason = exchange.fault().unwrap_or(reason);
    exchange.because(reason);
    let mut response = if to.grpc { grpc(reason, detail, to) } else { plain(reason, detail, to) };
    if to.trusted {
        response.headers_mut().insert(MESH_REASON, HeaderValue::from_static(reason.code()));
    }
    exchange.head(response.status(), response.headers());
    response.map(|text| ResponseBody::text(text, exchange))
}

fn plain(reason: Reason, detail: &str, to: Audience) -> Response<Bytes> {
    let status = reason.http_status();
    let text = match to.trusted {
        true => format!("{}: {}\n", reason.code(), sentence(reason, detail)),
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
fn grpc(reason: Reason, detail: &str, to: Audience) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::OK;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(HeaderName::from_static("grpc-status"), HeaderValue::from(reason.grpc_status() as u16));
    if to.trusted {
        let message = percent_encode(&format!("{}: {}", reason.code(), sentence(reason, detail)));
        if let Ok(value) = HeaderValue::try_from(message) {
            fields.insert(HeaderName::from_static("grpc-message"), value);
        }
    }
    response
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
        let text = plain(Reason::UnknownDestination, "no Service \"nosuch\"", to).into_body();
        assert_eq!(text, "UNKNOWN_DESTINATION: no Service \"nosuch\"\n");
        let stranger = plain(Reason::TlsRequired, "", Audience { trusted: false, grpc: false });
        assert_eq!(
            (stranger.status(), stranger.into_body().as_ref()),
            (StatusCode::FORBIDDEN, &b"Forbidden\n"[..])
        );
    }

    #[test]
    fn grpc_callers_get_trailers_only() {
        let response = grpc(Reason::AuthzDenied, "50 % no\n", Audience { trusted: true, grpc: true });
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "7");
        assert_eq!(response.headers()["grpc-message"], "AUTHZ_DENIED: 50 %25 no%0A");
    }
}
