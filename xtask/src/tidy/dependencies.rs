//! Rules for what gets built from others: the proxy stays small, and there is one TLS provider.

use anyhow::Result;

use super::Finding;
use crate::workspace::{self, TARGET};

/// What nobody builds. ring stands in Cargo.lock as an option of others that is never switched on.
const NOBODY: [&str; 3] = ["ring", "openssl", "openssl-sys"];
/// What the proxy does not build: it never sees Kubernetes, and serves HTTP by hyper alone.
const PROXY: [&str; 4] = ["kube", "k8s-openapi", "axum", "schemars"];
const REMEDY: &str =
    "find who brings it with `cargo tree -i NAME -e normal,build,features` and switch it off";

/// Findings in what cargo would build for Linux.
pub(crate) fn check() -> Result<Vec<Finding>> {
    let all = workspace::output(cargo_tree().arg("--workspace"))?;
    let proxy = workspace::output(cargo_tree().args(["-p", "mesh-proxy"]))?;
    let mut findings = banned("Cargo.toml", "the workspace", &all, &NOBODY);
    findings.extend(banned("mesh-proxy/Cargo.toml", "mesh-proxy", &proxy, &PROXY));
    Ok(findings)
}

/// Prints one line a package, that of the package itself, without development dependencies.
fn cargo_tree() -> std::process::Command {
    workspace::cargo(["tree", "--locked", "-e", "normal,build", "--target", TARGET, "--prefix", "none"])
}

/// Findings for those of `names` that stand in the output of `cargo tree`.
fn banned(place: &str, who: &str, tree: &str, names: &[&str]) -> Vec<Finding> {
    let built = |name: &&&str| tree.lines().any(|line| line.split(' ').next() == Some(**name));
    let found = names.iter().filter(built);
    found.map(|name| Finding::new(place, format!("{who} builds {name}"), REMEDY)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_built() {
        let tree = "mesh-proxy v0.1.0 (/w/mesh-proxy)\nstring v1.0.0\naxum-core v0.5.0\nring v0.17.14 (*)\n";
        let found = banned("p", "the workspace", tree, &["axum", "ring", "rin"]);
        assert_eq!(found, [Finding::new("p", "the workspace builds ring", REMEDY)]);
    }
}
