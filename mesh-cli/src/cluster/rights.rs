//! What whoever asks may do.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, api::PostParams};

use super::{Cluster, ClusterError, objects::Id, refused};

/// Which of these verbs are not allowed on these objects: one text for each kind.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn missing(
    cluster: &Cluster,
    objects: &[Id],
    verbs: &[&str],
) -> Result<Vec<String>, ClusterError> {
    let resources: BTreeSet<(String, &'static str, String)> = objects
        .iter()
        .filter_map(|id| id.resource().map(|(group, plural)| (group, plural, id.namespace.clone())))
        .collect();
    let mut missing = Vec::new();
    for (group, plural, namespace) in resources {
        let mut lacking = Vec::new();
        for verb in verbs {
            if !is_allowed(cluster, (&group, plural), (&namespace, ""), verb).await? {
                lacking.push(*verb);
            }
        }
        if !lacking.is_empty() {
            let place = if namespace.is_empty() { String::new() } else { format!(" in {namespace}") };
            let dot = if group.is_empty() { "" } else { "." };
            missing.push(format!("{} {plural}{dot}{group}{place}", lacking.join(", ")));
        }
    }
    Ok(missing)
}

/// Whether whoever asks may do this to one object; without a name: to all of its kind.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn may(cluster: &Cluster, id: &Id, verb: &str) -> Result<bool, ClusterError> {
    let Some((group, plural)) = id.resource() else { return Ok(false) };
    is_allowed(cluster, (&group, plural), (&id.namespace, &id.name), verb).await
}

async fn is_allowed(
    cluster: &Cluster,
    (group, plural): (&str, &str),
    (namespace, name): (&str, &str),
    verb: &str,
) -> Result<bool, ClusterError> {
    let (resource, part) = plural.split_once('/').map_or((plural, None), |(all, part)| (all, Some(part)));
    let attributes = ResourceAttributes {
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: part.map(ToOwned::to_owned),
        namespace: Some(namespace.to_owned()),
        name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(|error| refused("asking what you may do", &error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
