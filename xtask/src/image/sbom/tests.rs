//! Lists of the real binaries' packages, checked for what the schema of CycloneDX 1.5 asks for.

use std::collections::BTreeSet;

use super::super::{RECIPES, binaries};
use super::*;

/// Types of components that the schema knows.
const TYPES: [&str; 12] = [
    "application",
    "framework",
    "library",
    "container",
    "platform",
    "operating-system",
    "device",
    "device-driver",
    "firmware",
    "file",
    "machine-learning-model",
    "data",
];

fn lists() -> Vec<Value> {
    let names = RECIPES.map(|recipe| recipe.package);
    let packages = Packages::read(binaries::target().expect("a target"), &names).expect("packages");
    let binary = Binary { architecture: "amd64", bytes: b"program".to_vec() };
    let linked = linked().expect("versions");
    RECIPES.iter().map(|recipe| cyclonedx(recipe, &binary, &packages, &linked).expect("a list")).collect()
}

fn array<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("no array {name} in {value}"))
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name]
        .as_str()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| panic!("no text {name} in {value}"))
}

/// What is required: `type` and `name`; `alg` and `content` of hashes; `type` and `url` of references. We add a version
/// and a licence to all.
fn check_component(component: &Value) {
    assert!(TYPES.contains(&text(component, "type")), "{component}");
    let id = format!("{}@{}", text(component, "name"), text(component, "version"));
    assert_eq!(text(component, "bom-ref"), id);
    let licences = array(component, "licenses");
    assert_eq!(licences.len(), 1, "an expression stands alone");
    let expression = text(&licences[0], "expression");
    assert!(!expression.contains('/'), "not SPDX: {expression}");
    if let Some(purl) = component["purl"].as_str() {
        assert!(purl.starts_with("pkg:cargo/") && !purl.contains('+'), "{purl}");
    }
    for reference in component["externalReferences"].as_array().into_iter().flatten() {
        assert!(!text(reference, "type").is_empty() && text(reference, "url").contains("://"), "{reference}");
    }
}

#[test]
fn lists_have_what_the_schema_requires() {
    for list in lists() {
        assert_eq!((text(&list, "bomFormat"), text(&list, "specVersion")), ("CycloneDX", "1.5"));
        assert!(list["version"].as_u64().is_some_and(|version| version >= 1));
        let whole = &list["metadata"]["component"];
        check_component(whole);
        assert_eq!(text(whole, "type"), "application");
        let hash = &array(whole, "hashes")[0];
        assert_eq!((text(hash, "alg"), text(hash, "content").len()), ("SHA-256", 64));
        array(&list, "components").iter().for_each(check_component);
    }
}

#[test]
fn all_that_is_referred_to_is_listed_once() {
    for list in lists() {
        let components = array(&list, "components").iter().chain([&list["metadata"]["component"]]);
        let all: Vec<&str> = components.map(|component| text(component, "bom-ref")).collect();
        let unique: BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(unique.len(), all.len(), "a reference is unique in a list");
        let mut told = BTreeSet::new();
        for dependency in array(&list, "dependencies") {
            assert!(told.insert(text(dependency, "ref")), "told twice: {dependency}");
            let uses: Vec<&str> =
                array(dependency, "dependsOn").iter().map(|id| id.as_str().expect("a text")).collect();
            assert!(uses.iter().all(|id| unique.contains(id)), "{dependency}");
        }
        assert_eq!(told, unique);
    }
}

#[test]
fn features_are_those_of_the_build() {
    let lists = lists();
    let find = |list: &Value, name: &str| {
        array(list, "components").iter().find(|component| component["name"] == name).cloned()
    };
    let rustls = find(&lists[0], "rustls").expect("the proxy has rustls");
    let property = &array(&rustls, "properties")[0];
    assert_eq!(text(property, "name"), "cargo:features");
    let features: BTreeSet<&str> = text(property, "value").split(',').collect();
    assert!(features.contains("aws_lc_rs") && !features.contains("ring"), "{features:?}");
    assert!(find(&lists[0], "mesh-core").expect("ours").get("purl").is_none(), "not from a registry");
    assert!(find(&lists[3], "rustls").is_none(), "the shop has no TLS");
    assert!(lists.iter().all(|list| find(list, "glibc").is_some() && find(list, "std").is_some()));
}
