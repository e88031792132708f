//! Each rule for documents finds what breaks it.

use super::*;

fn lines(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

#[test]
fn ports_are_named() {
    let ports = "//! Ports.\npub const OUTBOUND: u16 = 15001;\npub const NAME: &str = \"x\";\n";
    let tree = Tree::sample([(PORTS_SOURCE, ports), (ARCHITECTURE, "| 15001 | outbound |\n")]);
    assert_eq!(check_ports(&tree), []);
    let tree = Tree::sample([(PORTS_SOURCE, ports), (ARCHITECTURE, "| 150012 |\n")]);
    let found = lines(&check_ports(&tree));
    assert!(found.len() == 1 && found[0].starts_with("mesh-core/src/ports.rs:2: port 15001"), "{found:?}");
}

#[test]
fn reasons_are_explained() {
    let code =
        "//! X.\nreasons! {\n    Denied = \"AUTHZ_DENIED\", NOT_FOUND, Internal,\n        \"allow it\";\n}\n";
    let files = |page| Tree::sample([(REASONS_SOURCE, code), (REASONS, page)]);
    assert_eq!(
        check_reasons(&files(
            "| Code |\n| --- |\n| `AUTHZ_DENIED` | 404 Not Found | Internal (13) | Allow it |\n"
        )),
        []
    );
    let found = lines(&check_reasons(&files("AUTHZ_DENIED\n| `OTHER` | no |\n")));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("mesh-core/src/reason.rs:3: AUTHZ_DENIED has no row"), "{found:?}");
    assert!(found[1].starts_with("docs/reasons.md:2: OTHER is no reason"), "{found:?}");
    let found =
        lines(&check_reasons(&files("| `AUTHZ_DENIED` | 403 Forbidden | Internal (13) | Deny it |\n")));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with("docs/reasons.md:1: the row of AUTHZ_DENIED does not say `allow it`"),
        "{found:?}"
    );
    assert!(found[1].contains("does not say `NOT_FOUND`"), "{found:?}");
}

#[test]
fn links_lead_somewhere() {
    let text = "[a](b.md#part), [c](../README.md), [d](https://example.org/x), [e](#here)\n[f](gone.md)\n";
    let exists = |path: &Path| ["docs/b.md", "README.md"].iter().any(|known| path == Path::new(known));
    let found = lines(&check_links(&SourceFile::sample("docs/a.md", text), &exists));
    assert!(found.len() == 1 && found[0].starts_with("docs/a.md:2: the link to gone.md"), "{found:?}");
}
