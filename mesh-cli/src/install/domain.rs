//! The trust domain stays: keys and identities were made for it, and a controller refuses another.

use mesh_k8s::names::CA_SECRET;
use serde_json::Value;

use super::release::Release;
use crate::{
    chart::{NAMESPACE, meaning},
    cluster::{Cluster, ClusterError, objects::Id, preflight::Obstacle},
};

/// What is in the way where these objects would give the mesh another one.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn check(
    cluster: &Cluster,
    wanted: &[Value],
    earlier: Option<&Release>,
) -> Result<Option<Obstacle>, ClusterError> {
    let Some(wanted) = meaning::trust_domain(wanted) else { return Ok(None) };
    let Some(fixed) = fixed(cluster, earlier).await? else { return Ok(None) };
    Ok((wanted != fixed).then(|| Obstacle {
        what: format!("the trust domain of this mesh is {fixed}, and would become {wanted}"),
        remedy: format!(
            "its keys and identities are made for {fixed}: keep it with --set trustDomain={fixed}, or \
             `meshctl uninstall` before you install with another"
        ),
    }))
}

/// None: there are no keys yet, or nothing tells for which domain they are.
async fn fixed(cluster: &Cluster, earlier: Option<&Release>) -> Result<Option<String>, ClusterError> {
    let id = |kind: &str, name: &str| Id {
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
    };
    // Whoever must not read them is not told that there are none.
    if matches!(id("Secret", CA_SECRET).read(cluster).await, Ok(None)) {
        return Ok(None);
    }
    // What was completed goes first: a run that was refused later may have left another configuration.
    if let Some(known) = earlier.and_then(|earlier| meaning::trust_domain(&earlier.objects)) {
        return Ok(Some(known));
    }
    let config = id("ConfigMap", meaning::CONFIG).read(cluster).await?;
    Ok(config.and_then(|config| meaning::trust_domain(&[config])))
}
