//! Properties of the domain's own texts: names, paths, conditions, timeouts.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
    time::Duration,
};

use http::{HeaderMap, Method};
use mesh_core::{
    filter::{Cors, PathChange, Redirect, Redirected},
    identity::{SpiffeId, TrustDomain},
    matching::{PathMatch, Pattern, RequestMatch, RequestParts, ValueMatch},
    name::{Host, ServicePort, WorkloadRef, is_dns_name},
    path::{loosest, normalise},
    resilience::deadline::{format_grpc, format_mesh, parse_grpc, parse_mesh},
    resource::ResourceName,
};

/// What is read is written in a form that is read as the same.
fn travels<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value = text.parse::<T>().ok()?;
    let again = value.to_string().parse::<T>().ok();
    assert!(again.as_ref() == Some(&value), "{text:?} is {value:?}, then {again:?}");
    Some(value)
}

/// Names travel; identities have one form; a host names a Service of one name and namespace or none.
pub(crate) fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    travels::<WorkloadRef>(text);
    travels::<ServicePort>(text);
    travels::<ResourceName>(text);
    travels::<TrustDomain>(text);
    if let Some(id) = travels::<SpiffeId>(text) {
        assert_eq!(id.as_str(), text, "an identity has one form");
        assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
        assert!(id.path().starts_with('/') && !id.path().contains("//") && !id.path().contains("/../"));
        if let (Some((namespace, account)), Ok(domain)) =
            (id.namespace_and_account(), id.trust_domain().parse())
        {
            assert_eq!(SpiffeId::service_account(&domain, namespace, account).as_ref(), Ok(&id));
        }
    }
    if let Some(host) = travels::<Host>(text) {
        assert!(is_dns_name(&host.name) && host.port != Some(0));
        if let Some((namespace, service)) = host.service("shop", "cluster.local") {
            assert!(!service.contains('.') && !namespace.contains('.'), "{host}");
            let full = Host { name: format!("{service}.{namespace}.svc.cluster.local").into(), port: None };
            assert_eq!(full.service("other", "cluster.local"), Some((namespace, service)), "{host}");
        }
    }
    if Cors::is_origin(text) {
        assert!(!text.contains([' ', ',', '\r', '\n']), "{text:?} cannot stand in a field");
    }
}

/// Names, identities and hosts.
pub(crate) fn name_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "shop/cart",
        "shop/cart:8080",
        "endpoints/shop/cart:80",
        "destination/host/catalog.shop.svc.cluster.local:80",
        "destination/addr/[::1]:80",
        "trust-bundle",
        "spiffe://cluster.local/ns/shop/sa/cart",
        "catalog.shop.svc",
        "Catalog.:80",
        "https://*.example.org:8443",
    ])
}

/// A normal path stays as it is, has no two readings, and is what every laxer reading begins from.
pub(crate) fn paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if PathChange::is_path(text) {
        assert!(text.starts_with('/') && !text.contains(['?', '#', ' ', '\r', '\n']));
        for change in [PathChange::Full(text.into()), PathChange::Prefix(text.into())] {
            let changed = change.apply("/a/b", "/a");
            assert!(PathChange::is_path(&changed), "{text:?} gives {changed:?}");
        }
    }
    let Ok(path) = normalise(text) else { return };
    assert_eq!(normalise(&path).as_deref(), Ok(&*path), "from {text:?}");
    if path == "*" {
        return;
    }
    assert!(path.starts_with('/') && path.is_ascii(), "{path:?}");
    assert!(
        !path.contains("//") && !path.contains('\\') && !path.bytes().any(|byte| byte.is_ascii_control())
    );
    assert!(!path.split('/').any(|segment| matches!(segment, "." | "..")), "{path:?}");
    let lower = path.to_ascii_lowercase();
    assert!(!["%2f", "%5c", "%2e", "%25", "%00"].iter().any(|hidden| lower.contains(hidden)), "{path:?}");
    let loose = loosest(&path);
    assert!(loose.starts_with('/') && !loose.contains("//"), "{path:?} is {loose:?}");
    assert_eq!(loosest(&loose), loose, "from {path:?}");
    assert!(!loose.split('/').any(|segment| matches!(segment, "." | "..")), "{path:?} is {loose:?}");
    // The longest way round is the same path.
    let detour = format!("/x/..//.{path}");
    assert_eq!(normalise(&detour).as_deref(), Ok(&*path), "{detour:?}");
}

/// Paths as those who seek a way round write them.
pub(crate) fn path_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "/a/b",
        "/a//b/./c/../d/",
        "/%61%2e%2E/b",
        "/a%2fb",
        "/a;x=1/..;/b",
        "/a%20/.%20",
        "/%c0%af",
        "/é/%E9",
        "/a%3Bb/c%3f%23",
        "/A./b.. .",
        "*",
    ])
}

/// Conditions: what matches, matches in the reading of a lax server too; a redirect leads where it says.
pub(crate) fn matching(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (source, path, value, authority) = (next(), next(), next(), next());
    let path = normalise(path).unwrap_or_default();
    let mut conditions = vec![PathMatch::Exact(source.to_owned()), PathMatch::Prefix(source.to_owned())];
    if source.len() < 200
        && let Ok(whole) = Pattern::whole(source)
    {
        let Ok(start) = Pattern::start(source) else { return };
        for text in [&*path, value] {
            assert!(!whole.matches(text) || start.matches(text), "{source:?} {text:?}");
            assert!(!whole.matches(text) || whole.matches_in_any_case(text), "{source:?} {text:?}");
        }
        conditions.extend([PathMatch::Regex(whole), PathMatch::Regex(start)]);
    }
    let headers = HeaderMap::new();
    let named = Some(authority).filter(|authority| !authority.is_empty());
    let request = RequestParts {
        method: &Method::GET,
        path: &path,
        query: Some(value),
        headers: &headers,
        authority: named,
    };
    for condition in conditions {
        assert!(!condition.matches(&path) || condition.may_match(&path), "{condition:?} {path:?}");
        let condition = RequestMatch { path: Some(condition), ..RequestMatch::default() };
        assert!(!condition.matches(&request) || condition.may_match(&request));
        assert!(
            !condition.is_any() || condition.matches(&request) || !path.starts_with('/'),
            "{condition:?}"
        );
    }
    let hosts = vec![ValueMatch::Exact(authority.to_ascii_lowercase())];
    let by_host = RequestMatch { hosts, ..RequestMatch::default() };
    if authority.parse::<Host>().is_ok_and(|host| host.port.is_none()) && !authority.contains(':') {
        assert!(by_host.matches(&request), "{authority:?}");
    }
    let redirect = Redirect {
        scheme: None,
        host: None,
        port: None,
        path: PathChange::is_path(source).then(|| PathChange::Prefix(source.into())),
        status: http::StatusCode::FOUND,
    };
    let at = Redirected { scheme: "http", authority, path: &path, query: None, prefix: value };
    let possible = path.parse::<http::uri::PathAndQuery>().is_ok_and(|read| read.query().is_none());
    if authority.parse::<Host>().is_ok() && path.starts_with('/') && possible {
        let location = redirect.location(&at);
        let uri = location.parse::<http::Uri>();
        assert!(uri.is_ok_and(|uri| uri.host().is_some()), "{location:?}");
    }
}

/// A condition, a path, a query, a host.
pub(crate) fn matching_seeds() -> Vec<Vec<u8>> {
    texts(&[
        "/a/b\n/a/b/c\nx=1&y\ncatalog:80",
        "/a/.*|/b\n/A;x/b.\n\nCatalog.shop",
        "(?i)/a[^/]+\n/ab\na=b\n[::1]:80",
        "/\n/a%20/\n/a\na.b:0",
    ])
}

/// A timeout that is read is written as no more than it, and as no less than what its unit can say.
pub(crate) fn timeouts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(time) = parse_grpc(text) {
        let again = parse_grpc(&format_grpc(time));
        assert!(
            again.is_some_and(|again| again <= time && time - again <= time / 1000),
            "{text:?} {again:?}"
        );
    }
    if let Some(time) = parse_mesh(text) {
        let again = parse_mesh(&format_mesh(time).to_string());
        assert_eq!(again, Some(time.max(Duration::from_millis(1))));
    }
    // At most 73 years: more is no timeout.
    let left = data.first_chunk().map(|bytes| Duration::from_nanos(u64::from_be_bytes(*bytes) >> 3));
    if let Some(left) = left {
        let written = format_grpc(left);
        assert!(written.len() <= 9 && parse_grpc(&written).is_some_and(|read| read <= left), "{written}");
    }
}

/// Timeouts of each unit.
pub(crate) fn timeout_seeds() -> Vec<Vec<u8>> {
    texts(&["1H", "99999999M", "10S", "500m", "1u", "99999999n", "0m", "30000", "18446744073709551615"])
}

fn texts(all: &[&str]) -> Vec<Vec<u8>> {
    all.iter().map(|text| text.as_bytes().to_vec()).collect()
}
