//! What a refused object still closes.
//!
//! A TrafficTarget or a Namespace restricts who may call. When one is refused and was never good, nothing would
//! restrict anybody: so a stand-in that opens nothing takes its place, until it is mended.

use std::{collections::HashSet, sync::Arc};

use mesh_core::{
    name::{is_dns_label, is_dns_name},
    policy::{DefaultAction, TlsMode},
};

use crate::{
    object::{At, Located, Name, Namespace, Object, Standing, TrafficTarget},
    parse::{
        kinds::{Kind, by_kind},
        metadata::Metadata,
        reader::{Field, Reader},
        tree::{Entry, Node, Value},
    },
    problem::Place,
};

/// The stand-in for a refused object of this kind; None: it closes nothing, or what it closes cannot be told.
pub(crate) fn stand_in(file: &Arc<str>, kind: Kind, node: &Node) -> Option<Located> {
    let metadata = node.get("metadata")?;
    let object = match kind {
        Kind::TrafficTarget => Object::TrafficTarget(target(node, metadata)?),
        Kind::Namespace => {
            // What is wrong has been reported: this only asks which options can still be read.
            let mut reader = Reader::new(Arc::clone(file), None);
            let field = Field { path: String::new(), node: metadata };
            let metadata = Metadata::read(&mut reader, &field, kind)?;
            // What is wrong with a label or an annotation is noted there; all else could have held the options.
            let strange = reader.problems.iter().any(|p| p.refused && !p.field.contains('['));
            Object::Namespace(namespace(&metadata, strange || has_strange_keys(node)))
        }
        _ => return None,
    };
    Some(Located {
        object,
        place: Place { file: Arc::clone(file), line: node.line },
        standing: Standing::StandIn,
    })
}

/// The stand-in for a Namespace of which nothing but the name can be read.
pub(crate) fn unreadable_namespace(file: &Arc<str>, name: &str, line: u32) -> Located {
    let (default_policy, mtls) = (Some(DefaultAction::Deny), Some(TlsMode::Strict));
    let object = Object::Namespace(Namespace { name: name.into(), default_policy, mtls, inject: false });
    Located { object, place: Place { file: Arc::clone(file), line }, standing: Standing::StandIn }
}

/// Stand-ins for the objects of one document that lacks the `---` between them: each begins where a key comes again.
pub(crate) fn stand_ins(file: &Arc<str>, node: &Node) -> Vec<Located> {
    let Value::Map(entries) = &node.value else { return Vec::new() };
    let mut parts: Vec<Vec<Entry>> = vec![Vec::new()];
    let mut seen = HashSet::new();
    for entry in entries {
        if !seen.insert(entry.key.as_str()) {
            seen = HashSet::from([entry.key.as_str()]);
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.push(entry.clone());
        }
    }
    let part = |entries: Vec<Entry>| {
        let line = entries.first()?.line;
        let node = Node { line, value: Value::Map(entries) };
        let kind = node.get("kind").and_then(Node::text).and_then(by_kind)?;
        stand_in(file, kind, &node)
    };
    parts.into_iter().filter_map(part).collect()
}

fn target(node: &Node, metadata: &Node) -> Option<TrafficTarget> {
    let destination = node.get("spec")?.get("destination")?;
    let name =
        metadata.get("name").and_then(Node::text).filter(|name| is_dns_name(name)).unwrap_or("unknown");
    let own = match metadata.get("namespace") {
        Some(field) => field.text().filter(|namespace| is_dns_label(namespace)),
        None => Some("default"),
    };
    let called = match destination.get("namespace") {
        Some(field) => field.text().filter(|namespace| is_dns_label(namespace)),
        None => own,
    };
    let account = destination.get("name").and_then(Node::text).filter(|name| is_dns_name(name))?;
    let value = Name { namespace: called?.into(), name: account.into() };
    Some(TrafficTarget {
        name: Name { namespace: own.or(called)?.into(), name: name.into() },
        destination: At { value, line: destination.line },
        sources: Vec::new(),
        rules: Vec::new(),
    })
}

fn has_strange_keys(node: &Node) -> bool {
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    matches!(&node.value, Value::Map(entries) if entries.iter().any(|e| !known.contains(&e.key.as_str())))
}

/// Options that can be read hold; `strange`: those that are absent may have been written elsewhere.
fn namespace(metadata: &Metadata, strange: bool) -> Namespace {
    let deny = metadata.unreadable_policy || (strange && metadata.default_policy.is_none());
    let strict = metadata.unreadable_mtls || (strange && metadata.mtls.is_none());
    Namespace {
        name: Arc::clone(&metadata.name.name),
        default_policy: if deny { Some(DefaultAction::Deny) } else { metadata.default_policy },
        mtls: if strict { Some(TlsMode::Strict) } else { metadata.mtls },
        inject: metadata.is_injected(),
    }
}
