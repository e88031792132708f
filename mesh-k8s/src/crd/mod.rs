//! CustomResourceDefinitions of the kinds that the mesh brings: schemas stand beside the readers in [`crate::parse`], and a
//! test sees that both know the same fields. The chart's files are made from these.

mod mesh;
mod schema;
mod smi;
#[cfg(test)]
mod tests;
mod traffic;

use serde_json::{Value, json};

use self::schema::{Schema, object, plain};
use crate::labels;

/// A kind, as the API server is told of it.
#[derive(Clone, Debug)]
pub struct Crd {
    /// As in YAML.
    pub kind: &'static str,
    /// Its API group.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its name in URLs.
    pub plural: &'static str,
    /// Short names, for kubectl.
    pub short: &'static [&'static str],
    /// Columns of `kubectl get`: name and path.
    columns: &'static [(&'static str, &'static str)],
    spec: fn() -> Schema,
    spec_is_required: bool,
}

/// Columns of `kubectl get` that all kinds have.
const CONDITIONS: [(&str, &str); 2] = [
    ("Accepted", ".status.conditions[?(@.type==\"Accepted\")].status"),
    ("Applied", ".status.conditions[?(@.type==\"Applied\")].status"),
];

/// All of them: the mesh's own first, then those of SMI.
pub const ALL: [Crd; 7] = [
    Crd {
        columns: &[("Address", ".spec.address"), ("Account", ".spec.serviceAccount")],
        ..own("Workload", "workloads", &["mwl"], mesh::workload)
    },
    Crd {
        columns: &[("Target", ".spec.targetRef.name")],
        ..own("TrafficPolicy", "trafficpolicies", &["mtp"], traffic::policy)
    },
    Crd {
        columns: &[("Hosts", ".spec.hosts")],
        ..own("ExternalService", "externalservices", &["mes"], mesh::external_service)
    },
    Crd {
        columns: &[("Service", ".spec.service")],
        ..foreign("TrafficSplit", "split.smi-spec.io", "v1alpha4", "trafficsplits", &["ts"], smi::split)
    },
    Crd {
        columns: &[("Destination", ".spec.destination.name")],
        ..foreign("TrafficTarget", "access.smi-spec.io", "v1alpha3", "traffictargets", &["tt"], smi::target)
    },
    foreign("HTTPRouteGroup", "specs.smi-spec.io", "v1alpha4", "httproutegroups", &["htr"], smi::route_group),
    Crd {
        spec_is_required: false,
        ..foreign("TCPRoute", "specs.smi-spec.io", "v1alpha4", "tcproutes", &["tr"], smi::tcp_route)
    },
];

const fn own(
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    spec: fn() -> Schema,
) -> Crd {
    foreign(kind, labels::API_GROUP, "v1alpha1", plural, short, spec)
}

const fn foreign(
    kind: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    spec: fn() -> Schema,
) -> Crd {
    Crd { kind, group, version, plural, short, columns: &[], spec, spec_is_required: true }
}

impl Crd {
    /// True for the mesh's own kinds.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.group == labels::API_GROUP
    }

    /// The name of the CustomResourceDefinition.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// Schema of an object.
    fn schema(&self) -> Value {
        let metadata = json!({"type": "object"});
        let mut schema = object([("apiVersion", plain()), ("kind", plain()), ("spec", (self.spec)())]);
        if self.spec_is_required {
            schema = schema.required(&["spec"]);
        }
        let mut schema = schema.json();
        if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            fields.insert("metadata".to_owned(), metadata);
            fields.insert("status".to_owned(), mesh::status().json());
        }
        schema
    }

    /// The CustomResourceDefinition.
    #[must_use]
    pub fn definition(&self) -> Value {
        let column = |(name, path): &(&str, &str)| json!({"name": name, "type": "string", "jsonPath": path});
        let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"});
        let columns = self.columns.iter().chain(&CONDITIONS).map(column).chain([age]);
        let columns: Vec<Value> = columns.collect();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": self.name(),
                "labels": {"app.kubernetes.io/part-of": "mesh"},
                "annotations": {"helm.sh/resource-policy": "keep"},
            },
            "spec": {
                "group": self.group,
                "scope": "Namespaced",
                "names": {
                    "kind": self.kind,
                    "listKind": format!("{}List", self.kind),
                    "plural": self.plural,
                    "singular": self.kind.to_ascii_lowercase(),
                    "shortNames": self.short,
                    "categories": ["mesh"],
                },
                "versions": [{
                    "name": self.version,
                    "served": true,
                    "storage": true,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": self.schema()},
                }],
            },
        })
    }

    /// The chart's file of it: YAML (which JSON is, too), under the condition that the chart's values want it.
    ///
    /// # Errors
    /// When it cannot be written as YAML.
    pub fn template(&self) -> Result<String, serde_saphyr::SerializeError> {
        let value = if self.is_own() { "mesh" } else { "smi" };
        let yaml = serde_saphyr::to_string(&self.definition())?;
        let yaml = yaml.trim_end();
        Ok(format!(
            "{{{{- /* Made from mesh-k8s/src/crd by `cargo run -p mesh-k8s --example crds`. */ -}}}}\n\
             {{{{- if .Values.crds.{value} }}}}\n{yaml}\n{{{{- end }}}}\n"
        ))
    }
}
