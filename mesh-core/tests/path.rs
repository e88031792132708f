//! Properties of path normalisation: what policy saw is what the application gets.

use mesh_core::path::{Ambiguous, normalise};
use proptest::prelude::*;

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
    ] {
        check(path, expected);
    }
}
