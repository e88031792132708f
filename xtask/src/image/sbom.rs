//! What an image is made of, in CycloneDX 1.5: packages, the standard library and the C library, with versions and
//! licences. No number or time of its own, which the format does not ask for: the same image has the same list.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Recipe;
use super::archive::sha256;
use super::binaries::Binary;
use super::closure::{Package, Packages};
use crate::workspace;

/// A library that is linked beside what cargo knows.
pub(super) struct Linked {
    name: &'static str,
    version: String,
    licence: &'static str,
    url: &'static str,
}

/// Rust's standard library and glibc, of the versions that this machine links.
pub(super) fn linked() -> Result<Vec<Linked>> {
    let second = |text: &str| text.split_whitespace().nth(1).map(str::to_owned);
    let rustc = workspace::output(Command::new(rustc()).arg("--version"))?;
    let glibc = workspace::output(Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    Ok(vec![
        Linked {
            name: "std",
            version: second(&rustc).context("rustc does not tell its version")?,
            licence: "MIT OR Apache-2.0",
            url: "https://github.com/rust-lang/rust",
        },
        Linked {
            name: "glibc",
            version: second(&glibc).context("getconf does not tell the version of glibc")?,
            licence: "LGPL-2.1-or-later",
            url: "https://sourceware.org/glibc/",
        },
    ])
}

/// The compiler beside the cargo that runs us.
pub(super) fn rustc() -> std::path::PathBuf {
    let cargo = std::env::var_os("CARGO").map(std::path::PathBuf::from);
    let beside = cargo.map(|cargo| cargo.with_file_name("rustc")).filter(|rustc| rustc.is_file());
    beside.unwrap_or_else(|| "rustc".into())
}

/// The list of one image.
pub(super) fn cyclonedx(
    recipe: &Recipe,
    binary: &Binary,
    packages: &Packages,
    linked: &[Linked],
) -> Result<Value> {
    let below = packages.below(recipe.package)?;
    let (mut components, mut dependencies, mut whole) = (Vec::new(), Vec::new(), Value::Null);
    let beside: Vec<String> =
        linked.iter().map(|Linked { name, version, .. }| format!("{name}@{version}")).collect();
    for (id, (package, uses)) in &below {
        let mut uses: Vec<&str> = uses.iter().map(|id| id.as_str()).collect();
        if package.ours && package.name == recipe.package {
            uses.extend(beside.iter().map(String::as_str));
            whole = component("application", package);
            whole["description"] = recipe.description.into();
            whole["hashes"] = json!([{"alg": "SHA-256", "content": sha256(&binary.bytes)}]);
        } else {
            components.push(component("library", package));
        }
        dependencies.push(json!({"ref": id, "dependsOn": uses}));
    }
    for (id, Linked { name, version, licence, url }) in beside.iter().zip(linked) {
        components.push(json!({
            "type": "library",
            "bom-ref": id,
            "name": name,
            "version": version,
            "licenses": [{"expression": licence}],
            "externalReferences": [{"type": "website", "url": url}],
        }));
        dependencies.push(json!({"ref": id, "dependsOn": []}));
    }
    Ok(json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": whole},
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(kind: &str, package: &Package) -> Value {
    let Package { name, version, features, licence, repository, ours } = package;
    let mut value = json!({"type": kind, "bom-ref": package.id(), "name": name, "version": version});
    if !licence.is_empty() {
        value["licenses"] = json!([{"expression": licence}]);
    }
    if !ours {
        // `+` of a version's build is not for URLs.
        value["purl"] = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B")).into();
    }
    if !repository.is_empty() {
        value["externalReferences"] = json!([{"type": "vcs", "url": repository}]);
    }
    if !features.is_empty() {
        value["properties"] = json!([{"name": "cargo:features", "value": features.join(",")}]);
    }
    value
}

#[cfg(test)]
mod tests;
