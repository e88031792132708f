//! The parts of a pod that are looked at, once they are known to have the shape that Kubernetes gives them.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::Refusals;
use crate::{
    labels,
    names::{CHECK_CONTAINER, INIT_CONTAINER, PROXY_CONTAINER},
};

static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);

/// Fields of a pod's spec that hold containers.
pub(super) const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

/// A pod, or the template of one.
pub(super) struct Pod<'a> {
    pub(super) metadata: &'a Map<String, Value>,
    pub(super) spec: &'a Map<String, Value>,
}

/// One container and where it stands.
pub(super) struct Container<'a> {
    pub(super) path: String,
    pub(super) fields: &'a Map<String, Value>,
}

impl Container<'_> {
    pub(super) fn name(&self) -> &str {
        self.fields.get("name").and_then(Value::as_str).unwrap_or_default()
    }
}

impl<'a> Pod<'a> {
    /// Looks at the shape. None: it is no pod, and `refusals` says why.
    pub(super) fn read(pod: &'a Value, refusals: &mut Refusals) -> Option<Self> {
        let before = refusals.0.len();
        let spec = pod.get("spec").and_then(Value::as_object);
        let Some(spec) = spec else {
            refusals.add(
                "spec",
                "there is no spec of a pod",
                "compare it with the documentation of Kubernetes",
            );
            return None;
        };
        let mut wrong = |path: String, what: &str| {
            refusals.add(path, format!("expected {what}"), "compare it with the documentation of Kubernetes");
        };
        let metadata = match pod.get("metadata") {
            None | Some(Value::Null) => &*NOTHING,
            Some(Value::Object(metadata)) => metadata,
            Some(_) => {
                wrong("metadata".into(), "an object");
                return None;
            }
        };
        for name in ["labels", "annotations"] {
            match metadata.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::Object(entries)) if entries.values().all(Value::is_string) => {}
                Some(_) => wrong(format!("metadata.{name}"), "texts by name"),
            }
        }
        for (name, is_needed) in [("containers", true), ("initContainers", false), ("volumes", false)] {
            match spec.get(name) {
                None | Some(Value::Null) if !is_needed => {}
                Some(Value::Array(items))
                    if items.iter().all(|item| item.get("name").is_some_and(Value::is_string))
                        && !(is_needed && items.is_empty()) => {}
                _ => wrong(format!("spec.{name}"), "a list of objects with names"),
            }
        }
        (refusals.0.len() == before).then_some(Self { metadata, spec })
    }

    /// All containers, those for the beginning first.
    pub(super) fn containers(&self) -> impl Iterator<Item = Container<'a>> {
        let spec = self.spec;
        CONTAINERS.into_iter().flat_map(move |field| {
            let items = spec.get(field).and_then(Value::as_array).into_iter().flatten().enumerate();
            items.filter_map(move |(at, item)| {
                Some(Container { path: format!("spec.{field}[{at}]"), fields: item.as_object()? })
            })
        })
    }

    pub(super) fn annotations(&self) -> &'a Map<String, Value> {
        self.texts("annotations")
    }

    /// Labels or annotations.
    pub(super) fn texts(&self, name: &str) -> &'a Map<String, Value> {
        self.metadata.get(name).and_then(Value::as_object).unwrap_or(&*NOTHING)
    }

    /// An annotation, without spaces around it.
    pub(super) fn annotation(&self, name: &str) -> Option<&'a str> {
        self.annotations().get(name).and_then(Value::as_str).map(str::trim)
    }

    /// True if a container has the proxy's name.
    pub(super) fn has_proxy(&self) -> bool {
        self.containers().any(|container| container.name() == PROXY_CONTAINER)
    }

    /// True if its proxy is an init container that goes on.
    pub(super) fn is_native(&self) -> bool {
        let all = self.spec.get("initContainers").and_then(Value::as_array);
        all.into_iter().flatten().any(|item| item.get("name").is_some_and(|name| name == PROXY_CONTAINER))
    }

    /// Whether it says that it wants a proxy; refused if it cannot be told.
    pub(super) fn wish(&self, refusals: &mut Refusals) -> Option<bool> {
        let mut wish = None;
        for field in ["labels", "annotations"] {
            let Some(text) = self.texts(field).get(labels::INJECT).and_then(Value::as_str) else { continue };
            let said = match text {
                "enabled" => true,
                "disabled" => false,
                _ => {
                    let message = format!("{text:?} is not known");
                    refusals.add(path(field, labels::INJECT), message, "write enabled or disabled");
                    continue;
                }
            };
            // An opt-out in either of them holds.
            wish = Some(wish.unwrap_or(true) && said);
        }
        wish
    }

    /// Labels and annotations of the mesh: where, and the name.
    pub(super) fn ours(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        ["labels", "annotations"].into_iter().flat_map(|field| {
            let ours = self.texts(field).keys().filter(|key| key.starts_with(labels::PREFIX));
            ours.map(move |key| (field, key.as_str()))
        })
    }
}

/// Path of an annotation.
pub(super) fn annotation(name: &str) -> String {
    path("annotations", name)
}

/// Path of a label or an annotation.
pub(super) fn path(field: &str, name: &str) -> String {
    format!("metadata.{field}[{name}]")
}

/// True for the names of our own containers.
pub(super) fn is_ours(name: &str) -> bool {
    [PROXY_CONTAINER, INIT_CONTAINER, CHECK_CONTAINER].contains(&name)
}
