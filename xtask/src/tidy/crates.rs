//! Rules for our crates: which may use which, and that all share the workspace's lints.

use serde_json::Value;

use super::Finding;
use super::source::Tree;

/// Which of our crates each of them may use; in tests also those of the second list, and mesh-testkit.
const ARROWS: [(&str, &[&str], &[&str]); 12] = [
    ("mesh-core", &[], &[]),
    ("mesh-proto", &["mesh-core"], &[]),
    ("mesh-k8s", &["mesh-core"], &[]),
    ("mesh-proxy", &["mesh-core", "mesh-proto"], &[]),
    ("mesh-controller", &["mesh-core", "mesh-proto", "mesh-k8s"], &[]),
    ("mesh-cli", &["mesh-core", "mesh-proto", "mesh-k8s"], &[]),
    ("mesh-testkit", &["mesh-core", "mesh-proto"], &["mesh-proxy", "mesh-controller"]),
    ("mesh-fuzz", &["mesh-core", "mesh-proto", "mesh-k8s", "mesh-proxy"], &[]),
    ("shop", &["mesh-core"], &[]),
    ("bare-pair", &[], &[]),
    ("load", &[], &[]),
    ("xtask", &[], &[]),
];
const TESTKIT: &str = "mesh-testkit";

/// Findings in what `cargo metadata --no-deps` tells.
pub(crate) fn check(tree: &Tree, metadata: &Value) -> Vec<Finding> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let mut findings = Vec::new();
    for package in packages {
        let Some(name) = package["name"].as_str() else { continue };
        let root = metadata["workspace_root"].as_str().unwrap_or_default();
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        let place = manifest.strip_prefix(root).unwrap_or(manifest).trim_start_matches('/');
        findings.extend(check_arrows(name, place, package, &names));
        if !shares_lints(tree.text(place)) {
            let remedy = "add [lints] with workspace = true";
            findings.push(Finding::new(place, "does not share the workspace's lints", remedy));
        }
    }
    findings
}

fn check_arrows(name: &str, place: &str, package: &Value, ours: &[&str]) -> Vec<Finding> {
    let Some((_, normal, tests)) = ARROWS.iter().find(|(from, ..)| *from == name) else {
        let remedy = "say in xtask/src/tidy/crates.rs and in ARCHITECTURE.md what it may use";
        return vec![Finding::new(place, format!("{name} is a crate without a place"), remedy)];
    };
    let dependencies = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
    let mut findings = Vec::new();
    for dependency in dependencies {
        let Some(to) = dependency["name"].as_str().filter(|to| ours.contains(to)) else { continue };
        let only_in_tests = dependency["kind"].as_str() == Some("dev");
        let allowed = normal.contains(&to) || (only_in_tests && (to == TESTKIT || tests.contains(&to)));
        if !allowed {
            let problem = format!("{name} may not use {to}");
            findings.push(Finding::new(place, problem, "see the crate arrows in ARCHITECTURE.md"));
        }
    }
    findings
}

/// True if the manifest has `[lints]` with `workspace = true`, or `lints.workspace = true`.
fn shares_lints(manifest: &str) -> bool {
    let mut section = "";
    manifest.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            section = line;
        }
        line == "lints.workspace = true" || (section == "[lints]" && line == "workspace = true")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Findings for one crate that uses another.
    fn problems(from: &str, to: &str, kind: Option<&str>, manifest: &str) -> Vec<String> {
        let metadata = json!({"workspace_root": "/w", "packages": [
            {"name": from, "manifest_path": "/w/a/Cargo.toml", "dependencies": [{"name": to, "kind": kind}]},
            {"name": to, "manifest_path": "/w/b/Cargo.toml", "dependencies": []},
        ]});
        let tree =
            Tree::sample([("a/Cargo.toml", manifest), ("b/Cargo.toml", "[lints]\nworkspace = true\n")]);
        check(&tree, &metadata).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn arrows_go_one_way() {
        let lints = "lints.workspace = true\n";
        assert_eq!(problems("mesh-proxy", "mesh-core", None, lints), [""; 0]);
        assert_eq!(problems("mesh-proxy", "mesh-testkit", Some("dev"), lints), [""; 0]);
        let found = problems("mesh-core", "mesh-proto", None, lints);
        assert!(found.len() == 1 && found[0].contains("mesh-core may not use mesh-proto"), "{found:?}");
        assert_eq!(problems("mesh-proxy", "mesh-k8s", Some("dev"), lints).len(), 1);
        assert_eq!(problems("mesh-proxy", "mesh-testkit", None, lints).len(), 1);
        assert_eq!(problems("mesh-testkit", "mesh-proxy", None, lints).len(), 1);
        let found = problems("mesh-new", "mesh-core", None, lints);
        assert!(found[0].contains("a crate without a place"), "{found:?}");
    }

    #[test]
    fn lints_are_shared() {
        let found = problems("mesh-proxy", "mesh-core", None, "[package]\nworkspace = true\n");
        assert!(found.len() == 1 && found[0].starts_with("a/Cargo.toml: does not share"), "{found:?}");
    }
}
