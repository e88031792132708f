//! `meshctl check --pre`: could the mesh be installed here? Nothing is changed.

use super::{
    model::{Check, Outcome},
    surroundings,
};
use crate::{
    cluster::{
        Cluster, ClusterError,
        objects::{self, Id},
        preflight::{self, Obstacle},
    },
    cmd::install,
    install::steps,
};

const CLUSTER: &str = "Cluster";
const INSTALLATION: &str = "Installation";

/// All checks, with the chart's default values.
///
/// # Errors
/// When the chart cannot be rendered.
pub(super) async fn checks(cluster: &Cluster) -> anyhow::Result<Vec<Check>> {
    let objects = install::rendered(install::base())?;
    let mut checks = version(cluster);
    checks.push(surroundings::native_sidecars(cluster.version));
    let rights = preflight::rights(cluster, &objects).await;
    let may = rights.as_ref().is_ok_and(Vec::is_empty);
    checks.extend(told(CLUSTER, "you may install the mesh", rights));
    if !may {
        // Without the rights, nothing else could be found out.
        return Ok(checks);
    }
    checks.extend(beside(cluster).await);
    let ids: Vec<Id> = objects.iter().map(Id::of).collect();
    let managers = preflight::managers(cluster, &ids).await;
    let free = managers.as_ref().is_ok_and(Vec::is_empty);
    checks.extend(told(INSTALLATION, "nobody else manages the mesh's objects", managers));
    checks.extend(told(INSTALLATION, "no other mesh injects pods", preflight::others(cluster).await));
    checks.extend(told(
        INSTALLATION,
        "all kinds that it needs are there",
        preflight::kinds(cluster, &ids).await,
    ));
    if free {
        checks.push(tried(cluster, &objects).await);
    }
    Ok(checks)
}

/// What is there that the mesh will live with.
async fn beside(cluster: &Cluster) -> Vec<Check> {
    let unknown = |check, error: &ClusterError| {
        let reason = format!("it cannot be told: {error}");
        let remedy = "use a context of somebody who may read it, such as a cluster-admin";
        vec![Check::bad(CLUSTER, check, Outcome::Warn, reason, remedy)]
    };
    let version = "apiextensions.k8s.io/v1";
    let mut checks = match objects::list(cluster, version, "CustomResourceDefinition", "", "").await {
        Ok(definitions) => surroundings::kinds(&definitions),
        Err(error) => unknown("kinds are served in the versions that the mesh reads", &error),
    };
    match objects::list(cluster, "v1", "Namespace", "", "").await {
        Ok(namespaces) => {
            checks.extend(surroundings::others(&namespaces));
            checks.extend(surroundings::pod_security(&namespaces, false));
            checks.extend(surroundings::home(&namespaces));
        }
        Err(error) => checks.extend(unknown("namespaces fit the mesh", &error)),
    }
    checks
}

/// That the API server answers, and how old it is.
pub(super) fn version(cluster: &Cluster) -> Vec<Check> {
    let (major, minor) = cluster.version;
    let answers = Check::ok(CLUSTER, "the API server answers", cluster.url.clone());
    let check = "its version is supported";
    match preflight::version(cluster).pop() {
        None => vec![answers, Check::ok(CLUSTER, check, format!("Kubernetes {major}.{minor}"))],
        Some(old) => vec![answers, Check::bad(CLUSTER, check, Outcome::Fail, old.what, old.remedy)],
    }
}

/// One check for each obstacle, or one that there is none.
fn told(
    category: &'static str,
    check: &'static str,
    found: Result<Vec<Obstacle>, ClusterError>,
) -> Vec<Check> {
    match found {
        Ok(obstacles) if obstacles.is_empty() => vec![Check::ok(category, check, None)],
        Ok(obstacles) => {
            let bad = |o: Obstacle| Check::bad(category, check, Outcome::Fail, o.what, o.remedy);
            obstacles.into_iter().map(bad).collect()
        }
        Err(error) => vec![Check::bad(category, check, Outcome::Fail, error.to_string(), "")],
    }
}

/// What the API server itself says to all that would be applied.
async fn tried(cluster: &Cluster, objects: &[serde_json::Value]) -> Check {
    let check = "the API server would take every object";
    let plan = match preflight::namespace().read(cluster).await {
        Ok(namespace) => steps::plan(cluster, objects, namespace.is_some()).await,
        Err(error) => Err(error),
    };
    match plan {
        Ok(plan) => Check::ok(INSTALLATION, check, format!("{} objects, as a dry run", plan.len())),
        Err(error) => {
            let remedy = "see what in the cluster refuses it, such as a policy or another webhook";
            Check::bad(INSTALLATION, check, Outcome::Fail, error.to_string(), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obstacles_become_checks() {
        let obstacle = |what: &str| Obstacle { what: what.into(), remedy: "do it".into() };
        let bad = told(CLUSTER, "c", Ok(vec![obstacle("a"), obstacle("b")]));
        let told_of = |check: &Check| (check.result, check.reason.clone(), check.remedy.clone());
        assert_eq!(bad.len(), 2);
        assert_eq!(told_of(&bad[1]), (Outcome::Fail, Some("b".into()), Some("do it".into())));
        assert_eq!(told(CLUSTER, "c", Ok(Vec::new())), [Check::ok(CLUSTER, "c", None)]);
        let error = ClusterError::NoConfig("x".into());
        assert_eq!(told(CLUSTER, "c", Err(error))[0].result, Outcome::Fail);
    }
}
