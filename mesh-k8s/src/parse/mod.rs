//! Reads one file: documents, then objects, each checked alone.

mod balancing;
mod closed;
mod cluster;
mod document;
mod external;
mod filters;
mod gateway;
mod kinds;
mod kubernetes;
mod metadata;
mod reader;
mod requests;
mod smi;
#[cfg(test)]
mod tests;
mod traffic;
mod tree;
mod values;
mod workload;

use std::sync::Arc;

pub use self::document::{Document, split as documents};
pub(crate) use self::metadata::TLS_MODES;

use mesh_core::name::{ObjectRef, is_dns_label, is_dns_name};

use crate::{
    nearest::nearest,
    object::{Located, Object, Standing},
    parse::{
        kinds::{Kind, Recognised},
        metadata::Metadata,
        reader::{Field, Reader},
        tree::{Node, Value},
    },
    problem::{Place, Problem},
};

/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: usize = 16 << 20;
/// Most problems that are told of one file.
const MAX_PROBLEMS: usize = 1_000;

/// Reads one YAML file. `file` is its name relative to the source directory.
///
/// Returned are the good objects, what is wrong, and whether every document could at least be recognised. An object
/// that was recognised but refused is named by a [`Problem`] with `refused`: its last good version stays. When the last
/// value is false, some document could not even be recognised: the last good version of every object of this file that
/// is not among the returned ones stays.
///
/// For a refused TrafficTarget or Namespace the objects can hold a stand-in ([`Standing::StandIn`]) that closes what it
/// was to restrict; drop it where a last good version is known.
#[must_use]
pub fn parse(file: &str, text: &str) -> (Vec<Located>, Vec<Problem>, bool) {
    let mut found = Found { file: file.into(), objects: Vec::new(), problems: Vec::new(), recognised: true };
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes; at most {MAX_FILE_BYTES} are read", text.len());
        found.unreadable(1, message, "split the file");
    } else {
        for document in document::split(text) {
            if found.problems.len() >= MAX_PROBLEMS {
                let message = format!("more than {MAX_PROBLEMS} problems; the rest of the file is not read");
                found.unreadable(document.first_line, message, "mend those above first");
                break;
            }
            found.document(document);
        }
    }
    (found.objects, found.problems, found.recognised)
}

/// Reads one object of a Kubernetes API server, which has no lines. `place` names it where others name file and line.
///
/// Returned is what [`parse`] returns. Pods and EndpointSlices are read here alone: in files they mean nothing.
#[must_use]
pub fn parse_object(place: &str, object: &serde_json::Value) -> (Vec<Located>, Vec<Problem>, bool) {
    if let Some(read) = cluster::read(place, object) {
        return read;
    }
    let mut found = Found { file: place.into(), objects: Vec::new(), problems: Vec::new(), recognised: true };
    found.object(&Node::from(object));
    (found.objects, found.problems, found.recognised)
}

struct Found {
    file: Arc<str>,
    objects: Vec<Located>,
    problems: Vec<Problem>,
    recognised: bool,
}

impl Found {
    fn unreadable(&mut self, line: u32, message: String, remedy: &str) {
        self.recognised = false;
        self.refuse(None, line, "", message, remedy.to_owned());
    }

    fn refuse(&mut self, object: Option<ObjectRef>, line: u32, field: &str, message: String, remedy: String) {
        let place = Place { file: Arc::clone(&self.file), line };
        self.problems.push(Problem {
            object,
            place,
            field: field.to_owned(),
            message,
            remedy,
            refused: true,
            is_conflict: false,
        });
    }

    fn document(&mut self, document: Document<'_>) {
        match tree::read(document.text, document.first_line) {
            Ok(None) => {}
            Ok(Some(node)) => self.root(&node),
            Err(error) => {
                let guessed = document::guess(document.text)
                    .and_then(|(kind, namespace, name)| Some((kinds::by_kind(kind)?, namespace, name)));
                let object = guessed.map(|(kind, namespace, name)| kind.reference(namespace, name));
                self.recognised &= object.is_some();
                if let Some((Kind::Namespace, _, name)) = guessed.filter(|(.., name)| is_dns_label(name)) {
                    self.objects.push(closed::unreadable_namespace(&self.file, name, document.first_line));
                }
                let message = format!("the document is no YAML: {}", error.message);
                let remedy = "check indentation, quotes and brackets around that line".to_owned();
                self.refuse(object, error.line, "", message, remedy);
            }
        }
    }

    /// A document, or one item of a List.
    fn root(&mut self, node: &Node) {
        let is_list = node.get("kind").and_then(Node::text) == Some("List")
            && node.get("apiVersion").and_then(Node::text) == Some("v1");
        match node.get("items").map(|items| &items.value) {
            Some(Value::List(items)) if is_list => items.iter().for_each(|item| self.object(item)),
            _ => self.object(node),
        }
    }

    fn object(&mut self, node: &Node) {
        if let Some((key, line)) = twice(node, &["apiVersion", "kind", "metadata"]) {
            let message = format!("the document has {key:?} twice: two objects in one");
            self.unreadable(line, message, "put a line \"---\" between them");
            self.objects.extend(closed::stand_ins(&self.file, node));
            return;
        }
        let name = |kind: Kind| reference(kind, node);
        match kinds::recognise(node) {
            Recognised::Skip => {}
            Recognised::Wrong { field, line, message, remedy, meant } => {
                let object = meant.and_then(name);
                self.recognised &= object.is_some();
                self.objects.extend(meant.and_then(|kind| closed::stand_in(&self.file, kind, node)));
                self.refuse(object, line, field, message, remedy);
            }
            Recognised::Known(kind) => {
                let file = Arc::clone(&self.file);
                let mut reader = Reader::new(Arc::clone(&file), name(kind));
                let object = read_object(&mut reader, kind, node);
                if object.is_none() && !reader.is_refused() {
                    reader.refuse(
                        node.line,
                        "",
                        "the object could not be read",
                        "compare it with the documentation",
                    );
                }
                self.recognised &= reader.object.is_some();
                let place = Place { file, line: node.line };
                self.objects.extend(match object.filter(|_| !reader.is_refused()) {
                    Some(object) => Some(Located { object, place, standing: Standing::New }),
                    None => closed::stand_in(&self.file, kind, node),
                });
                self.problems.append(&mut reader.problems);
            }
        }
    }
}

/// The first of `keys` that a mapping has twice, and the line of the second.
fn twice<'k>(node: &Node, keys: &[&'k str]) -> Option<(&'k str, u32)> {
    let Value::Map(entries) = &node.value else { return None };
    keys.iter().find_map(|key| Some((*key, entries.iter().filter(|e| e.key == *key).nth(1)?.line)))
}

/// Names the object, if what it is called is beyond doubt: the last good version of another must not be touched.
fn reference(kind: Kind, node: &Node) -> Option<ObjectRef> {
    const NAMES: [&str; 2] = ["name", "namespace"];
    let metadata = node.get("metadata")?;
    let Value::Map(entries) = &metadata.value else { return None };
    let misspelt = |key: &str| !NAMES.contains(&key) && nearest(key, NAMES).is_some();
    if twice(metadata, &NAMES).is_some() || entries.iter().any(|entry| misspelt(&entry.key)) {
        return None;
    }
    let namespace = match metadata.get("namespace").map(|field| &field.value) {
        None | Some(Value::Null) => "default",
        Some(Value::Text(text)) if is_dns_label(text) => text,
        Some(_) => return None,
    };
    let is_name = if kind.is_label() { is_dns_label } else { is_dns_name };
    let name = metadata.get("name").and_then(Node::text).filter(|name| is_name(name))?;
    Some(kind.reference(namespace, name))
}

fn read_object(reader: &mut Reader, kind: Kind, node: &Node) -> Option<Object> {
    let mut fields = reader.fields(&Field { path: String::new(), node });
    fields.ignore(&["apiVersion", "kind", "status"]);
    let metadata_field = fields.required(reader, "metadata");
    let metadata = metadata_field.and_then(|field| Metadata::read(reader, &field, kind));
    if metadata.as_ref().is_some_and(|m| matches!(kind, Kind::ServiceAccount) && m.name.is_controller()) {
        reader.refuse(node.line, "metadata.name", metadata::RESERVED, "choose another name");
    }
    let object = match kind {
        Kind::Namespace => {
            fields.ignore(&["spec"]);
            kubernetes::namespace(metadata)
        }
        Kind::ServiceAccount => {
            fields.ignore(&["secrets", "imagePullSecrets", "automountServiceAccountToken"]);
            metadata.map(|m| Object::ServiceAccount(crate::object::ServiceAccount { name: m.name }))
        }
        Kind::TcpRoute => {
            let spec = fields.optional("spec");
            smi::tcp_route(reader, metadata, spec.as_ref())
        }
        Kind::HttpRouteGroup => {
            let outside = fields.optional("matches");
            let spec =
                if outside.is_some() { fields.optional("spec") } else { fields.required(reader, "spec") };
            smi::route_group(reader, metadata, spec.as_ref(), outside.as_ref())
        }
        Kind::Service
        | Kind::Workload
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TrafficPolicy
        | Kind::ExternalService
        | Kind::TrafficSplit
        | Kind::TrafficTarget => {
            let spec = fields.required(reader, "spec");
            read_spec(reader, kind, metadata, &spec?)
        }
    };
    fields.finish(reader);
    object
}

fn read_spec(
    reader: &mut Reader,
    kind: Kind,
    metadata: Option<Metadata>,
    spec: &Field<'_>,
) -> Option<Object> {
    // Without metadata the object is refused already; its spec is read all the same, to tell all at once.
    let metadata = metadata.unwrap_or_default();
    match kind {
        Kind::Service => kubernetes::service(reader, metadata, spec).map(Object::Service),
        Kind::Workload => workload::read(reader, metadata, spec).map(Object::Workload),
        Kind::HttpRoute => gateway::read(reader, metadata, spec, false).map(Object::HttpRoute),
        Kind::GrpcRoute => gateway::read(reader, metadata, spec, true).map(Object::GrpcRoute),
        Kind::TrafficPolicy => {
            traffic::read(reader, metadata, spec).map(|o| Object::TrafficPolicy(Box::new(o)))
        }
        Kind::ExternalService => external::read(reader, metadata, spec).map(Object::ExternalService),
        Kind::TrafficSplit => smi::split(reader, metadata, spec).map(Object::TrafficSplit),
        Kind::TrafficTarget => smi::target(reader, metadata, spec).map(Object::TrafficTarget),
        Kind::Namespace | Kind::ServiceAccount | Kind::TcpRoute | Kind::HttpRouteGroup => None,
    }
}
