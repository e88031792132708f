//! Objects as they are: read, applied server-side, deleted.

use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
    core::GroupVersionKind,
};
use serde_json::Value;

use super::{Cluster, ClusterError, is_absent, refused};

/// Who manages the fields that are applied.
pub(crate) const MANAGER: &str = "meshctl";

/// Objects in one answer of a list.
const PAGE: u32 = 500;

/// Kinds that the chart makes, with their names in URLs, and whether they lie in namespaces.
const KINDS: [(&str, &str, bool); 26] = [
    ("Namespace", "namespaces", false),
    ("CustomResourceDefinition", "customresourcedefinitions", false),
    ("ServiceAccount", "serviceaccounts", true),
    ("ClusterRole", "clusterroles", false),
    ("ClusterRoleBinding", "clusterrolebindings", false),
    ("Role", "roles", true),
    ("RoleBinding", "rolebindings", true),
    ("ConfigMap", "configmaps", true),
    ("Service", "services", true),
    ("NetworkPolicy", "networkpolicies", true),
    ("PodDisruptionBudget", "poddisruptionbudgets", true),
    ("Deployment", "deployments", true),
    ("DaemonSet", "daemonsets", true),
    ("ServiceMonitor", "servicemonitors", true),
    ("PodMonitor", "podmonitors", true),
    ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false),
    ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", false),
    // Not of the chart: the controller's pods, and what it makes.
    ("Pod", "pods", true),
    ("Secret", "secrets", true),
    ("Lease", "leases", true),
    // Of Kubernetes: what tells how pods stand.
    ("EndpointSlice", "endpointslices", true),
    ("ReplicaSet", "replicasets", true),
    ("Event", "events", true),
    ("StatefulSet", "statefulsets", true),
    ("Node", "nodes", false),
    // Only to ask for the right to it.
    ("PodPortForward", "pods/portforward", true),
];

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) api_version: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What applying an object did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Changed,
    Unchanged,
}

impl Id {
    /// Of an object as it is applied.
    pub(crate) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            api_version: text(&object["apiVersion"]),
            kind: text(&object["kind"]),
            namespace: text(&object["metadata"]["namespace"]),
            name: text(&object["metadata"]["name"]),
        }
    }

    /// Its group and its name in URLs; None for kinds that are not known here.
    pub(crate) fn resource(&self) -> Option<(String, &'static str)> {
        let (_, plural, _) = KINDS.iter().find(|(kind, ..)| *kind == self.kind)?;
        let group = self.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        Some((group.to_owned(), *plural))
    }

    fn api(&self, cluster: &Cluster) -> Result<Api<DynamicObject>, ClusterError> {
        let odd = |reason: &str| ClusterError::Odd { what: self.to_string(), reason: reason.to_owned() };
        let (_, plural, namespaced) = KINDS
            .iter()
            .find(|(kind, ..)| *kind == self.kind)
            .ok_or_else(|| odd("meshctl does not know this kind"))?;
        let (group, version) = self.api_version.rsplit_once('/').unwrap_or(("", &self.api_version));
        let kind = GroupVersionKind::gvk(group, version, &self.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, plural);
        let client = cluster.client.clone();
        Ok(if *namespaced {
            Api::namespaced_with(client, &self.namespace, &resource)
        } else {
            Api::all_with(client, &resource)
        })
    }

    /// Reads it; None: it is not there.
    pub(crate) async fn read(&self, cluster: &Cluster) -> Result<Option<Value>, ClusterError> {
        match self.api(cluster)?.get_opt(&self.name).await {
            Ok(found) => found.map(|object| json(self, &object)).transpose(),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(refused(format!("reading {self}"), &error)),
        }
    }

    /// Deletes it; false: it was not there.
    pub(crate) async fn delete(&self, cluster: &Cluster) -> Result<bool, ClusterError> {
        match self.api(cluster)?.delete(&self.name, &DeleteParams::background()).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(refused(format!("deleting {self}"), &error)),
        }
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// Applies an object, or only asks what that would do.
///
/// # Errors
/// When the API server refuses it.
pub(crate) async fn apply(cluster: &Cluster, object: &Value, dry_run: bool) -> Result<Change, ClusterError> {
    let id = Id::of(object);
    let before = id.read(cluster).await?;
    let params = PatchParams { dry_run, ..PatchParams::apply(MANAGER).force() };
    let after = id.api(cluster)?.patch(&id.name, &params, &Patch::Apply(object)).await;
    let after = after.map_err(|error| refused(format!("applying {id}"), &error))?;
    let Some(before) = before else { return Ok(Change::Created) };
    let same = essence(before) == essence(json(&id, &after)?);
    Ok(if same { Change::Unchanged } else { Change::Changed })
}

/// Objects of a kind by their labels, in all namespaces.
pub(crate) async fn labelled(
    cluster: &Cluster,
    api_version: &str,
    kind: &str,
    labels: &str,
) -> Result<Vec<Id>, ClusterError> {
    let of =
        |object: &Value| Id { api_version: api_version.to_owned(), kind: kind.to_owned(), ..Id::of(object) };
    Ok(list(cluster, api_version, kind, "", labels).await?.iter().map(of).collect())
}

/// Objects of a kind by their labels, whole, in one namespace; empty: in all. Nothing where the kind is not there.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn list(
    cluster: &Cluster,
    api_version: &str,
    kind: &str,
    namespace: &str,
    labels: &str,
) -> Result<Vec<Value>, ClusterError> {
    let plural = KINDS.iter().find(|(known, ..)| *known == kind).map_or("", |(_, plural, _)| *plural);
    list_as(cluster, api_version, kind, plural, namespace, labels).await
}

/// As [`list`], of a kind that is not known here, by its name in URLs.
///
/// # Errors
/// As for [`list`].
pub(crate) async fn list_as(
    cluster: &Cluster,
    api_version: &str,
    kind: &str,
    plural: &str,
    namespace: &str,
    labels: &str,
) -> Result<Vec<Value>, ClusterError> {
    let id = Id {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: String::new(),
    };
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let client = cluster.client.clone();
    let api: Api<DynamicObject> = match namespace {
        "" => Api::all_with(client, &resource),
        namespace => Api::namespaced_with(client, namespace, &resource),
    };
    let mut params = ListParams::default().labels(labels).limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = match api.list(&params).await {
            Ok(page) => page,
            Err(error) if is_absent(&error) => return Ok(found),
            Err(error) => return Err(refused(format!("listing {plural}"), &error)),
        };
        for object in &page.items {
            let mut object = json(&id, object)?;
            // Items of a list do not say what they are.
            object["apiVersion"] = api_version.into();
            object["kind"] = kind.into();
            found.push(object);
        }
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params.continue_token = Some(token),
            _ => return Ok(found),
        }
    }
}

fn json(id: &Id, object: &DynamicObject) -> Result<Value, ClusterError> {
    let odd =
        |error: serde_json::Error| ClusterError::Odd { what: id.to_string(), reason: error.to_string() };
    serde_json::to_value(object).map_err(odd)
}

/// An object without what changes by itself.
fn essence(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "labels" | "annotations"));
    }
    object
}
