//! Schemas and readers know the same fields, and the chart has what is made here.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Map, Value, json};

use super::{ALL, Crd};
use crate::parse;

/// A field that nobody knows, and whose name is like no other.
const UNKNOWN: &str = "qqqqqqqqqqqq";

fn chart() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/mesh/templates/crds")
}

#[test]
fn the_chart_has_these() {
    let mut files: BTreeSet<String> =
        fs::read_dir(chart()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    for crd in ALL {
        let name = format!("{}.yaml", crd.plural);
        assert!(files.remove(&name), "{name} is missing: run `cargo run -p mesh-k8s --example crds`");
        let text = fs::read_to_string(chart().join(&name)).unwrap();
        let (head, body) = text.split_once("}}\n{{- if").unwrap();
        assert!(head.starts_with("{{- /* Made from"));
        let (condition, body) = body.split_once("}}\n").unwrap();
        assert_eq!(condition.trim(), if crd.is_own() { ".Values.crds.mesh" } else { ".Values.crds.smi" });
        let body = body.strip_suffix("{{- end }}\n").unwrap();
        assert!(!body.contains("{{"), "{name} is no template inside");
        let found: Value = serde_saphyr::from_str(body).unwrap();
        assert_eq!(
            found,
            crd.definition(),
            "{name} is not what the Rust types say: run `cargo run -p mesh-k8s --example crds`"
        );
    }
    assert!(files.is_empty(), "files of no kind: {files:?}");
}

#[test]
fn every_kind_that_the_mesh_brings_is_read() {
    for crd in ALL {
        let (_, problems, _) = parse("f", &document(&crd, &json!({})).to_string());
        let unknown = problems.iter().any(|p| p.field == "kind" || p.field == "apiVersion");
        assert!(!unknown, "{}: {problems:?}", crd.kind);
    }
}

/// Every object in a schema has exactly the fields that the reader knows there: the reader is shown an unknown one, and
/// says which it knows.
#[test]
fn readers_know_the_fields_of_schemas() {
    let mut objects = 0;
    for crd in ALL {
        let schema = (crd.spec)().json();
        walk(&schema, &mut Vec::new(), &mut |path, schema| {
            objects += 1;
            let expected: BTreeSet<&str> = properties(schema).keys().map(String::as_str).collect();
            let spec = nested(path, json!({UNKNOWN: 1}));
            let (_, problems, _) = parse("f", &document(&crd, &spec).to_string());
            let told = problems.iter().find(|p| p.field.ends_with(UNKNOWN));
            let told = told.unwrap_or_else(|| panic!("{} {path:?}: not refused: {problems:#?}", crd.kind));
            let known = told.remedy.strip_prefix("known here: ").unwrap_or_else(|| panic!("{told}"));
            let known: BTreeSet<&str> = known.split(", ").filter(|name| !name.is_empty()).collect();
            assert_eq!(known, expected, "{} at {path:?}: reader (left) and schema", crd.kind);
        });
    }
    assert!(objects > 30, "only {objects} objects were looked at");
}

#[test]
fn good_objects_fit() {
    let text = include_str!("../parse/tests/good.yaml");
    let mut seen = BTreeSet::new();
    for document in serde_saphyr::from_multiple::<Value>(text).unwrap() {
        let kind = document["kind"].as_str().unwrap();
        let Some(crd) = ALL.iter().find(|crd| crd.kind == kind) else { continue };
        assert_eq!(document["apiVersion"], format!("{}/{}", crd.group, crd.version));
        fits(&crd.schema(), &document, kind);
        seen.insert(kind.to_owned());
    }
    assert_eq!(seen.len(), ALL.len(), "{seen:?}");
}

fn document(crd: &Crd, spec: &Value) -> Value {
    let version = format!("{}/{}", crd.group, crd.version);
    json!({"apiVersion": version, "kind": crd.kind, "metadata": {"name": "a", "namespace": "shop"}, "spec": spec})
}

fn properties(schema: &Value) -> &Map<String, Value> {
    schema["properties"].as_object().unwrap()
}

/// Calls `see` for each object in a schema that has fields of its own; `[]` in a path is an item of a list.
fn walk(schema: &Value, path: &mut Vec<String>, see: &mut impl FnMut(&[String], &Value)) {
    match schema["type"].as_str() {
        Some("object") => {
            see(path, schema);
            for (name, inner) in properties(schema) {
                path.push(name.clone());
                walk(inner, path, see);
                path.pop();
            }
        }
        Some("array") => {
            path.push("[]".to_owned());
            walk(&schema["items"], path, see);
            path.pop();
        }
        _ => {}
    }
}

fn nested(path: &[String], leaf: Value) -> Value {
    path.iter().rev().fold(leaf, |inner, step| match step.as_str() {
        "[]" => json!([inner]),
        name => json!({name: inner}),
    })
}

/// What an API server would say, of types, fields and words.
fn fits(schema: &Value, value: &Value, at: &str) {
    if let Some(words) = schema["enum"].as_array() {
        assert!(words.contains(value), "{at}: {value} is none of {words:?}");
    }
    match schema["type"].as_str() {
        Some("object") => {
            let fields = value.as_object().unwrap_or_else(|| panic!("{at}: {value}"));
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(fields.contains_key(name.as_str().unwrap()), "{at}: {name} is missing");
            }
            let Some(known) = schema["properties"].as_object() else { return };
            for (name, inner) in fields {
                let inner_schema = known.get(name).unwrap_or_else(|| panic!("{at}.{name} is unknown"));
                fits(inner_schema, inner, &format!("{at}.{name}"));
            }
        }
        Some("array") => {
            for item in value.as_array().unwrap_or_else(|| panic!("{at}: {value}")) {
                fits(&schema["items"], item, &format!("{at}[]"));
            }
        }
        Some("string") => assert!(value.is_string(), "{at}: {value}"),
        Some("integer") => assert!(value.is_u64(), "{at}: {value}"),
        Some("number") => assert!(value.is_number(), "{at}: {value}"),
        Some("boolean") => assert!(value.is_boolean(), "{at}: {value}"),
        other => assert!(schema["x-kubernetes-preserve-unknown-fields"] == true, "{at}: type {other:?}"),
    }
}
