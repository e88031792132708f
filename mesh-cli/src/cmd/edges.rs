//! `meshctl edges`: who calls whom, how well, and whether it is encrypted.

use std::{collections::BTreeMap, time::Duration};

use mesh_core::{
    identity::SpiffeId,
    name::{ServicePort, WorkloadRef},
    protocol::Protocol,
};
use serde::Serialize;

use super::{names::Wanted, repeat, window_words};
use crate::{
    Exit,
    cli::{EdgesArgs, Kind},
    ctx::Ctx,
    out::{
        Out, Tone,
        table::{Cell, Column, Table},
        units,
    },
    traffic::{self, Flow, Numbers, Secured, Stats},
    view::Client,
    words,
};

const COLUMNS: [Column; 11] = [
    Column::text("SOURCE"),
    Column::text("DESTINATION").rank(7),
    Column::text("SERVICE").rank(6),
    Column::text("BACKEND"),
    Column::text("PROTOCOL").rank(9),
    Column::text("SECURED"),
    Column::number("RPS"),
    Column::number("SUCCESS"),
    Column::number("P50").rank(8),
    Column::number("P99").rank(2),
    Column::text("REASON").rank(1),
];

/// One row: flows to all workloads of a backend.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    source: Option<SpiffeId>,
    destination: Option<SpiffeId>,
    service: Option<ServicePort>,
    backend: Option<ServicePort>,
    workloads: Vec<WorkloadRef>,
    protocol: Protocol,
    secured: Secured,
    stats: Stats,
}

/// One row in JSON and YAML.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EdgeDocument {
    source: Option<String>,
    destination: Option<String>,
    service: Option<String>,
    backend: Option<String>,
    workloads: Vec<String>,
    protocol: &'static str,
    secured: bool,
    secured_says: Option<&'static str>,
    #[serde(flatten)]
    numbers: Numbers,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    window_seconds: f64,
    edges: Vec<EdgeDocument>,
}

/// Adds up flows that differ only in the workload that served.
pub(crate) fn edges(flows: &[Flow]) -> Vec<Edge> {
    let mut merged: BTreeMap<_, Edge> = BTreeMap::new();
    for flow in flows {
        // Callers from outside the mesh last.
        let key = (
            flow.source.is_none(),
            flow.source.clone(),
            flow.service.clone(),
            flow.backend.clone(),
            flow.destination.clone(),
            flow.protocol,
            flow.secured,
            // Without a Service the workload is all that tells edges apart.
            flow.workload.clone().filter(|_| flow.service.is_none()),
        );
        let edge = merged.entry(key).or_insert_with(|| Edge {
            source: flow.source.clone(),
            destination: flow.destination.clone(),
            service: flow.service.clone(),
            backend: flow.backend.clone(),
            workloads: Vec::new(),
            protocol: flow.protocol,
            secured: flow.secured,
            stats: Stats::default(),
        });
        edge.stats.add(&flow.stats);
        edge.workloads.extend(flow.workload.clone());
        edge.workloads.sort();
        edge.workloads.dedup();
    }
    merged.into_values().collect()
}

impl Edge {
    fn row(&self, home: Option<&str>) -> [Cell; 11] {
        let stats = &self.stats;
        let short = |full: String| match home {
            Some(ns) => full.strip_prefix(&format!("{ns}/")).map_or_else(|| full.clone(), str::to_owned),
            None => full,
        };
        let latency = |q| stats.quantile(q).map(units::latency).unwrap_or_default();
        let secured = match self.secured {
            Secured::Both => Tone::Good,
            Secured::Caller | Secured::Callee | Secured::Unreached => Tone::Plain,
            Secured::No => Tone::Warn,
        };
        let failing = if stats.failures > 0 { Tone::Bad } else { Tone::Plain };
        [
            short(self.source.as_ref().map_or_else(|| words::OUTSIDE.into(), words::identity)).into(),
            short(self.destination_words()).into(),
            short(self.service.as_ref().map(ToString::to_string).unwrap_or_default()).into(),
            short(self.backend_words()).into(),
            self.protocol.as_str().into(),
            Cell::toned(self.secured.as_str(), secured),
            units::rate(stats.rate).into(),
            Cell::toned(units::share(stats.successes(), stats.requests), failing),
            latency(0.5).into(),
            latency(0.99).into(),
            Cell::toned(stats.top_reason().map(|(reason, _)| reason.code()).unwrap_or_default(), failing),
        ]
    }

    fn destination_words(&self) -> String {
        match (&self.destination, self.secured) {
            (Some(id), _) => words::identity(id),
            (None, Secured::Unreached) => String::new(),
            (None, _) => words::OUTSIDE.into(),
        }
    }

    /// The Service that took the calls; where none is known, the one that was called, or the workload.
    fn backend_words(&self) -> String {
        let service = self.backend.as_ref().or(self.service.as_ref());
        let workload = || self.workloads.first().map(ToString::to_string);
        service.map(|port| format!("{}/{}", port.namespace, port.name)).or_else(workload).unwrap_or_default()
    }

    pub(crate) fn document(&self) -> EdgeDocument {
        let says = match self.secured {
            Secured::Both => Some("both"),
            Secured::Caller => Some("caller"),
            Secured::Callee => Some("callee"),
            Secured::No | Secured::Unreached => None,
        };
        EdgeDocument {
            source: self.source.as_ref().map(|id| id.as_str().to_owned()),
            destination: self.destination.as_ref().map(|id| id.as_str().to_owned()),
            service: self.service.as_ref().map(ToString::to_string),
            backend: self.backend.as_ref().map(ToString::to_string),
            workloads: self.workloads.iter().map(ToString::to_string).collect(),
            protocol: self.protocol.as_str(),
            secured: self.secured.is_secured(),
            secured_says: says,
            numbers: self.stats.numbers(),
        }
    }
}

/// The rows as a table; names in the namespace `home` are written without it.
pub(crate) fn table(edges: &[Edge], home: Option<&str>) -> Table {
    let mut table = Table::new(&COLUMNS);
    edges.iter().for_each(|edge| table.row(edge.row(home)));
    table
}

/// What `--from` and `--to` ask for.
#[derive(Debug)]
struct Filter {
    from: Option<Wanted>,
    to: Option<Wanted>,
}

impl Filter {
    fn new(args: &EdgesArgs) -> anyhow::Result<Self> {
        let parse =
            |typed: &Option<String>| typed.as_deref().map(|name| Wanted::parse(name, None)).transpose();
        Ok(Self { from: parse(&args.from)?, to: parse(&args.to)? })
    }

    fn fits(&self, flow: &Flow) -> bool {
        let account = |wanted: &Wanted, id: &Option<SpiffeId>| {
            id.as_ref()
                .and_then(SpiffeId::namespace_and_account)
                .is_some_and(|(ns, name)| wanted.is(ns, name))
        };
        let from = self.from.as_ref().is_none_or(|wanted| account(wanted, &flow.source));
        let to = self.to.as_ref().is_none_or(|wanted| {
            account(wanted, &flow.destination)
                || flow.service.iter().chain(&flow.backend).any(|port| wanted.is(&port.namespace, &port.name))
                || flow
                    .workload
                    .as_ref()
                    .is_some_and(|workload| wanted.is(&workload.namespace, &workload.name))
        });
        from && to
    }
}

/// Prints the edges.
///
/// # Errors
/// When the controller does not answer, or a name is not known.
pub(crate) async fn run(ctx: &Ctx, args: &EdgesArgs, out: &mut Out) -> anyhow::Result<Exit> {
    let filter = Filter::new(args)?;
    repeat(ctx, args.scope.watch, out, async |client, out| show(client, args, &filter, out).await).await
}

async fn show(client: &mut Client, args: &EdgesArgs, filter: &Filter, out: &mut Out) -> anyhow::Result<()> {
    let (scope, home) = (&args.scope, args.scope.namespace.as_deref());
    let reports = client.edges(home.unwrap_or_default(), scope.window).await?;
    let mut flows = traffic::flows(&reports);
    flows.retain(|flow| filter.fits(flow));
    let edges = edges(&flows);
    if edges.is_empty() {
        known(client, filter).await?;
    }
    if !out.is_table() {
        let documents = edges.iter().map(Edge::document).collect();
        let document = Document { window_seconds: scope.window.as_secs_f64(), edges: documents };
        return if scope.watch { out.document_in_series(&document) } else { out.document(&document) };
    }
    let text = if edges.is_empty() { nothing(scope.window) } else { out.render(&table(&edges, home)) };
    match scope.watch {
        true => out.screen(&text)?,
        false if edges.is_empty() => out.remark(&text),
        false => {
            out.line(&text)?;
            hint(&edges, out);
        }
    }
    Ok(())
}

fn nothing(window: Duration) -> String {
    format!("No calls {}.", window_words(window))
}

/// A name that nothing has is more likely mistyped than without calls.
async fn known(client: &mut Client, filter: &Filter) -> anyhow::Result<()> {
    if filter.from.is_none() && filter.to.is_none() {
        return Ok(());
    }
    let workloads = client.workloads("").await?;
    let services = client.services("").await?;
    let account =
        |id: &SpiffeId| id.namespace_and_account().map(|(ns, name)| (ns.to_owned(), name.to_owned()));
    let accounts: Vec<_> =
        workloads.iter().filter_map(|workload| account(&workload.config.identity)).collect();
    let workload = |name: &WorkloadRef| (name.namespace.to_string(), name.name.to_string());
    let service = |port: &ServicePort| (port.namespace.to_string(), port.name.to_string());
    let mut targets = accounts.clone();
    targets.extend(workloads.iter().map(|view| workload(&view.config.workload)));
    targets.extend(services.iter().map(|view| service(&view.routes.service)));
    let check = |wanted: &Option<Wanted>, kind: Kind, all: &[(String, String)]| match wanted {
        Some(wanted) if !all.iter().any(|(ns, name)| wanted.is(ns, name)) => Err(wanted.unknown(kind, all)),
        _ => Ok(()),
    };
    check(&filter.from, Kind::Serviceaccount, &accounts)?;
    check(&filter.to, Kind::Service, &targets)
}

fn hint(edges: &[Edge], out: &Out) {
    let plain = edges.iter().any(|edge| edge.secured == Secured::No);
    let refused = edges.iter().find_map(|edge| Some((edge.stats.top_reason()?.0, edge)));
    if let Some((reason, edge)) = refused {
        let why = format!("{}: {}", reason.code(), reason.hint());
        match edge.workloads.first() {
            Some(workload) => out.hint(&format!("meshctl inspect workload {workload}\n     {why}")),
            None => out.hint(&why),
        }
    } else if plain {
        out.hint("meshctl inspect workload NAME  (why is a call not encrypted?)");
    } else {
        out.hint("meshctl edges --watch");
    }
}
