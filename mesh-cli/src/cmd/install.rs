//! `meshctl install`: the mesh's control plane, put into a cluster.

use serde_json::{Value, json};

use super::version::VERSION;
use crate::{
    Exit,
    chart::{
        self, meaning,
        values::{self, ValuesError},
    },
    cli::{InstallArgs, Where},
    cluster::{
        Cluster, ClusterError,
        objects::{Change, Id},
        preflight,
    },
    install::{InstallError, domain, release::Release, remove, steps},
    out::{Out, table, units},
};

/// What is left as it is when the controller does not come up.
const REST: &str = "what was applied stays: mend that and run the same command again, or take it away with `meshctl uninstall`";

/// Installs, or completes or changes what is installed.
///
/// # Errors
/// When values cannot be used, or the cluster cannot be asked.
pub(crate) async fn run(
    place: &Where,
    timeout: std::time::Duration,
    args: &InstallArgs,
    out: &Out,
) -> anyhow::Result<Exit> {
    let overlay = args.values.wanted().overlay(base())?;
    if !out.is_table() {
        print(&rendered(overlay)?, out)?;
        return Ok(Exit::Ok);
    }
    // Refused before anybody is asked.
    let mut objects = rendered(overlay.clone())?;
    let cluster = connect(place, timeout, out).await?;
    let result = async {
        may(&cluster, &objects).await?;
        let earlier = Release::read(&cluster).await?;
        let mut overlay = overlay;
        if let Some(earlier) = &earlier {
            if earlier.version != VERSION {
                let what = format!("version {} is installed, and this is meshctl {VERSION}", earlier.version);
                return Err(InstallError::obstacle(what, "use `meshctl upgrade`").into());
            }
            // What is typed goes on top: whoever changes one value means to keep the others.
            overlay = args.values.wanted().overlay(earlier.overlay.clone())?;
            objects = rendered(overlay.clone())?;
        }
        let plan = examined(&cluster, &objects, earlier.as_ref(), args.beside_others).await?;
        if args.dry_run {
            show(&plan, out)?;
            return Ok(Exit::Ok);
        }
        let started = std::time::Instant::now();
        let taken = steps::take(&cluster, &objects, args.within, out).await;
        let left = taken.map_err(|error| steps::unfinished(error, REST))?;
        Release::new(VERSION, overlay, &objects).write(&cluster).await?;
        let seconds = started.elapsed().as_secs_f64();
        out.line(&format!("the mesh {VERSION} is ready, after {seconds:.1} s"))?;
        out.hint("kubectl label namespace NAME meshctl.dev/inject=enabled; new pods there get a sidecar");
        Ok(tidied(&left, out))
    };
    result.await.or_else(|error| crate::install::told(error, out))
}

/// Says what was left beside a mesh that is ready.
pub(super) fn tidied(left: &[String], out: &Out) -> Exit {
    for text in left {
        out.failure(text);
    }
    if left.is_empty() { Exit::Ok } else { Exit::NotWell }
}

/// What meshctl wants beside what is typed: nobody else makes the namespace.
pub(super) fn base() -> Value {
    json!({"namespace": {"create": true}})
}

/// The objects of these values.
pub(in crate::cmd) fn rendered(overlay: Value) -> anyhow::Result<Vec<Value>> {
    let values = values::complete(overlay)?;
    let objects = chart::render(&values, "meshctl")?;
    let wrong = meaning::check(&values, &objects);
    if wrong.is_empty() { Ok(objects) } else { Err(ValuesError::Refused(wrong).into()) }
}

/// Connects, and says where to.
pub(super) async fn connect(
    place: &Where,
    timeout: std::time::Duration,
    out: &Out,
) -> Result<Cluster, ClusterError> {
    let cluster = Cluster::connect(place, timeout).await?;
    let (major, minor) = cluster.version;
    let context = table::plain(&cluster.context);
    out.remark(&format!("cluster   {} (context {context}, Kubernetes {major}.{minor})", cluster.url));
    Ok(cluster)
}

/// Sees that whoever asks has the rights for it.
pub(super) async fn may(cluster: &Cluster, objects: &[Value]) -> anyhow::Result<()> {
    let mut obstacles = preflight::rights(cluster, objects).await?;
    obstacles.extend(preflight::may(cluster, &remove::kinds(), &["list"]).await?);
    if obstacles.is_empty() { Ok(()) } else { Err(InstallError::Obstacles(obstacles).into()) }
}

/// What would become of objects.
pub(super) struct Plan {
    applied: Vec<(Id, Change)>,
    /// What is not wanted any more.
    beyond: Vec<Id>,
}

/// Sees that all can be done, and what that would be.
pub(super) async fn examined(
    cluster: &Cluster,
    objects: &[Value],
    earlier: Option<&Release>,
    beside_others: bool,
) -> anyhow::Result<Plan> {
    let mut obstacles = preflight::check(cluster, objects, beside_others).await?;
    obstacles.extend(domain::check(cluster, objects, earlier).await?);
    let beyond = remove::beyond(cluster, objects).await?;
    obstacles.extend(preflight::may(cluster, &beyond, &["delete"]).await?);
    if !obstacles.is_empty() {
        return Err(InstallError::Obstacles(obstacles).into());
    }
    let has_namespace = preflight::namespace().read(cluster).await?.is_some();
    let applied = steps::plan(cluster, objects, has_namespace).await;
    Ok(Plan { applied: applied.map_err(InstallError::Refused)?, beyond })
}

/// Shows a plan.
pub(super) fn show(plan: &Plan, out: &Out) -> anyhow::Result<()> {
    let Plan { applied, beyond } = plan;
    let count = |wanted: Change| applied.iter().filter(|(_, change)| *change == wanted).count();
    for (id, change) in applied {
        match change {
            Change::Created => out.line(&format!("create    {id}"))?,
            Change::Changed => out.line(&format!("change    {id}"))?,
            Change::Unchanged => out.detail(&format!("unchanged {id}")),
        }
    }
    for id in beyond {
        out.line(&format!("delete    {id}"))?;
    }
    out.line(&format!(
        "{} to create, {} to change, {} to delete, {} as they are; nothing was changed",
        units::count(count(Change::Created), "object", "objects"),
        count(Change::Changed),
        beyond.len(),
        count(Change::Unchanged),
    ))?;
    Ok(())
}

fn print(objects: &[Value], out: &Out) -> anyhow::Result<()> {
    if out.is_yaml() {
        for object in steps::ordered(objects) {
            out.document_in_series(object)?;
        }
        return Ok(());
    }
    out.document(&json!({"apiVersion": "v1", "kind": "List", "items": steps::ordered(objects)}))
}
