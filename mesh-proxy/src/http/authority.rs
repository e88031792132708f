//! Which host a request names, and how its head is written for the next connection.

use std::net::SocketAddr;

use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version,
    header::{COOKIE, HOST},
    uri::{Authority, PathAndQuery, Scheme},
};
use mesh_core::{matching::RequestParts, path, reason::Reason};

use super::headers::{only_host, strip_upgrade};
use crate::pool::Wire;

/// The host as it was written: the target's own authority (absolute-form, authority-form, `:authority`), else the `host`
/// field. That of CONNECT may leave the port out (RFC 9112 section 3.2.3).
///
/// # Errors
/// [`Reason::BadRequest`] when there is none, when there are several, or when both exist and differ (RFC 9112 section
/// 3.2, RFC 9113 section 8.3.1).
pub(crate) fn host<B>(request: &Request<B>) -> Result<&str, Reason> {
    let field = only_host(request.headers()).map_err(|()| Reason::BadRequest)?;
    let field = field.map(|value| value.to_str().map_err(|_| Reason::BadRequest)).transpose()?;
    let same = |target: &Authority, field: &str| {
        target.as_str().eq_ignore_ascii_case(field)
            || (request.method() == Method::CONNECT && target.host().eq_ignore_ascii_case(field))
    };
    match (request.uri().authority(), field) {
        (Some(target), Some(field)) if !same(target, field) => Err(Reason::BadRequest),
        (Some(target), _) => Ok(target.as_str()),
        (None, Some(field)) if !field.is_empty() => Ok(field),
        (None, _) => Err(Reason::BadRequest),
    }
}

/// True for a request without any host, which only HTTP/1.0 allows.
pub(crate) fn is_hostless<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_10
        && request.uri().authority().is_none()
        && !request.headers().contains_key(HOST)
}

/// Names the address that a request without a host goes to: what is forwarded is newer, and must have one.
pub(crate) fn name_host<B>(request: &mut Request<B>, address: SocketAddr) {
    if let Ok(host) = HeaderValue::try_from(address.to_string()) {
        request.headers_mut().insert(HOST, host);
    }
}

/// The authority that a request names, for rules to match; it was found to be unambiguous before.
pub(crate) fn named<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    uri.authority().map(Authority::as_str).or_else(|| headers.get(HOST).and_then(|value| value.to_str().ok()))
}

/// What rules match on.
pub(crate) fn parts<'a>(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> RequestParts<'a> {
    RequestParts { method, path: uri.path(), query: uri.query(), headers, authority: named(uri, headers) }
}

/// Writes the path in the one reading that everybody shares, so that what rules see is what is forwarded.
///
/// # Errors
/// [`Reason::PathAmbiguous`].
pub(crate) fn normalise_path(uri: &mut Uri) -> Result<(), Reason> {
    let path = path::normalise(uri.path()).map_err(|_| Reason::PathAmbiguous)?;
    if path == uri.path() {
        return Ok(());
    }
    let path = path.into_owned();
    set_path(uri, &path)
}

/// A copy of a request's head.
pub(crate) fn copy_head<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    head.method_mut().clone_from(request.method());
    head.uri_mut().clone_from(request.uri());
    *head.version_mut() = request.version();
    head.headers_mut().clone_from(request.headers());
    head
}

/// Replaces the path, keeps the query.
pub(crate) fn set_path(uri: &mut Uri, path: &str) -> Result<(), Reason> {
    let text = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).map_err(|_| Reason::PathAmbiguous)?);
    *uri = Uri::from_parts(parts).map_err(|_| Reason::BadRequest)?;
    Ok(())
}

/// Replaces the host, wherever the request names it.
///
/// # Errors
/// [`Reason::BackendInvalid`] when it is none.
pub(crate) fn set_host<B>(request: &mut Request<B>, host: &str) -> Result<(), Reason> {
    let invalid = Reason::BackendInvalid;
    if request.headers().contains_key(HOST) || request.uri().authority().is_none() {
        request.headers_mut().insert(HOST, HeaderValue::from_str(host).map_err(|_| invalid)?);
    }
    if request.uri().authority().is_some() {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.authority = Some(Authority::try_from(host).map_err(|_| invalid)?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| invalid)?;
    }
    Ok(())
}

/// Writes the head for a connection that speaks `wire`.
///
/// # Errors
/// [`Reason::BadRequest`] when the host cannot be written there, [`Reason::Unsupported`] for CONNECT over HTTP/2.
pub(crate) fn write_for<B>(request: &mut Request<B>, wire: Wire) -> Result<(), Reason> {
    let came_as = request.version();
    match wire {
        _ if request.method() == Method::CONNECT => to_authority_form(request, wire),
        Wire::H1 if came_as == Version::HTTP_2 => {
            join_cookies(request);
            to_origin_form(request)
        }
        Wire::H1 => to_origin_form(request),
        Wire::H2 => to_http2(request),
        Wire::H1OverH2 if request.uri().authority().is_some() && came_as == Version::HTTP_2 => Ok(()),
        // Relative target and `host` travel as they are; the other side writes them to HTTP/1 again.
        Wire::H1OverH2 => to_origin_form(request),
    }
}

fn to_origin_form<B>(request: &mut Request<B>) -> Result<(), Reason> {
    *request.version_mut() = Version::HTTP_11;
    let Some(authority) = request.uri().authority() else { return Ok(()) };
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::BadRequest)?;
    request.headers_mut().insert(HOST, host);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    (parts.scheme, parts.authority) = (None, None);
    // Also for one that was only a fragment, which the parser keeps as nothing.
    if parts.path_and_query.as_ref().is_none_or(|path| path.as_str() == "/") {
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Reason::BadRequest)?;
    Ok(())
}

/// The target of CONNECT stays what it is.
fn to_authority_form<B>(request: &mut Request<B>, wire: Wire) -> Result<(), Reason> {
    if wire != Wire::H1 {
        return Err(Reason::Unsupported);
    }
    *request.version_mut() = Version::HTTP_11;
    // A filter may have named one without a port.
    let target = request.uri().authority().filter(|target| target.port().is_some());
    let target = target.ok_or(Reason::BadRequest)?;
    let host = HeaderValue::from_str(target.as_str()).map_err(|_| Reason::BadRequest)?;
    request.headers_mut().insert(HOST, host);
    Ok(())
}

fn to_http2<B>(request: &mut Request<B>) -> Result<(), Reason> {
    if request.version() == Version::HTTP_2 && request.uri().authority().is_some() {
        return Ok(());
    }
    *request.version_mut() = Version::HTTP_2;
    strip_upgrade(request.headers_mut());
    let host = request.headers_mut().remove(HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    if parts.authority.is_none() {
        let host = host.ok_or(Reason::BadRequest)?;
        parts.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| Reason::BadRequest)?);
    }
    parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Reason::BadRequest)?;
    Ok(())
}

/// HTTP/2 may split cookies into several fields, HTTP/1 may not (RFC 9113 section 8.2.3).
fn join_cookies<B>(request: &mut Request<B>) {
    let mut all = request.headers().get_all(COOKIE).iter();
    if all.next().is_none() || all.next().is_none() {
        return;
    }
    let parts: Vec<&[u8]> = request.headers().get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        request.headers_mut().insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(uri: &str, version: Version, host: &[&str]) -> Request<()> {
        let mut request = Request::builder().uri(uri).version(version);
        for value in host {
            request = request.header(HOST, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn the_target_wins_and_conflicts_are_refused() {
        let check = |uri: &str, fields: &[&str], expected: Result<&str, Reason>| {
            assert_eq!(host(&request(uri, Version::HTTP_11, fields)), expected, "{uri} {fields:?}");
        };
        check("/a", &["catalog:8080"], Ok("catalog:8080"));
        check("http://catalog/a", &[], Ok("catalog"));
        check("http://catalog/a", &["Catalog"], Ok("catalog"));
        check("http://catalog/a", &["cart"], Err(Reason::BadRequest));
        check("/a", &["catalog", "cart"], Err(Reason::BadRequest));
        check("/a", &[], Err(Reason::BadRequest));
        check("/a", &[""], Err(Reason::BadRequest));
    }

    #[test]
    fn heads_are_written_for_the_next_connection() {
        let mut absolute = request("http://catalog:80/a?b=1", Version::HTTP_11, &["catalog:80"]);
        write_for(&mut absolute, Wire::H1).unwrap();
        assert_eq!(absolute.uri(), "/a?b=1");
        assert_eq!(&absolute.headers()[HOST], "catalog:80");

        let mut upward = request("/a?b=1", Version::HTTP_11, &["catalog"]);
        write_for(&mut upward, Wire::H2).unwrap();
        assert_eq!(upward.uri(), "http://catalog/a?b=1");
        assert!(upward.headers().get(HOST).is_none());

        let mut downward = request("http://catalog/a", Version::HTTP_2, &[]);
        downward.headers_mut().append(COOKIE, HeaderValue::from_static("a=1"));
        downward.headers_mut().append(COOKIE, HeaderValue::from_static("b=2"));
        write_for(&mut downward, Wire::H1).unwrap();
        assert_eq!(downward.uri(), "/a");
        assert_eq!(&downward.headers()[COOKIE], "a=1; b=2");
        assert_eq!(&downward.headers()[HOST], "catalog");
    }

    #[test]
    fn a_host_is_replaced_wherever_it_stands() {
        let mut relative = request("/a", Version::HTTP_11, &["old:80"]);
        set_host(&mut relative, "new").unwrap();
        assert_eq!(host(&relative), Ok("new"));
        let mut absolute = request("http://old/a?b=1", Version::HTTP_11, &["old"]);
        set_host(&mut absolute, "new:81").unwrap();
        assert_eq!(absolute.uri(), "http://new:81/a?b=1");
        assert_eq!(host(&absolute), Ok("new:81"));
        let mut newer = request("http://old/a", Version::HTTP_2, &[]);
        set_host(&mut newer, "new").unwrap();
        assert!(newer.uri() == "http://new/a" && newer.headers().is_empty());
        assert_eq!(set_host(&mut newer, "no host"), Err(Reason::BackendInvalid));
    }

    #[test]
    fn the_query_survives_a_new_path() {
        let mut uri: Uri = "http://catalog/a/../b?c=%2e".parse().unwrap();
        normalise_path(&mut uri).unwrap();
        assert_eq!(uri, "http://catalog/b?c=%2e");
        assert_eq!(normalise_path(&mut "/a%2fb".parse().unwrap()), Err(Reason::PathAmbiguous));
    }

    proptest! {
        /// A head that is admitted names one host, and names the same one however it is written on.
        #[test]
        fn the_host_survives_every_way_to_write_it(
            scheme in prop_oneof![Just(""), Just("http://"), Just("https://"), Just("ftp://")],
            target in "(catalog|cart|a@b|\\[::1\\])(:80|:|:x)?",
            path in "(/|\\?|#|;|%2e|\\*|a|\\.\\.){0,6}",
            fields in proptest::collection::vec("(catalog|cart|a@b|a,b|\\[::1\\])?(:80|:)?", 0..3),
            version in prop_oneof![Just(Version::HTTP_11), Just(Version::HTTP_2)],
        ) {
            let uri = if scheme.is_empty() { format!("/{path}") } else { format!("{scheme}{target}{path}") };
            let Ok(uri) = uri.parse::<Uri>() else { return Ok(()) };
            let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
            let head = || request(&uri.to_string(), version, &fields);
            let named = head();
            let (Ok(()), Ok(named)) = (super::super::check::head(&named), host(&named)) else { return Ok(()) };
            prop_assert!(!named.contains(['@', ',', '/', ' ']) && !named.is_empty());
            let mut old = head();
            write_for(&mut old, Wire::H1).unwrap();
            prop_assert_eq!(old.headers().get_all(HOST).iter().count(), 1);
            prop_assert_eq!(old.headers()[HOST].to_str().unwrap().to_ascii_lowercase(), named.to_ascii_lowercase());
            prop_assert!(old.uri().to_string().starts_with('/') && old.version() == Version::HTTP_11, "{:?}", old);
            let mut new = head();
            if write_for(&mut new, Wire::H2).is_ok() {
                prop_assert_eq!(new.uri().authority().unwrap().as_str().to_ascii_lowercase(), named.to_ascii_lowercase());
                prop_assert!(new.uri().scheme().is_some() && new.uri().path().starts_with('/'), "{:?}", new);
            }
        }
    }
}
