//! Whether a mesh can be installed: found out before anything is changed.

use serde_json::Value;

use super::{
    Cluster, ClusterError, OLDEST,
    objects::{self, Id},
    rights,
};
use crate::chart::NAMESPACE;

/// Webhooks by which other meshes inject: the beginning of a name, and whose it is.
const OTHERS: [(&str, &str); 7] = [
    ("istio-sidecar-injector", "Istio"),
    ("istio-revision-tag", "Istio"),
    ("linkerd-proxy-injector", "Linkerd"),
    ("consul-consul-connect-injector", "Consul"),
    ("consul-connect-injector", "Consul"),
    ("kuma-admission-mutating", "Kuma"),
    ("osm-webhook", "Open Service Mesh"),
];

/// What is said of who manages an object.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// A reason not to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

fn obstacle(what: impl Into<String>, remedy: impl Into<String>) -> Obstacle {
    Obstacle { what: what.into(), remedy: remedy.into() }
}

/// The controller's Deployment.
pub(crate) fn deployment() -> Id {
    Id {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: "mesh-controller".to_owned(),
    }
}

/// The mesh's namespace.
pub(crate) fn namespace() -> Id {
    Id {
        api_version: "v1".to_owned(),
        kind: "Namespace".to_owned(),
        namespace: String::new(),
        name: NAMESPACE.to_owned(),
    }
}

/// Everything that stands in the way of applying these objects.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn check(
    cluster: &Cluster,
    wanted: &[Value],
    beside_others: bool,
) -> Result<Vec<Obstacle>, ClusterError> {
    let mut found = Vec::new();
    found.extend(version(cluster));
    let ids: Vec<Id> = wanted.iter().map(Id::of).collect();
    found.extend(managers(cluster, &ids).await?);
    if !beside_others {
        found.extend(others(cluster).await?);
    }
    found.extend(kinds(cluster, &ids).await?);
    Ok(found)
}

/// What whoever asks lacks the rights for; without them all else could not be read.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn rights(cluster: &Cluster, wanted: &[Value]) -> Result<Vec<Obstacle>, ClusterError> {
    let ids: Vec<Id> = wanted.iter().map(Id::of).collect();
    may(cluster, &ids, &["get", "create", "patch"]).await
}

/// Which of these verbs whoever asks lacks the right for.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn may(
    cluster: &Cluster,
    ids: &[Id],
    verbs: &[&str],
) -> Result<Vec<Obstacle>, ClusterError> {
    let missing = rights::missing(cluster, ids, verbs).await?;
    let remedy = "use a context of somebody who may, such as a cluster-admin";
    let told = (!missing.is_empty()).then(|| obstacle(format!("you may not {}", missing.join("; ")), remedy));
    Ok(told.into_iter().collect())
}

/// A cluster that is too old.
pub(crate) fn version(cluster: &Cluster) -> Vec<Obstacle> {
    let (major, minor) = cluster.version;
    if major != 1 || minor >= OLDEST {
        return Vec::new();
    }
    let what = format!("the cluster is Kubernetes {major}.{minor}");
    vec![obstacle(what, format!("the mesh needs 1.{OLDEST} or later"))]
}

/// Who else manages what would be applied.
pub(crate) async fn managers(cluster: &Cluster, ids: &[Id]) -> Result<Vec<Obstacle>, ClusterError> {
    if let Some(namespace) = namespace().read(cluster).await?
        && !namespace["metadata"]["deletionTimestamp"].is_null()
    {
        let what = format!("the namespace {NAMESPACE} is being deleted");
        return Ok(vec![obstacle(what, "wait until it is gone, and try again")]);
    }
    let mut found = Vec::new();
    for id in ids.iter().filter(|id| id.kind != "Namespace") {
        let Some(object) = id.read(cluster).await? else { continue };
        let labels = &object["metadata"]["labels"];
        if id.kind == "CustomResourceDefinition" {
            if labels["app.kubernetes.io/part-of"] != "mesh" {
                let value = if id.name.ends_with("smi-spec.io") { "crds.smi" } else { "crds.mesh" };
                let what = format!("{id} is there, and not from the mesh");
                found.push(obstacle(what, format!("leave it as it is with --set {value}=false")));
            }
            continue;
        }
        match labels[MANAGED_BY].as_str() {
            Some("meshctl") => {}
            Some("Helm") => {
                let what = format!("the mesh in this cluster is managed by Helm ({id})");
                return Ok(vec![obstacle(what, "use `helm upgrade`, or `helm uninstall` it first")]);
            }
            _ => {
                let what = format!("{id} is there, and not from meshctl");
                found.push(obstacle(what, "delete it, if nobody needs it"));
            }
        }
    }
    Ok(found)
}

/// Other meshes that inject.
pub(crate) async fn others(cluster: &Cluster) -> Result<Vec<Obstacle>, ClusterError> {
    let webhooks =
        objects::labelled(cluster, "admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "");
    let mut found = Vec::new();
    for id in webhooks.await? {
        if let Some((_, name)) = OTHERS.iter().find(|(start, _)| id.name.starts_with(start)) {
            let remedy = "remove it; or add --beside-others, and never let both inject the same pod";
            found.push(obstacle(format!("{name} is installed ({id})"), remedy));
        }
    }
    Ok(found)
}

/// Kinds that others must have brought.
pub(crate) async fn kinds(cluster: &Cluster, ids: &[Id]) -> Result<Vec<Obstacle>, ClusterError> {
    let mut found = Vec::new();
    for id in ids.iter().filter(|id| id.api_version.starts_with("monitoring.coreos.com/")) {
        let plural = id.resource().map_or("", |(_, plural)| plural);
        let definition = Id {
            api_version: "apiextensions.k8s.io/v1".to_owned(),
            kind: "CustomResourceDefinition".to_owned(),
            namespace: String::new(),
            name: format!("{plural}.monitoring.coreos.com"),
        };
        if definition.read(cluster).await?.is_none() {
            let remedy = "install the Prometheus operator first, or leave out the values under monitoring";
            found.push(obstacle(format!("the cluster has no kind {}", id.kind), remedy));
        }
    }
    Ok(found)
}
