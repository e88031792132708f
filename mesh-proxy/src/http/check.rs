//! Heads that two readers could read differently are refused before anything else looks at them. What the parsers
//! below refuse by themselves is not repeated here.

use http::{
    HeaderMap, Method, Request, Uri, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    uri::Scheme,
};
use mesh_core::reason::Reason;

/// Checks target, host and framing of a request, as it came.
///
/// # Errors
/// [`Reason::BadRequest`].
pub(crate) fn head<B>(request: &Request<B>) -> Result<(), Reason> {
    let headers = request.headers();
    let good = match request.version() {
        Version::HTTP_2 => has_one_length(headers),
        _ => is_only_chunked(headers),
    };
    let host = headers.get(HOST).is_none_or(|host| is_host(host.as_bytes()));
    let target = match *request.method() == Method::CONNECT {
        true => is_tunnel(request.uri(), headers),
        false => is_target(request.method(), request.uri()),
    };
    match good && host && target {
        true => Ok(()),
        false => Err(Reason::BadRequest),
    }
}

/// CONNECT names a host and a port, and has no body: what comes behind it is for the other end of the tunnel (RFC 9110
/// section 9.3.6).
fn is_tunnel(uri: &Uri, headers: &HeaderMap) -> bool {
    let authority = uri.authority().filter(|authority| is_host(authority.as_str().as_bytes()));
    authority.is_some_and(|authority| {
        !authority.host().is_empty() && authority.port_u16().is_some_and(|port| port > 0)
    }) && uri.scheme().is_none()
        && uri.path().is_empty()
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
}

/// `chunked` alone, once: what else frames a message is not undone here, and would be lost on the way (RFC 9112 section
/// 6.1).
fn is_only_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(first) = codings.next() else { return true };
    first.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none()
}

/// No length, or one that is a number: an HTTP/1 server further on would read a list in its own way.
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return true };
    lengths.next().is_none() && !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit)
}

/// The form of the target is one that the method may have (RFC 9112 section 3.2).
fn is_target(method: &Method, uri: &Uri) -> bool {
    if let Some(authority) = uri.authority()
        && !is_host(authority.as_str().as_bytes())
    {
        return false;
    }
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(_)) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {}
        (None, None) => {}
        _ => return false,
    }
    uri.path() != "*" || method == Method::OPTIONS
}

/// A host with or without a port, and nothing that some reader could take for a user, a list or a path: a name of
/// letters, digits, `-`, `.`, `_` and `~`, or an address in brackets. The empty host is somebody else's to refuse.
pub(super) fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text.iter().rposition(|&b| b == b':' || b == b']') {
        Some(at) if text.get(at) == Some(&b':') => (text.get(..at), text.get(at + 1..)),
        _ => (Some(text), None),
    };
    let host = host.unwrap_or_default();
    let name = match host.strip_prefix(b"[").map(|rest| rest.strip_suffix(b"]")) {
        Some(Some(address)) => {
            address.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'.' | b'%' | b'-'))
        }
        Some(None) => false,
        None => host.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')),
    };
    name && port.is_none_or(|port| port.len() <= 5 && port.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(method: &str, uri: &str, version: Version, fields: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method).uri(uri).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        head(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn targets_have_the_form_that_the_method_allows() {
        for (method, uri, good) in [
            ("GET", "/a?b", true),
            ("GET", "http://catalog/a", true),
            ("GET", "https://catalog:80/a", true),
            ("GET", "ftp://catalog/a", false),
            ("GET", "http://evil@catalog/a", false),
            ("GET", "catalog:80", false),
            ("GET", "*", false),
            ("OPTIONS", "*", true),
            ("CONNECT", "catalog:80", true),
            ("CONNECT", "[::1]:80", true),
            ("CONNECT", "evil@catalog:80", false),
            ("CONNECT", "catalog", false),
            ("CONNECT", "catalog:", false),
            ("CONNECT", "catalog:0", false),
            ("CONNECT", "catalog:65536", false),
            ("CONNECT", "http://catalog:80", false),
            ("CONNECT", "http://catalog:80/a", false),
            ("CONNECT", "/a", false),
            ("CONNECT", "*", false),
        ] {
            assert_eq!(check(method, uri, Version::HTTP_11, &[]), good, "{method} {uri}");
        }
        for field in [("content-length", "0"), ("content-length", "5"), ("transfer-encoding", "chunked")] {
            assert!(!check("CONNECT", "catalog:80", Version::HTTP_11, &[field]), "{field:?}");
        }
    }

    #[test]
    fn hosts_are_hosts() {
        for host in
            ["catalog", "catalog:80", "a_b.c~d-e:", "127.0.0.1:80", "[::1]", "[fe80::1%25eth0]:80", ""]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a,b", "a@b", "a/b", "a?b", "a#b", "a b", "a:80:90", "a:x", "a:123456", "a\\b", "[::1", "::1]",
            "[::1]x", "[a/b]", "é", "a%2fb", "a\"b", "a:+1",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn framing_is_one_thing() {
        let te = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| ("transfer-encoding", *value)).collect();
            check("POST", "/", Version::HTTP_11, &fields)
        };
        assert!(te(&[]) && te(&["chunked"]) && te(&["Chunked"]));
        for bad in
            [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked", "chunked"], &["chunked,"], &[""]]
        {
            assert!(!te(bad), "{bad:?}");
        }
        let length = |values: &[&str]| {
            let fields: Vec<_> = values.iter().map(|value| ("content-length", *value)).collect();
            check("POST", "http://a/", Version::HTTP_2, &fields)
        };
        assert!(length(&[]) && length(&["5"]));
        for bad in [&["5", "5"][..], &["5, 5"], &["+5"], &[""], &["5 "]] {
            assert!(!length(bad), "{bad:?}");
        }
    }

    proptest! {
        /// What passes is read alike by the URI parser, with nothing before the host.
        #[test]
        fn what_passes_is_an_authority(text in "[a-z0-9:@/%,.\\[\\]\\\\ -]{1,24}") {
            if is_host(text.as_bytes()) {
                prop_assert!(!text.contains(['@', '/', '\\', ',', ' ']));
                if let Ok(authority) = text.parse::<http::uri::Authority>() {
                    let port = authority.port().map_or(String::new(), |port| format!(":{port}"));
                    let read = format!("{}{port}", authority.host());
                    prop_assert!(read == text || format!("{read}:") == text, "{} {}", text, read);
                }
            }
        }
    }
}
