//! `metadata`, and the options that stand in its labels and annotations.

use std::collections::BTreeMap;

use mesh_core::{
    identity::CONTROLLER,
    name::{is_dns_label, is_dns_name},
    policy::{DefaultAction, TlsMode},
};

use crate::{
    labels,
    nearest::nearest,
    object::Name,
    parse::{
        kinds::Kind,
        reader::{Field, Reader},
        tree::Value,
    },
};

/// Why the controller's own identity is refused.
pub(crate) const RESERVED: &str = "mesh-system/mesh-controller is the controller's own identity";

const DEFAULT_POLICIES: [(&str, DefaultAction); 4] = [
    ("allow", DefaultAction::Allow),
    ("authenticated", DefaultAction::Authenticated),
    ("deny", DefaultAction::Deny),
    ("smi", DefaultAction::Smi),
];

/// Longest label value, in bytes (Kubernetes).
const MAX_LABEL: usize = 63;

/// The words for what is let in without mesh TLS.
pub(crate) const TLS_MODES: [(&str, TlsMode); 2] =
    [("permissive", TlsMode::Permissive), ("strict", TlsMode::Strict)];

/// What is read of `metadata`.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    pub(crate) name: Name,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) default_policy: Option<DefaultAction>,
    pub(crate) mtls: Option<TlsMode>,
    /// An option that is, or could have been, the default policy cannot be read.
    pub(crate) unreadable_policy: bool,
    /// The same of the TLS mode.
    pub(crate) unreadable_mtls: bool,
}

impl Default for Name {
    fn default() -> Self {
        Self { namespace: "".into(), name: "".into() }
    }
}

impl Name {
    /// True for the reserved name that nobody may run under.
    pub(crate) fn is_controller(&self) -> bool {
        (&*self.namespace, &*self.name) == CONTROLLER
    }
}

impl Metadata {
    /// Reads and checks it. None: it lacks a usable name.
    pub(crate) fn read(reader: &mut Reader, field: &Field<'_>, kind: Kind) -> Option<Self> {
        let mut fields = reader.fields(field);
        let (is_valid, what): (fn(&str) -> bool, _) = if kind.is_label() {
            (is_dns_label, "a name of at most 63 characters (RFC 1123 label)")
        } else {
            (is_dns_name, "a name (RFC 1123)")
        };
        let name = fields.required(reader, "name").and_then(|f| reader.name(&f, is_valid, what));
        let namespace = match fields.optional("namespace") {
            Some(f) if kind == Kind::Namespace => {
                reader.refuse(f.line(), &f.path, "a Namespace lies in no namespace", "remove the field");
                None
            }
            Some(f) => reader.name(&f, is_dns_label, "a namespace (RFC 1123 label)"),
            None => Some("default"),
        };
        let mut metadata = Self::default();
        for name in ["labels", "annotations"] {
            let Some(f) = fields.optional(name) else { continue };
            let entries = reader.entries(&f);
            if !matches!(f.node.value, Value::Map(_)) {
                (metadata.unreadable_policy, metadata.unreadable_mtls) = (true, true);
            }
            metadata.options(reader, &entries, kind);
            if name == "labels" {
                label_values(reader, &entries);
                metadata.labels = reader.texts(&entries);
            } else {
                reader.texts(&entries);
            }
        }
        fields.ignore(&[
            "creationTimestamp",
            "deletionGracePeriodSeconds",
            "deletionTimestamp",
            "finalizers",
            "generateName",
            "generation",
            "managedFields",
            "ownerReferences",
            "resourceVersion",
            "selfLink",
            "uid",
        ]);
        fields.finish(reader);
        metadata.name = Name { namespace: namespace?.into(), name: name?.into() };
        Some(metadata)
    }

    /// True when its label asks for proxies; the annotation of that name does not count.
    pub(crate) fn is_injected(&self) -> bool {
        self.labels.get(labels::INJECT).is_some_and(|value| value == "enabled")
    }

    /// Notes that the option `key`, or what was probably meant by it, cannot be read.
    fn doubt(&mut self, key: &str) {
        let meant = if labels::ALL.contains(&key) { Some(key) } else { nearest(key, labels::ALL) };
        self.unreadable_policy |= meant.is_none_or(|meant| meant == labels::DEFAULT_POLICY);
        self.unreadable_mtls |= meant.is_none_or(|meant| meant == labels::MTLS);
    }

    /// Reads the mesh's own options among labels or annotations.
    fn options(&mut self, reader: &mut Reader, entries: &[(&str, Field<'_>)], kind: Kind) {
        let has_effect = |key: &str| match kind {
            Kind::Namespace => true,
            Kind::Workload => key == labels::MTLS,
            _ => false,
        };
        // What is no text is reported with the other labels.
        let ours = |(key, _): &&(&str, Field<'_>)| key.starts_with(labels::PREFIX);
        for (key, value) in entries.iter().filter(ours) {
            if value.node.text().is_none() {
                self.doubt(key);
                continue;
            }
            match *key {
                labels::INJECT => {}
                labels::DEFAULT_POLICY if has_effect(key) => {
                    let chosen = reader.choice(value, &DEFAULT_POLICIES);
                    self.unreadable_policy |= !set(reader, value, &mut self.default_policy, chosen);
                }
                labels::MTLS if has_effect(key) => {
                    let chosen = reader.choice(value, &TLS_MODES);
                    self.unreadable_mtls |= !set(reader, value, &mut self.mtls, chosen);
                }
                labels::DEFAULT_POLICY | labels::MTLS => {
                    let message = format!("{key} has no effect on a {}", kind.as_str());
                    reader.refuse(value.line(), &value.path, message, "put it on the Namespace");
                }
                key if labels::OF_PODS.contains(&key) => {
                    let message = format!("{key} has no effect on a {}", kind.as_str());
                    reader.refuse(value.line(), &value.path, message, "put it on the pod, as an annotation");
                }
                _ => {
                    self.doubt(key);
                    let remedy = match nearest(key, labels::ALL) {
                        Some(name) => format!("did you mean {name:?}?"),
                        None => format!("known: {}", labels::ALL.join(", ")),
                    };
                    reader.refuse(value.line(), &value.path, "the option is unknown", remedy);
                }
            }
        }
    }
}

/// Label values as Kubernetes allows them, as far as it matters here.
fn label_values(reader: &mut Reader, entries: &[(&str, Field<'_>)]) {
    for (_, value) in entries {
        let text = value.node.text().unwrap_or_default();
        if text.len() > MAX_LABEL || text.chars().any(char::is_control) {
            let what = format!("a label value of at most {MAX_LABEL} characters in one line");
            reader.expected(value, &what, "shorten it, or make it an annotation");
        }
    }
}

/// Label and annotation can both say it, but must agree. False: what is meant cannot be told.
fn set<T: Copy + PartialEq>(
    reader: &mut Reader,
    field: &Field<'_>,
    slot: &mut Option<T>,
    chosen: Option<T>,
) -> bool {
    let differ = slot.is_some() && chosen.is_some() && *slot != chosen;
    if differ {
        let message = "label and annotation of this name say different things";
        reader.refuse(field.line(), &field.path, message, "keep one of them");
    }
    *slot = slot.or(chosen);
    chosen.is_some() && !differ
}
