//! Things of a cluster: how the mesh takes a pod, what makes pods, a namespace or a node. What the controller says is added
//! where it answers.

mod groups;
mod pod;

use std::{collections::BTreeSet, time::Duration};

use anyhow::bail;
use serde_json::Value;

use super::{
    Mesh, Name,
    document::{self, View},
    edges, print,
};
use crate::{
    Exit,
    cli::{InspectArgs, Kind, Thing},
    cluster::{
        Cluster,
        objects::{self, Id},
        select::{self, Named, POD, pair},
        standing::{has_proxy, meshed},
    },
    cmd::names::Wanted,
    ctx::Ctx,
    out::Out,
};

const DEPLOYMENT: Named = Named {
    api_version: "apps/v1",
    kind: "Deployment",
    noun: "deployment",
    lists: "kubectl get deployments -A",
};
const STATEFULSET: Named = Named {
    api_version: "apps/v1",
    kind: "StatefulSet",
    noun: "statefulset",
    lists: "kubectl get statefulsets -A",
};
const DAEMONSET: Named = Named {
    api_version: "apps/v1",
    kind: "DaemonSet",
    noun: "daemonset",
    lists: "kubectl get daemonsets -A",
};
const NAMESPACE: Named =
    Named { api_version: "v1", kind: "Namespace", noun: "namespace", lists: "kubectl get namespaces" };
const NODE: Named = Named { api_version: "v1", kind: "Node", noun: "node", lists: "kubectl get nodes" };

/// What is asked.
pub(super) struct Seen {
    pub(super) cluster: Cluster,
    pub(super) patience: Duration,
    /// None: no controller answers.
    pub(super) mesh: Option<Mesh>,
    /// Namespaces that ask for proxies.
    pub(super) meshed: BTreeSet<String>,
}

impl Seen {
    fn meshed(&self) -> BTreeSet<&str> {
        self.meshed.iter().map(String::as_str).collect()
    }
}

/// Prints what is known of it.
///
/// # Errors
/// When the cluster does not answer, or there is nothing of that name.
pub(super) async fn run(ctx: &Ctx, args: &InspectArgs, out: &Out) -> anyhow::Result<Exit> {
    let Some(place) = ctx.place() else {
        bail!("that is a thing of a cluster, and none is named: add --context or --kubeconfig");
    };
    let cluster = Cluster::connect(place, ctx.timeout()).await?;
    let wanted = Wanted::parse(&args.name, args.namespace.as_deref())?;
    let object = find(&cluster, args.kind, &wanted, &args.name).await?;
    let (mesh, problems) = match super::ask(ctx, args, out).await {
        Ok((mesh, problems)) => (Some(mesh), problems),
        Err(error) => {
            out.warning(&format!("what the controller thinks is missing: {error:#}"));
            (None, Vec::new())
        }
    };
    let namespaces = match objects::list(&cluster, "v1", "Namespace", "", "").await {
        Ok(namespaces) => namespaces,
        Err(error) => {
            out.warning(&format!("which namespaces ask for proxies is not known: {error}"));
            Vec::new()
        }
    };
    let meshed = meshed(&namespaces).into_iter().map(ToOwned::to_owned).collect();
    let seen = Seen { cluster, patience: ctx.timeout(), mesh, meshed };
    let name: Name = pair(&object);
    let view = view(&seen, args.kind, &object).await?;
    let calls = match (&seen.mesh, args.kind) {
        (Some(mesh), Thing::Pod) if has_proxy(&object) => {
            Some(edges::edges(&mesh.calls(Kind::Workload, &name)))
        }
        _ => None,
    };
    let problems = document::problems(&problems, named(args.kind).kind, &name);
    if out.is_table() {
        print(&view, calls.as_deref(), &problems, args, out)?;
    } else {
        out.document(&view.document(&name, calls.as_deref().unwrap_or_default(), problems))?;
    }
    Ok(Exit::Ok)
}

/// What each thing is to the API server.
fn named(kind: Thing) -> Named {
    match kind {
        Thing::Deployment => DEPLOYMENT,
        Thing::Statefulset => STATEFULSET,
        Thing::Daemonset => DAEMONSET,
        Thing::Namespace => NAMESPACE,
        Thing::Node => NODE,
        // The controller's own kinds are pods here.
        Thing::Pod | Thing::Workload | Thing::Service | Thing::Serviceaccount => POD,
    }
}

async fn find(cluster: &Cluster, kind: Thing, wanted: &Wanted, typed: &str) -> anyhow::Result<Value> {
    if matches!(kind, Thing::Namespace | Thing::Node) {
        return select::by_name(cluster, named(kind), typed).await;
    }
    select::one(cluster, named(kind), wanted).await
}

async fn view(seen: &Seen, kind: Thing, object: &Value) -> anyhow::Result<View> {
    let (_, name) = pair(object);
    let pods =
        |namespace: String| async move { objects::list(&seen.cluster, "v1", "Pod", &namespace, "").await };
    match kind {
        Thing::Deployment | Thing::Statefulset | Thing::Daemonset => {
            let pods = select::pods_of(&seen.cluster, object).await?;
            Ok(groups::owner(seen, named(kind).kind, object, &pods))
        }
        Thing::Namespace => {
            let bundle = bundle(seen, &name).await;
            Ok(groups::namespace(seen, object, &pods(name).await?, bundle))
        }
        Thing::Node => {
            let mut pods = pods(String::new()).await?;
            pods.retain(|pod| pod["spec"]["nodeName"] == name.as_str());
            Ok(groups::node(seen, object, &pods))
        }
        Thing::Pod | Thing::Workload | Thing::Service | Thing::Serviceaccount => {
            Ok(pod::view(seen, object).await)
        }
    }
}

/// Whether the roots are there; None: they must not be read.
async fn bundle(seen: &Seen, namespace: &str) -> Option<bool> {
    let id = Id {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        namespace: namespace.to_owned(),
        name: mesh_k8s::names::TRUST_BUNDLE.to_owned(),
    };
    id.read(&seen.cluster).await.ok().map(|found| found.is_some())
}
