//! `/validate`: an object is read as the source will read it, and refused with all that is wrong.

use mesh_k8s::labels::API_GROUP;
use serde_json::Value;

use super::review::{Request, Verdict};

/// Groups of others whose objects the mesh reads, or their ends.
const GROUPS: [&str; 2] = ["gateway.networking.k8s.io", ".smi-spec.io"];

/// Judges an object of one of our own kinds; what is none of them may be.
pub(super) fn judge(request: &Request) -> Verdict {
    let object = &request.object;
    // What goes away anyhow must be able to: finalizers are taken off by an update.
    let goes = object.pointer("/metadata/deletionTimestamp").is_some_and(|time| !time.is_null());
    if object.is_null() || goes || request.operation == "DELETE" {
        return Verdict::allowed();
    }
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let kind = text("/kind");
    let group = text("/apiVersion").split_once('/').map_or("", |(group, _)| group);
    let is_read = group == API_GROUP || GROUPS.iter().any(|known| group.ends_with(known));
    if !is_read {
        return Verdict::allowed();
    }
    let name = match text("/metadata/name") {
        // The API server makes the name up later.
        "" => text("/metadata/generateName"),
        name => name,
    };
    let place = format!("{kind} {}/{name}", request.namespace);
    let mut named = object.clone();
    if text("/metadata/name").is_empty()
        && let Some(metadata) = named.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("name".to_owned(), name.trim_end_matches('-').into());
    }
    let (_, problems, _) = mesh_k8s::parse_object(&place, &named);
    let told = |refused: bool| {
        let of_kind = problems.iter().filter(move |problem| problem.refused == refused);
        of_kind.map(|problem| match problem.field.as_str() {
            "" => format!("{}; {}", problem.message, problem.remedy),
            field => format!("{field}: {}; {}", problem.message, problem.remedy),
        })
    };
    let refusals: Vec<String> = told(true).collect();
    let warnings = told(false).collect();
    if refusals.is_empty() {
        return Verdict { warnings, ..Verdict::allowed() };
    }
    Verdict { warnings, ..Verdict::refused(&format!("the mesh cannot use {place}"), &refusals) }
}
