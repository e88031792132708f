//! `meshctl logs`: of the controllers, or of a pod's sidecar.

use anyhow::{Context as _, bail};
use futures_util::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use mesh_k8s::names::{CHECK_CONTAINER, INIT_CONTAINER, PROXY_CONTAINER};
use serde_json::{Value, json};

use super::names::Wanted;
use crate::{
    Exit,
    chart::NAMESPACE,
    cli::LogsArgs,
    cluster::{
        Cluster, objects, refused,
        select::{self, POD, pair},
        standing::{full_name, has_proxy},
        trouble::CONTROLLER,
    },
    ctx::Ctx,
    out::{Out, table},
};

/// One container of one pod.
struct Source {
    namespace: String,
    pod: String,
    container: String,
}

/// Prints them, line by line.
///
/// # Errors
/// When there is no such pod, or its log must not be read.
pub(crate) async fn run(ctx: &Ctx, args: &LogsArgs, out: &Out) -> anyhow::Result<Exit> {
    if args.tail.is_some_and(|lines| lines < 0) {
        bail!("--tail {}: it is a number of lines, 0 or more", args.tail.unwrap_or_default());
    }
    let place = ctx.place_or_current();
    let cluster = if args.follow {
        Cluster::connect_to_follow(&place, ctx.timeout()).await?
    } else {
        Cluster::connect(&place, ctx.timeout()).await?
    };
    let sources = match &args.name {
        Some(name) => vec![sidecar(&cluster, name, args).await?],
        None => controllers(&cluster).await?,
    };
    let prefixed = sources.len() > 1;
    let mut streams = Vec::new();
    for source in sources {
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &source.namespace);
        let what =
            format!("reading the log of {} in pod {}/{}", source.container, source.namespace, source.pod);
        let lines = api.log_stream(&source.pod, &params(args, &source.container)).await;
        let lines = lines.map_err(|error| refused(what, &error))?.lines();
        streams.push(lines.map_ok(move |line| (source.pod.clone(), line)).boxed_local());
    }
    let mut all = if args.follow {
        stream::select_all(streams).boxed_local()
    } else {
        stream::iter(streams).flatten().boxed_local()
    };
    loop {
        let next = tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
            next = all.next() => next,
        };
        let Some(next) = next else { return Ok(Exit::Ok) };
        let (pod, line) = next.context("the log ends early")?;
        if !out.is_table() {
            out.document_in_series(&json!({"pod": pod, "line": line}))?;
            continue;
        }
        // A log may hold what a caller sent: no control characters to the terminal.
        let line = table::plain(&line);
        out.line(&if prefixed { format!("{pod}  {line}") } else { line })?;
    }
}

fn params(args: &LogsArgs, container: &str) -> LogParams {
    LogParams {
        container: Some(container.to_owned()),
        follow: args.follow,
        previous: args.previous,
        tail_lines: args.tail,
        since_seconds: args.since.map(|since| i64::try_from(since.as_secs().max(1)).unwrap_or(i64::MAX)),
        ..LogParams::default()
    }
}

/// All controllers that are there.
async fn controllers(cluster: &Cluster) -> anyhow::Result<Vec<Source>> {
    let pods = objects::list(cluster, "v1", "Pod", NAMESPACE, CONTROLLER).await?;
    if pods.is_empty() {
        bail!(
            "there is no controller in the cluster at {}: no mesh is installed; see `meshctl install`, or name \
             another cluster with --context",
            cluster.url
        );
    }
    let source = |pod: &Value| {
        let (namespace, name) = pair(pod);
        let container = pod["spec"]["containers"][0]["name"].as_str().unwrap_or("controller").to_owned();
        Source { namespace, pod: name, container }
    };
    Ok(pods.iter().map(source).collect())
}

async fn sidecar(cluster: &Cluster, name: &str, args: &LogsArgs) -> anyhow::Result<Source> {
    let pod = select::one(cluster, POD, &Wanted::parse(name, args.namespace.as_deref())?).await?;
    let of = |field: &str| pod["spec"][field].as_array().into_iter().flatten();
    let has = |name: &str| of("containers").chain(of("initContainers")).any(|c| c["name"] == name);
    if !has_proxy(&pod) {
        let name = full_name(&pod);
        bail!("pod {name} has no sidecar; `meshctl inspect pod {name}` says why");
    }
    let container = if !args.init {
        PROXY_CONTAINER
    } else if has(INIT_CONTAINER) {
        INIT_CONTAINER
    } else if has(CHECK_CONTAINER) {
        CHECK_CONTAINER
    } else {
        bail!("pod {} has no init container of the mesh: its node writes the rules", full_name(&pod))
    };
    let (namespace, pod) = pair(&pod);
    Ok(Source { namespace, pod, container: container.to_owned() })
}
