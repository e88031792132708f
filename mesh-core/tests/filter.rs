//! What filters do to heads.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use mesh_core::{
    filter::{Cors, HeaderChanges, PathChange, Redirect, Redirected, is_preflight, matched_prefix},
    matching::{PathMatch, RequestMatch},
};
use proptest::prelude::*;

fn name(text: &str) -> HeaderName {
    text.parse().unwrap()
}

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    fields.iter().map(|(n, v)| (name(n), v.parse().unwrap())).collect()
}

fn values(fields: &[(&str, &str)]) -> Vec<(HeaderName, HeaderValue)> {
    fields.iter().map(|(n, v)| (name(n), v.parse().unwrap())).collect()
}

#[test]
fn fields_are_set_added_and_removed_in_this_order() {
    let changes = HeaderChanges {
        set: values(&[("x-set", "1"), ("x-both", "set")]),
        add: values(&[("x-both", "added"), ("x-gone", "2")]),
        remove: vec![name("x-gone"), name("x-old")],
    };
    let mut headers = map(&[("x-set", "0"), ("x-set", "00"), ("x-old", "1"), ("x-kept", "1")]);
    changes.apply(&mut headers);
    assert_eq!(headers, map(&[("x-set", "1"), ("x-both", "set"), ("x-both", "added"), ("x-kept", "1")]));
}

#[test]
fn what_frames_a_message_or_is_the_meshs_stays() {
    let protected = [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "mesh-client-id",
        "mesh-reason",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    for field in protected {
        let changes = HeaderChanges {
            set: values(&[(field, "set")]),
            add: values(&[(field, "added")]),
            remove: vec![name(field)],
        };
        let before = map(&[(field, "own")]);
        let mut headers = before.clone();
        changes.apply(&mut headers);
        assert_eq!(headers, before, "{field}");
        assert_eq!(changes.host().is_some(), field == "host");
    }
}

#[test]
fn prefixes_are_replaced_by_segments() {
    // The table of Gateway API HTTPPathModifier, and what it leaves out.
    for (path, prefix, replacement, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/foo", "/foo/", "/xyz/", "/xyz/"),
        ("/foo", "/", "/xyz", "/xyz/foo"),
        ("/", "/", "/xyz", "/xyz/"),
        ("/foobar", "/foo", "/xyz", "/xyz/foobar"),
        ("/foo/bar", "/foo", "xyz", "/xyz/bar"),
    ] {
        let change = PathChange::Prefix(replacement.into());
        assert_eq!(change.apply(path, prefix), expected, "{path} {prefix} {replacement}");
    }
    assert_eq!(PathChange::Full("/new".into()).apply("/foo/bar", "/foo"), "/new");
    assert_eq!(PathChange::Full("".into()).apply("/foo/bar", "/foo"), "/");
}

#[test]
fn the_prefix_is_the_longest_that_the_path_has() {
    let prefix =
        |text: &str| RequestMatch { path: Some(PathMatch::Prefix(text.into())), ..RequestMatch::default() };
    let matches = [prefix("/a"), prefix("/a/b"), prefix("/c"), RequestMatch::default()];
    assert_eq!(matched_prefix(&matches, "/a/b/c"), "/a/b");
    assert_eq!(matched_prefix(&matches, "/a/bc"), "/a");
    assert_eq!(matched_prefix(&matches, "/d"), "/");
}

proptest! {
    #[test]
    fn a_new_path_begins_as_told_and_keeps_the_rest(
        prefix in "(/[a-c]{1,3}){0,3}/?",
        rest in "(/[a-c]{1,3}){0,3}/?",
        replacement in "(/?[x-z]{1,3}){0,3}/?",
    ) {
        let path = format!("{}{rest}", prefix.trim_end_matches('/'));
        let path = if path.is_empty() { "/".to_owned() } else { path };
        let prefix = if prefix.is_empty() { "/" } else { &prefix };
        let new = PathChange::Prefix(replacement.as_str().into()).apply(&path, prefix);
        prop_assert!(new.starts_with('/'));
        prop_assert!(new.trim_start_matches('/').starts_with(replacement.trim_matches('/')));
        prop_assert!(new.ends_with(rest.as_str()));
        prop_assert!(!new.contains("//"), "{new}");
    }
}

fn redirect(scheme: &str, host: &str, port: u16, path: Option<PathChange>) -> Redirect {
    let text = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    Redirect {
        scheme: text(scheme),
        host: text(host),
        port: (port > 0).then_some(port),
        path,
        status: StatusCode::FOUND,
    }
}

#[test]
fn redirects_keep_what_they_do_not_change() {
    let prefix = || Some(PathChange::Prefix("/new".into()));
    for (authority, redirect, expected) in [
        ("cart", redirect("", "", 0, None), "http://cart/old/a?b=1"),
        ("cart:8080", redirect("", "", 0, None), "http://cart:8080/old/a?b=1"),
        ("cart:8080", redirect("", "shop", 0, None), "http://shop:8080/old/a?b=1"),
        ("cart:8080", redirect("https", "", 0, None), "https://cart/old/a?b=1"),
        ("cart:8080", redirect("http", "", 0, None), "http://cart/old/a?b=1"),
        ("cart:8080", redirect("https", "", 8443, None), "https://cart:8443/old/a?b=1"),
        ("cart:8080", redirect("https", "", 443, None), "https://cart/old/a?b=1"),
        ("cart", redirect("", "", 80, None), "http://cart/old/a?b=1"),
        ("[::1]:8080", redirect("", "", 0, prefix()), "http://[::1]:8080/new/a?b=1"),
        ("[::1]", redirect("", "", 81, None), "http://[::1]:81/old/a?b=1"),
    ] {
        let prefix = "/old";
        let request = Redirected { scheme: "http", authority, path: "/old/a", query: Some("b=1"), prefix };
        assert_eq!(redirect.location(&request), expected);
    }
}

fn cors(origins: &[&str], credentials: bool) -> Cors {
    Cors {
        origins: origins.iter().map(|o| Arc::from(*o)).collect(),
        credentials,
        methods: vec![Method::PUT, Method::DELETE],
        headers: vec![name("x-token")],
        expose: vec![name("x-total")],
        max_age: 600,
        ..Cors::default()
    }
}

#[test]
fn origins_are_compared_whole_or_by_their_last_labels() {
    for (pattern, origin, allowed) in [
        ("*", "https://any.example", true),
        ("https://shop.example", "https://shop.example", true),
        ("https://shop.example", "https://SHOP.example", true),
        ("https://shop.example", "http://shop.example", false),
        ("https://shop.example", "https://shop.example:8443", false),
        ("https://*.shop.example", "https://a.shop.example", true),
        ("https://*.shop.example", "https://a.b.shop.example", true),
        ("https://*.shop.example", "https://shop.example", false),
        ("https://*.shop.example", "https://evilshop.example", false),
        ("https://*.shop.example", "https://evil.example/.shop.example", false),
        ("https://*.shop.example", "https://evil.example#.shop.example", false),
        ("https://*.shop.example:8443", "https://a.shop.example:8443", true),
        ("https://*.shop.example", "https://a.shop.example:8443", false),
        ("https://*", "https://any.example", false),
        ("https://shop.example", "null", false),
    ] {
        let request = map(&[("origin", origin)]);
        assert_eq!(cors(&[pattern], false).allowed(&request).is_some(), allowed, "{pattern} {origin}");
    }
    assert_eq!(cors(&["*"], false).allowed(&HeaderMap::new()), None);
}

#[test]
fn preflights_are_answered() {
    let asked = map(&[
        ("origin", "https://a.example"),
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "x-a, x-b"),
    ]);
    assert!(is_preflight(&Method::OPTIONS, &asked));
    assert!(!is_preflight(&Method::GET, &asked));
    assert!(!is_preflight(&Method::OPTIONS, &map(&[("origin", "https://a.example")])));

    let listed = cors(&["https://a.example"], false).preflight(&asked);
    let expected = [
        ("access-control-allow-origin", "https://a.example"),
        ("vary", "origin"),
        ("access-control-allow-methods", "PUT, DELETE"),
        ("access-control-allow-headers", "x-token"),
        ("access-control-max-age", "600"),
    ];
    assert_eq!(listed, map(&expected));

    let any = |credentials| Cors { any_method: true, any_header: true, ..cors(&["*"], credentials) };
    let without = any(false).preflight(&asked);
    assert_eq!(without["access-control-allow-origin"], "*");
    assert_eq!(without["access-control-allow-methods"], "*");
    assert_eq!(without["access-control-allow-headers"], "*");
    let with = any(true).preflight(&asked);
    assert_eq!(with["access-control-allow-origin"], "https://a.example", "never * with credentials");
    assert_eq!(with["access-control-allow-credentials"], "true");
    assert_eq!(with["access-control-allow-methods"], "PATCH");
    assert_eq!(with["access-control-allow-headers"], "x-a, x-b");

    let stranger = cors(&["https://b.example"], true).preflight(&asked);
    assert_eq!(stranger, map(&[("vary", "origin")]));
}

#[test]
fn actual_responses_are_opened_to_the_origin() {
    let mut response = map(&[("access-control-allow-origin", "https://own.example"), ("vary", "accept")]);
    let origin = HeaderValue::from_static("https://a.example");
    cors(&["https://a.example"], true).respond(&origin, &mut response);
    let expected = [
        ("access-control-allow-origin", "https://a.example"),
        ("vary", "accept"),
        ("vary", "origin"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-total"),
    ];
    assert_eq!(response, map(&expected));
}
