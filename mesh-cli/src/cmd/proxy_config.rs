//! `meshctl proxy-config`: what one proxy really has, as its admin says it.

mod tables;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::names::Wanted;
use crate::{
    Exit, admin,
    admin::Door,
    cli::{Kind, Part, ProxyConfigArgs},
    cluster::{
        Cluster,
        select::{self, POD, pair},
        standing::has_proxy,
    },
    ctx::Ctx,
    out::{Out, Tone},
};

/// All parts, in the order in which they are shown.
const ALL: [Part; 8] = [
    Part::Status,
    Part::Listeners,
    Part::Destinations,
    Part::Routes,
    Part::Endpoints,
    Part::Certificates,
    Part::Edges,
    Part::Config,
];

impl Part {
    /// The path of the admin that has it, and its title.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Status => ("/status", "Status"),
            Self::Listeners => ("/status", "Listeners"),
            Self::Config => ("/config", "Configuration"),
            Self::Destinations => ("/destinations", "Destinations"),
            Self::Routes => ("/destinations", "Routes"),
            Self::Endpoints => ("/endpoints", "Endpoints"),
            Self::Certificates => ("/certificates", "Certificate"),
            Self::Edges => ("/edges", "Counted since its start"),
        }
    }
}

/// Prints it.
///
/// # Errors
/// When there is no such proxy, or it does not answer.
pub(crate) async fn run(ctx: &Ctx, args: &ProxyConfigArgs, out: &Out) -> anyhow::Result<Exit> {
    let wanted = Wanted::parse(&args.name, args.namespace.as_deref())?;
    let Some(place) = ctx.place() else {
        let mut client = ctx.connect(out).await?;
        let workloads = client.workloads("").await?;
        let names: Vec<(String, String)> = workloads
            .iter()
            .map(|view| (view.config.workload.namespace.to_string(), view.config.workload.name.to_string()))
            .collect();
        let (namespace, name) = wanted.find(Kind::Workload, &names)?;
        let is = |ns: &str, n: &str| ns == namespace && n == name;
        let found = workloads.iter().find(|v| is(&v.config.workload.namespace, &v.config.workload.name));
        let address = found.and_then(|view| view.config.address);
        let address = address.and_then(admin::address).with_context(|| {
            format!("the proxy of {namespace}/{name} is not on this machine: ask it where it runs, at its port 15000")
        })?;
        return show(&Door::Here(address), args, out).await;
    };
    let cluster = Cluster::connect(place, ctx.timeout()).await?;
    let pod = select::one(&cluster, POD, &wanted).await?;
    let (namespace, name) = pair(&pod);
    if !has_proxy(&pod) {
        bail!("pod {namespace}/{name} has no proxy; `meshctl inspect pod {namespace}/{name}` says why");
    }
    let patience = ctx.timeout();
    let door = Door::Pod { cluster: &cluster, namespace: &namespace, name: &name, patience };
    show(&door, args, out).await
}

async fn show(door: &Door<'_>, args: &ProxyConfigArgs, out: &Out) -> anyhow::Result<Exit> {
    let parts: Vec<Part> = args.part.map_or_else(|| ALL.to_vec(), |part| vec![part]);
    let mut answers: Map<String, Value> = Map::new();
    for part in &parts {
        let (path, _) = part.place();
        if !answers.contains_key(path) {
            let answer = door.get(path).await;
            let answer = answer
                .map_err(|error| anyhow::anyhow!("the proxy at {door} does not say {path}: {error}"))?;
            answers.insert(path.to_owned(), answer);
        }
    }
    if !out.is_table() {
        if let [part] = parts.as_slice() {
            let answer = answers.remove(part.place().0).unwrap_or_default();
            let answer = if *part == Part::Listeners { answer["listeners"].clone() } else { answer };
            out.document(&answer)?;
            return Ok(Exit::Ok);
        }
        let named =
            answers.into_iter().map(|(path, answer)| (path.trim_start_matches('/').to_owned(), answer));
        out.document(&named.collect::<Map<String, Value>>())?;
        return Ok(Exit::Ok);
    }
    let mut text = String::new();
    for part in &parts {
        let (path, title) = part.place();
        let answer = answers.get(path).unwrap_or(&Value::Null);
        let body = tables::text(*part, answer, out)?;
        if parts.len() == 1 {
            text = body;
            break;
        }
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}{}\n", out.paint(Tone::Bold, title)));
        body.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
    }
    out.line(&text)?;
    Ok(Exit::Ok)
}
