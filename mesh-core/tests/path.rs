//! Properties of path normalisation: what policy saw is what the application gets.

#![expect(clippy::unwrap_used, reason = "a helper that fails ends its test")]

use mesh_core::{
    matching::{PathMatch, Pattern},
    path::{Ambiguous, loosest, normalise},
};
use proptest::prelude::*;

/// The path as the laxest server may see it: everything decoded, twice; parameters cut; backslashes are slashes; dot
/// segments gone; without case, and without what Windows drops at a segment's end. Written apart from what it judges.
fn as_a_lax_server(path: &str) -> String {
    let decode = |text: &[u8]| -> Vec<u8> {
        let (mut out, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let pair = text.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
            match (text[at], pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
                (b'%', Some(byte)) => {
                    out.push(byte);
                    at += 3;
                }
                (byte, _) => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        out
    };
    let text = String::from_utf8_lossy(&decode(&decode(path.as_bytes()))).to_lowercase().replace('\\', "/");
    let mut kept: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        let segment = segment.split([';', '?', '#', '\0', '\n', '\r']).next().unwrap_or_default();
        match segment.trim_end() {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            other => kept.push(other.trim_end_matches(['.', ' '])),
        }
    }
    kept.join("/")
}

/// Denied by a rule on "/admin"?
fn denied(path: &str) -> bool {
    let exact = PathMatch::Exact("/admin".to_owned());
    let pattern = PathMatch::Regex(Pattern::whole("/admin(/.*)?").unwrap());
    let prefix = PathMatch::Prefix("/admin".to_owned());
    let denied = prefix.may_match(path);
    assert_eq!(pattern.may_match(path), denied, "{path}");
    assert!(denied || !exact.may_match(path), "{path}");
    denied
}

#[test]
fn servers_are_lax() {
    for path in ["/ADMIN", "/x/..%5cadmin", "/admin;a", "/%2561dmin", "/;/admin.%20", "//x/..//Admin%3b/"] {
        assert_eq!(as_a_lax_server(path), "admin", "{path}");
    }
}

#[test]
fn a_rule_that_denies_sees_what_servers_may_see() {
    for path in [
        "/admin",
        "/admin/",
        "/Admin",
        "/ADMIN/x",
        "/admin;",
        "/admin;x=1",
        "/admin;x/y",
        "/admin.",
        "/admin%20",
        "/admin%20.",
        "/admin..",
        "/admin%3Bx",
        "/admin%3Fx",
        "/admin%23",
        "/aDmin%20%20/x",
    ] {
        assert!(denied(path), "{path}");
    }
    for path in [
        "/",
        "/administrator",
        "/adm",
        "/x/admin",
        "/admin-x",
        "/admin%21",
        "/.admin",
        "/ad.min",
        "/x;/admin",
    ] {
        assert!(!denied(path), "{path}");
    }
    let large = PathMatch::Regex(Pattern::whole("/a{1,1000}").unwrap());
    assert!(large.may_match("/AAA") && !large.matches("/AAA"));
}

proptest! {
    #[test]
    fn normal_is_normal(path in "(/|\\.|%2[eEfF]|%25|%41|%c3%a9|%20|;|\\\\|\\x00|[a-z%]|\u{e9}){0,12}") {
        let path = format!("/{path}");
        if let Ok(normal) = normalise(&path) {
            let again = normalise(&normal);
            prop_assert_eq!(again.as_deref(), Ok(&*normal), "not a fixed point");
            prop_assert!(normal.starts_with('/'));
            prop_assert!(!normal.contains("//"), "{normal}");
            prop_assert!(!normal.contains(['\\', '\0']), "{normal}");
            let lower = normal.to_ascii_lowercase();
            prop_assert!(!["%2f", "%5c", "%00", "%25", "%2e"].iter().any(|bad| lower.contains(bad)), "{normal}");
            for segment in normal.split('/') {
                let bare = segment.split(';').next();
                prop_assert!(!matches!(bare, Some("." | "..")), "{normal}");
            }
            prop_assert!(normal.is_ascii());
        }
    }

    #[test]
    fn clean_paths_are_kept(path in "(/[A-Za-z0-9_~!$&'()*+,=:@-]([A-Za-z0-9._~!$&'()*+,=:@-]){0,8}){1,5}/?") {
        let kept = normalise(&path);
        prop_assert!(matches!(kept, Ok(std::borrow::Cow::Borrowed(_))), "{kept:?}");
        prop_assert_eq!(kept.as_deref(), Ok(&*path));
    }

    /// Nothing that a lax server takes for /admin gets past a rule that denies it.
    #[test]
    fn nobody_gets_around_a_rule(path in "(/|\\.|\\.\\.|%2[eEfF]|%25|%5[cC]|%c0%af|%20|;|%3[bB]|\\?|%00|%0a|x|admin|ADMIN|%61dmin|aDm%69n){1,8}") {
        let path = format!("/{}", path.split('?').next().unwrap_or_default());
        if let Ok(normal) = normalise(&path) {
            let seen = as_a_lax_server(&normal);
            if seen == "admin" || seen.starts_with("admin/") {
                prop_assert!(denied(&normal), "{path} as {normal} is {seen}");
            }
            prop_assert_eq!(&as_a_lax_server(&path), &seen, "{} changed its meaning as {}", path, normal);
        }
    }

    #[test]
    fn the_loosest_is_as_loose_as_it_gets(path in "(/|\\.|%20|;|%3B|[a-z]|%C3%A9){0,12}") {
        if let Ok(normal) = normalise(&format!("/{path}")) {
            let loose = loosest(&normal);
            prop_assert_eq!(loosest(&loose), loose.clone());
        }
    }

    #[test]
    fn noise_never_panics(path in "\\PC{0,40}") {
        let _ = normalise(&path);
        let _ = normalise(&format!("/{path}"));
    }

    /// Never above the root, and the depth is what plain counting gives.
    #[test]
    fn dots_climb_no_higher_than_the_root(parts in proptest::collection::vec(prop_oneof![Just(".."), Just("."), Just("a"), Just("")], 0..12)) {
        let path = format!("/{}", parts.join("/"));
        let depth = parts.iter().try_fold(0_i32, |depth, part| match *part {
            "a" => Some(depth + 1),
            ".." => (depth > 0).then_some(depth - 1),
            _ => Some(depth),
        });
        let normal = normalise(&path);
        prop_assert_eq!(normal.as_ref().ok().map(|n| n.matches('a').count() as i32), depth, "{:?}", normal);
    }
}

#[test]
fn ways_around_a_rule() {
    let check = |path: &str, expected: Result<&str, Ambiguous>| {
        assert_eq!(normalise(path).as_deref(), expected.as_ref().copied(), "{path}");
    };
    let refused = Err(Ambiguous);
    for (path, expected) in [
        ("/", Ok("/")),
        ("*", Ok("*")),
        ("/admin", Ok("/admin")),
        ("/admin/", Ok("/admin/")),
        ("//admin", Ok("/admin")),
        ("/x//admin", Ok("/x/admin")),
        ("///", Ok("/")),
        ("/./admin", Ok("/admin")),
        ("/x/../admin", Ok("/admin")),
        ("/x/..", Ok("/")),
        ("/x/.", Ok("/x/")),
        ("/%61dmin", Ok("/admin")),
        ("/x/%2e%2e/admin", Ok("/admin")),
        ("/x/%2E./admin", Ok("/admin")),
        ("/x/.%2e/admin", Ok("/admin")),
        ("/x/%2e/admin", Ok("/x/admin")),
        ("/a%20b", Ok("/a%20b")),
        ("/%c3%a9", Ok("/%C3%A9")),
        ("/\u{e9}", Ok("/%C3%A9")),
        ("/a;v=1/b", Ok("/a;v=1/b")),
        ("/...", Ok("/...")),
        ("/.well-known/x", Ok("/.well-known/x")),
        ("", refused),
        ("admin", refused),
        ("http://x/admin", refused),
        ("/..", refused),
        ("/x/../../admin", refused),
        ("/x%2fadmin", refused),
        ("/x%2Fadmin", refused),
        ("/x/..%2fadmin", refused),
        ("/x/..%5cadmin", refused),
        ("/x\\admin", refused),
        ("/x/..\\admin", refused),
        ("/x/..;/admin", refused),
        ("/x/..;a=b/admin", refused),
        ("/x/.;/admin", refused),
        ("/x/%2e%2e;/admin", refused),
        ("/;/admin", refused),
        ("/x/%252e%252e/admin", refused),
        ("/x%252fadmin", refused),
        ("/x%25", refused),
        ("/admin%00", refused),
        ("/admin\0", refused),
        ("/admin%", refused),
        ("/admin%2", refused),
        ("/admin%zz", refused),
        ("/admin%+1", refused),
        ("/admin%0a", refused),
        ("/admin%7f", refused),
        ("/x/..%20/admin", refused),
        ("/%20/admin", refused),
        ("/x/..%3b/admin", refused),
        ("/x/%c0%ae%c0%ae/admin", refused),
        ("/x%c0%afadmin", refused),
        ("/x/%e0%80%af", refused),
        ("/x/%f0%80%80%af", refused),
        ("/%e0%a4%85", Ok("/%E0%A4%85")),
    ] {
        check(path, expected);
    }
}
