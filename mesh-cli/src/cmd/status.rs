//! `meshctl status`: the controller, its objects and its proxies at a glance.

use std::collections::BTreeSet;

use mesh_proto::view::v1 as pb;
use serde::Serialize;
use serde_json::Value;

use super::{now_millis, warn, when};
use crate::{
    Exit,
    chart::NAMESPACE,
    cli::StatusArgs,
    cluster::{
        Cluster, objects,
        standing::{Standing, has_ended, meshed, standing},
        trouble,
    },
    ctx::Ctx,
    out::{Out, table, units},
    view::{ServiceView, WorkloadView},
};

/// The answer in JSON and YAML.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    address: &'a str,
    version: &'a str,
    uptime_seconds: f64,
    trust_domain: &'a str,
    source: &'a str,
    generation: u64,
    objects: u64,
    workloads: usize,
    proxies_connected: usize,
    services: usize,
    problems: usize,
    objects_refused: usize,
    trust_anchors: Vec<Anchor<'a>>,
    issuer_not_after: Option<String>,
    /// Only of a mesh in a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Place>,
}

/// The cluster that the mesh is in; numbers are None where they must not be read.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    address: String,
    context: String,
    version: String,
    controllers: usize,
    controllers_ready: usize,
    pods_with_proxy: Option<usize>,
    pods_without: Option<usize>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Anchor<'a> {
    sha256: &'a str,
    not_after: Option<String>,
}

/// Prints the status.
///
/// # Errors
/// When the controller does not answer.
pub(crate) async fn run(ctx: &Ctx, _args: &StatusArgs, out: &Out) -> anyhow::Result<Exit> {
    let mut client = ctx.connect(out).await?;
    let status = client.status().await?;
    let problems = client.problems().await?;
    let workloads = client.workloads("").await?;
    let services = client.services("").await?;
    warn(&mut client, out);
    let place = match ctx.place() {
        Some(place) => Some(place_of(&Cluster::connect(place, ctx.timeout()).await?).await?),
        None => None,
    };
    let document =
        Document { cluster: place, ..document(client.address(), &status, &problems, &workloads, &services) };
    if !out.is_table() {
        out.document(&document)?;
        return Ok(Exit::Ok);
    }
    out.line(&table::fields(0, &fields(&document, &status)))?;
    let lacking = document.cluster.as_ref().and_then(|place| place.pods_without).unwrap_or(0);
    if document.problems > 0 || document.proxies_connected < document.workloads || lacking > 0 {
        out.hint("meshctl check");
    } else {
        out.hint("meshctl edges");
    }
    Ok(Exit::Ok)
}

fn document<'a>(
    address: &'a str,
    status: &'a pb::GetStatusResponse,
    problems: &[pb::Problem],
    workloads: &[WorkloadView],
    services: &[ServiceView],
) -> Document<'a> {
    let connected = |view: &&WorkloadView| view.proxy.as_ref().is_some_and(|proxy| proxy.connected);
    let names: BTreeSet<_> =
        services.iter().map(|view| (&view.routes.service.namespace, &view.routes.service.name)).collect();
    let anchor = |anchor: &'a pb::Anchor| Anchor {
        sha256: &anchor.sha256,
        not_after: units::timestamp(anchor.not_after),
    };
    Document {
        address,
        version: &status.version,
        uptime_seconds: status.uptime_millis as f64 / 1000.0,
        trust_domain: &status.trust_domain,
        source: &status.source,
        generation: status.generation,
        objects: status.objects,
        workloads: workloads.len(),
        proxies_connected: workloads.iter().filter(connected).count(),
        services: names.len(),
        problems: problems.len(),
        objects_refused: refused(problems),
        trust_anchors: status.anchors.iter().map(anchor).collect(),
        issuer_not_after: units::timestamp(status.issuer_not_after),
        cluster: None,
    }
}

/// What the API server says of the mesh.
async fn place_of(cluster: &Cluster) -> anyhow::Result<Place> {
    let controllers = objects::list(cluster, "v1", "Pod", NAMESPACE, trouble::CONTROLLER).await?;
    let is_ready = |pod: &&Value| {
        trouble::condition(pod, "Ready").is_some_and(|condition| condition["status"] == "True")
    };
    let pods = async {
        let namespaces = objects::list(cluster, "v1", "Namespace", "", "").await.ok()?;
        let pods = objects::list(cluster, "v1", "Pod", "", "").await.ok()?;
        let meshed = meshed(&namespaces);
        let count = |is: &dyn Fn(&Standing) -> bool| {
            pods.iter().filter(|pod| !has_ended(pod) && is(&standing(pod, &meshed))).count()
        };
        let inside = count(&|standing| matches!(standing, Standing::In(_)));
        Some((inside, count(&|standing| matches!(standing, Standing::Missing | Standing::Refused(_)))))
    };
    let pods = pods.await;
    let (major, minor) = cluster.version;
    Ok(Place {
        address: cluster.url.clone(),
        context: cluster.context.clone(),
        version: format!("{major}.{minor}"),
        controllers: controllers.len(),
        controllers_ready: controllers.iter().filter(is_ready).count(),
        pods_with_proxy: pods.map(|(inside, _)| inside),
        pods_without: pods.map(|(_, without)| without),
    })
}

fn place_fields(place: &Place) -> Vec<(&'static str, String)> {
    let pods = match (place.pods_with_proxy, place.pods_without) {
        (Some(inside), Some(0)) => format!("{inside} with a proxy"),
        (Some(inside), Some(without)) => format!("{inside} with a proxy, {without} that lack theirs"),
        _ => "not known: they must not be listed".to_owned(),
    };
    vec![
        ("Cluster", format!("{}, Kubernetes {}, context {}", place.address, place.version, place.context)),
        ("Controllers", format!("{} of {} ready", place.controllers_ready, place.controllers)),
        ("Pods", pods),
    ]
}

/// Objects that are not applied: each once, whatever is wrong with it. Where no object can be told, a place counts as
/// one.
fn refused(problems: &[pb::Problem]) -> usize {
    let refused = || problems.iter().filter(|problem| problem.refused);
    let objects: BTreeSet<_> = refused()
        .filter_map(|problem| problem.object.as_ref())
        .map(|object| (&object.kind, &object.namespace, &object.name))
        .collect();
    let places: BTreeSet<_> = refused()
        .filter(|problem| problem.object.is_none())
        .map(|problem| (&problem.file, problem.line))
        .collect();
    objects.len() + places.len()
}

fn fields(document: &Document<'_>, status: &pb::GetStatusResponse) -> Vec<(&'static str, String)> {
    let now = now_millis();
    let uptime = units::span(status.uptime_millis / 1000);
    let problems = match (document.problems, document.objects_refused) {
        (0, _) => "none".into(),
        (all, 0) => all.to_string(),
        (all, refused) => format!("{all}; {} not applied", units::count(refused, "object", "objects")),
    };
    let anchor = |anchor: &pb::Anchor| {
        let short = anchor.sha256.get(..16).unwrap_or(&anchor.sha256);
        format!("sha256:{short}…, expires {}", when(anchor.not_after, now))
    };
    let anchors: Vec<String> = status.anchors.iter().map(anchor).collect();
    let mut fields = vec![
        ("Controller", format!("{}, up {uptime}, view API at {}", document.version, document.address)),
        ("Trust domain", document.trust_domain.into()),
        ("Source", document.source.into()),
        ("Configuration", format!("generation {}, {}", document.generation, objects(document.objects))),
        ("Problems", problems),
        ("Services", document.services.to_string()),
        ("Workloads", document.workloads.to_string()),
        ("Proxies", format!("{} of {} connected", document.proxies_connected, document.workloads)),
        ("Trust anchors", anchors.join("\n")),
        ("Issuer", format!("expires {}", when(status.issuer_not_after, now))),
    ];
    fields.extend(document.cluster.iter().flat_map(place_fields));
    fields
}

fn objects(count: u64) -> String {
    units::count(usize::try_from(count).unwrap_or(usize::MAX), "object", "objects")
}

#[cfg(test)]
mod tests {
    use mesh_core::name::ObjectRef;
    use mesh_proto::convert::Wire as _;

    use super::*;

    #[test]
    fn an_object_with_several_problems_is_refused_once() {
        let problem = |name: Option<&str>, line, refused| pb::Problem {
            object: name.map(|name| ObjectRef::new("Service", "shop", name).to_wire()),
            file: "shop.yaml".into(),
            line,
            refused,
            ..pb::Problem::default()
        };
        let cart = [problem(Some("cart"), 3, true), problem(Some("cart"), 7, true)];
        assert_eq!(refused(&cart), 1);
        let more = [problem(Some("catalog"), 9, true), problem(Some("other"), 20, false)];
        let nobody = [problem(None, 40, true), problem(None, 40, true), problem(None, 0, false)];
        assert_eq!(refused(&[&cart[..], &more, &nobody].concat()), 3);
    }
}
