//! Who may read: the holder of the token, and no web page.
//!
//! A page in a browser can reach loopback by a name of its own that resolves to 127.0.0.1 (DNS rebinding). It cannot
//! hide that name, nor its Origin, nor does it know the token.

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use http::{HeaderMap, Uri, header, uri::Authority};
use tonic::Status;

/// Checks calls of the view API.
pub(super) struct Guard {
    token: digest::Digest,
}

impl Guard {
    pub(super) fn new(token: &str) -> Self {
        Self { token: hash(token.as_bytes()) }
    }

    /// Whether a call is looked at.
    pub(super) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Status> {
        let from_header = headers.get(header::HOST).map(|host| host.as_bytes().try_into());
        let from_header: Option<Authority> =
            from_header.transpose().map_err(|_| Status::permission_denied("the Host header is malformed"))?;
        let mut named = uri.authority().into_iter().chain(&from_header).peekable();
        if named.peek().is_none() || !named.all(is_loopback) {
            return Err(Status::permission_denied(
                "the view API answers only calls to localhost or a loopback address",
            ));
        }
        if headers.contains_key(header::ORIGIN) {
            return Err(Status::permission_denied("the view API does not answer web pages"));
        }
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let token = given.and_then(|value| value.strip_prefix(b"Bearer ")).ok_or_else(|| {
            Status::unauthenticated("the view API needs a token: send \"authorization: Bearer TOKEN\" with the content of DATA-DIR/view-token")
        })?;
        verify_slices_are_equal(hash(token).as_ref(), self.token.as_ref()).map_err(|_| {
            Status::unauthenticated("the token is wrong: it is the content of DATA-DIR/view-token")
        })
    }
}

fn hash(token: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, token)
}

fn is_loopback(authority: &Authority) -> bool {
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    !authority.as_str().contains('@')
        && (host.eq_ignore_ascii_case("localhost")
            || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tokens_holder_at_a_loopback_name_may_read() {
        let guard = Guard::new("secret");
        let check = |authority: &str, headers: &[(&str, &str)], ok: bool| {
            let uri: Uri = if authority.is_empty() {
                "/x".parse().unwrap()
            } else {
                format!("http://{authority}/x").parse().unwrap()
            };
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
            }
            assert_eq!(guard.check(&uri, &map).is_ok(), ok, "{authority} {headers:?}");
        };
        let token = ("authorization", "Bearer secret");
        check("127.0.0.1:15080", &[token], true);
        check("127.9.9.9", &[token], true);
        check("[::1]:15080", &[token], true);
        check("LocalHost:1", &[token], true);
        check("", &[token, ("host", "localhost")], true);

        check("", &[token], false);
        check("rebound.example:15080", &[token], false);
        check("127.0.0.1.example", &[token], false);
        check("localhost@rebound.example", &[token], false);
        check("10.0.0.1", &[token], false);
        check("127.0.0.1", &[token, ("host", "rebound.example")], false);
        check("127.0.0.1", &[token, ("origin", "http://localhost")], false);
        for wrong in ["Bearer secre", "Bearer secrets", "bearer secret", "secret", "Basic secret", ""] {
            check("127.0.0.1", &[("authorization", wrong)], false);
        }
        check("127.0.0.1", &[], false);
    }
}
