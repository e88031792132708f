//! `meshctl uninstall`: everything that the mesh has put into a cluster, taken away.

use std::time::Duration;

use super::install;
use crate::{
    Exit,
    chart::NAMESPACE,
    cli::{UninstallArgs, Where},
    cluster::{
        Cluster,
        preflight::{self, MANAGED_BY},
        rights,
    },
    install::{InstallError, remove::Remains, steps},
    out::{Out, units},
};

/// Most names that are told of many.
const NAMED: usize = 5;

/// Uninstalls, unless something would break.
///
/// # Errors
/// When the cluster cannot be asked.
pub(crate) async fn run(
    place: &Where,
    timeout: Duration,
    args: &UninstallArgs,
    out: &Out,
) -> anyhow::Result<Exit> {
    let cluster = install::connect(place, timeout, out).await?;
    uninstall(&cluster, args, out).await.or_else(|error| crate::install::told(error, out))
}

async fn uninstall(cluster: &Cluster, args: &UninstallArgs, out: &Out) -> anyhow::Result<Exit> {
    if let Some(deployment) = preflight::deployment().read(cluster).await?
        && deployment["metadata"]["labels"][MANAGED_BY] == "Helm"
    {
        let remedy = format!("use `helm uninstall -n {NAMESPACE}`");
        return Err(InstallError::obstacle("the mesh is managed by Helm", remedy).into());
    }
    let mut found = Remains::find(cluster).await?;
    if args.keep_crds {
        found.definitions.clear();
        found.custom.clear();
    }
    if found.is_empty() {
        out.line("there is no mesh in this cluster")?;
        return Ok(Exit::Ok);
    }
    if !args.force {
        let obstacles = obstacles(&found);
        if !obstacles.is_empty() {
            return Err(InstallError::Obstacles(obstacles).into());
        }
    }
    let all: Vec<_> = found.objects.iter().chain(&found.definitions).cloned().collect();
    let missing = rights::missing(cluster, &all, &["delete"]).await?;
    if !missing.is_empty() {
        let what = format!("you may not {}", missing.join("; "));
        let remedy = "use a context of somebody who may, such as a cluster-admin";
        return Err(InstallError::obstacle(what, remedy).into());
    }
    if args.dry_run {
        for id in &all {
            out.line(&format!("delete    {id}"))?;
        }
        out.line(&format!(
            "{} to delete; nothing was changed",
            units::count(all.len(), "object", "objects")
        ))?;
        return Ok(Exit::Ok);
    }
    let removed = found.remove(cluster, args.within, out).await;
    let agents = removed.map_err(|error| {
        steps::unfinished(error, "run `meshctl uninstall` again: it goes on where it stopped")
    })?;
    let left = Remains::find(cluster).await?;
    let kept = if args.keep_crds { left.objects.len() } else { left.objects.len() + left.definitions.len() };
    if kept > 0 {
        let what = format!("{} came back meanwhile", units::count(kept, "object", "objects"));
        return Err(InstallError::obstacle(what, "run `meshctl uninstall` again").into());
    }
    out.line(&format!("the mesh is gone: {} deleted", units::count(all.len(), "object", "objects")))?;
    let left: Vec<String> = agents.and_then(|agents| agents.stay_chained()).into_iter().collect();
    Ok(install::tidied(&left, out))
}

fn obstacles(found: &Remains) -> Vec<preflight::Obstacle> {
    let mut obstacles = Vec::new();
    if !found.injected.is_empty() {
        let count = units::count(found.injected.len(), "pod still has", "pods still have");
        let pods: Vec<String> = found.injected.iter().map(|injected| injected.pod.clone()).collect();
        obstacles.push(preflight::Obstacle {
            what: format!("{count} a sidecar ({})", some(&pods)),
            remedy: "without a controller these lose their certificates within a day: take the label \
                     meshctl.dev/inject away and restart them, or add --force"
                .to_owned(),
        });
    }
    if let Some(agents) = found.agents.as_ref().filter(|agents| !agents.are_ready()) {
        obstacles.push(preflight::Obstacle {
            what: format!("the CNI plugin would stay on nodes whose agent is not ready ({})", agents.nodes()),
            remedy: format!(
                "no pod would start there: see `kubectl -n {NAMESPACE} get pods -o wide -l \
                 app.kubernetes.io/name=mesh-cni`, or add --force and take it out by hand (docs/cni.md)"
            ),
        });
    }
    if !found.custom.is_empty() {
        let count =
            units::count(found.custom.len(), "object of the mesh's kinds", "objects of the mesh's kinds");
        obstacles.push(preflight::Obstacle {
            what: format!("{count} would go ({})", some(&found.custom)),
            remedy: "keep them with --keep-crds, or add --force".to_owned(),
        });
    }
    obstacles
}

pub(super) fn some(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let first = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { first } else { format!("{first} and {more} more") }
}
