//! `meshctl inspect`: what the mesh thinks of one thing, what its proxy really has, and its calls.

mod account;
mod cluster;
mod document;
mod service;
#[cfg(test)]
mod tests;
mod workload;

use mesh_core::{
    edge::{Direction, EdgeKey},
    identity::SpiffeId,
    name::WorkloadRef,
};
use mesh_proto::view::v1 as pb;

use super::{
    edges::{self, Edge},
    names::Wanted,
    warn, window_words,
};
use crate::{
    Exit,
    cli::{InspectArgs, Kind},
    cluster::Cluster,
    ctx::Ctx,
    out::{Out, Tone},
    traffic::{self, Flow, Report, Secured},
    view::{ServiceView, WorkloadView},
};

/// A name: namespace and name.
type Name = (String, String);

/// Everything that is known, from which each kind takes its part.
#[derive(Debug)]
struct Mesh {
    workloads: Vec<WorkloadView>,
    services: Vec<ServiceView>,
    reports: Vec<Report>,
    generation: u64,
    now_millis: i64,
}

/// Prints what is known.
///
/// # Errors
/// When the controller does not answer, or there is nothing of that name.
pub(crate) async fn run(ctx: &Ctx, args: &InspectArgs, out: &Out) -> anyhow::Result<Exit> {
    let Some(kind) = args.kind.kind() else { return cluster::run(ctx, args, out).await };
    let wanted = Wanted::parse(&args.name, args.namespace.as_deref())?;
    let (mesh, problems) = ask(ctx, args, out).await?;
    let name = wanted.find(kind, &mesh.names(kind))?;
    let object = match kind {
        Kind::Workload => "Workload",
        Kind::Service => "Service",
        Kind::Serviceaccount => "ServiceAccount",
    };
    let problems = document::problems(&problems, object, &name);
    let cluster = match ctx.place().filter(|_| kind == Kind::Workload) {
        Some(place) => Some(Cluster::connect(place, ctx.timeout()).await?),
        None => None,
    };
    let place = cluster.as_ref().map(|cluster| (cluster, ctx.timeout()));
    let view = match kind {
        Kind::Workload => workload::view(&mesh, &name, place).await,
        Kind::Service => service::view(&mesh, &name),
        Kind::Serviceaccount => account::view(&mesh, &name),
    };
    let calls = edges::edges(&mesh.calls(kind, &name));
    if out.is_table() {
        print(&view, Some(&calls), &problems, args, out)?;
    } else {
        out.document(&view.document(&name, &calls, problems))?;
    }
    Ok(Exit::Ok)
}

/// All that the controller says, and the problems of the configuration.
async fn ask(ctx: &Ctx, args: &InspectArgs, out: &Out) -> anyhow::Result<(Mesh, Vec<pb::Problem>)> {
    let mut client = ctx.connect(out).await?;
    let status = client.status().await?;
    let problems = client.problems().await?;
    let mesh = Mesh {
        workloads: client.workloads("").await?,
        services: client.services("").await?,
        reports: client.edges("", args.window).await?,
        generation: status.generation,
        now_millis: status.now_millis,
    };
    warn(&mut client, out);
    Ok((mesh, problems))
}

impl Mesh {
    /// Everything of a kind.
    fn names(&self, kind: Kind) -> Vec<Name> {
        let pair = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        let workloads = self.workloads.iter().map(|view| &view.config);
        match kind {
            Kind::Workload => workloads.map(|c| pair(&c.workload.namespace, &c.workload.name)).collect(),
            Kind::Serviceaccount => {
                let account = |id: &SpiffeId| id.namespace_and_account().map(|(ns, name)| pair(ns, name));
                workloads.filter_map(|config| account(&config.identity)).collect()
            }
            Kind::Service => {
                let ports = self.services.iter().map(|view| &view.routes.service);
                ports.map(|port| pair(&port.namespace, &port.name)).collect()
            }
        }
    }

    /// Calls from or to one thing.
    fn calls(&self, kind: Kind, name: &Name) -> Vec<Flow> {
        let is = |ns: &str, n: &str| ns == name.0 && n == name.1;
        let account = |id: &Option<SpiffeId>| {
            id.as_ref().and_then(SpiffeId::namespace_and_account).is_some_and(|(ns, n)| is(ns, n))
        };
        let mut flows = match kind {
            Kind::Workload => return self.calls_of_workload(name),
            Kind::Service | Kind::Serviceaccount => traffic::flows(&self.reports),
        };
        flows.retain(|flow| match kind {
            Kind::Service => {
                flow.service.iter().chain(&flow.backend).any(|port| is(&port.namespace, &port.name))
            }
            _ => account(&flow.source) || account(&flow.destination),
        });
        flows
    }

    /// Several workloads may share an identity, so that only its own proxy tells what a workload called.
    fn calls_of_workload(&self, name: &Name) -> Vec<Flow> {
        let is = |workload: &WorkloadRef| *workload.namespace == *name.0 && *workload.name == *name.1;
        let own =
            self.workloads.iter().find(|view| is(&view.config.workload)).map(|view| &view.config.identity);
        let served = |key: &EdgeKey| key.destination_workload.as_ref().is_some_and(is);
        let concerns = |report: &&Report| match report.key.direction {
            Direction::Outbound => is(&report.reporter) || served(&report.key),
            Direction::Inbound => served(&report.key) || (own.is_some() && report.key.source.as_ref() == own),
        };
        let reports: Vec<Report> = self.reports.iter().filter(concerns).cloned().collect();
        // Then callees cannot tell its calls from those of the others.
        let shared = own.is_some_and(|own| {
            let other = |workload: &WorkloadRef, id: &SpiffeId| id == own && !is(workload);
            self.workloads.iter().any(|view| other(&view.config.workload, &view.config.identity))
                || self.reports.iter().any(|report| {
                    let source = report.key.source.as_ref();
                    report.key.direction == Direction::Outbound
                        && source.is_some_and(|id| other(&report.reporter, id))
                })
        });
        let whole = |callee: &Flow| {
            !shared || callee.source.as_ref() != own || callee.workload.as_ref().is_some_and(is)
        };
        let mut flows = traffic::flows_where(&reports, whole);
        // What others say of its identity only confirms what its own proxy reported.
        flows.retain(|flow| flow.secured != Secured::Callee || flow.workload.as_ref().is_some_and(is));
        flows
    }
}

fn print(
    view: &document::View,
    calls: Option<&[Edge]>,
    problems: &[document::ProblemDocument],
    args: &InspectArgs,
    out: &Out,
) -> anyhow::Result<()> {
    let mut text = String::new();
    for section in &view.sections {
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}{}\n{}", out.paint(Tone::Bold, &section.title), section.body));
    }
    if let Some(calls) = calls {
        let title = format!("Calls {}", window_words(args.window));
        text.push_str(&format!("\n{}\n", out.paint(Tone::Bold, &title)));
        if calls.is_empty() {
            text.push_str("  none\n");
        } else {
            let table = edges::table(calls, args.namespace.as_deref());
            let width = out.width().map(|width| width.saturating_sub(2));
            let table = table.render(width, out.is_colored());
            table.lines().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    }
    if !problems.is_empty() {
        text.push_str(&format!("\n{}\n", out.paint(Tone::Bold, "Problems")));
        problems.iter().for_each(|problem| text.push_str(&problem.text()));
    }
    out.line(&text)?;
    if !problems.is_empty() {
        out.hint("meshctl check");
    }
    Ok(())
}
