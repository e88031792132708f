//! `meshctl stat`: traffic per Service, workload or service account, as it comes in.

use std::collections::BTreeMap;

use mesh_core::identity::SpiffeId;
use serde::Serialize;

use super::{names::Wanted, repeat, window_words};
use crate::{
    Exit,
    cli::{Kind, StatArgs},
    ctx::Ctx,
    out::{
        Out, Tone,
        table::{Cell, Column, Table},
        units,
    },
    traffic::{self, Flow, Numbers, Stats},
    view::Client,
};

const COLUMNS: [Column; 11] = [
    Column::text("NAME"),
    Column::number("REQUESTS").rank(3),
    Column::number("RPS"),
    Column::number("SUCCESS"),
    Column::number("P50"),
    Column::number("P95").rank(2),
    Column::number("P99"),
    Column::number("SECURED"),
    Column::number("IN").rank(5),
    Column::number("OUT").rank(5),
    Column::number("CONNS").rank(4),
];

/// What is counted for: namespace, name and (Services) port.
type Subject = (String, String, Option<u16>);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct RowDocument<'a> {
    namespace: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(flatten)]
    numbers: Numbers,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    kind: &'static str,
    window_seconds: f64,
    rows: Vec<RowDocument<'a>>,
}

/// Prints the counts.
///
/// # Errors
/// When the controller does not answer, or the name is not known.
pub(crate) async fn run(ctx: &Ctx, args: &StatArgs, out: &mut Out) -> anyhow::Result<Exit> {
    let namespace = args.scope.namespace.as_deref();
    let wanted = args.name.as_deref().map(|name| Wanted::parse(name, namespace)).transpose()?;
    repeat(ctx, args.scope.watch, out, async |client, out| show(client, args, wanted.as_ref(), out).await)
        .await
}

async fn show(
    client: &mut Client,
    args: &StatArgs,
    wanted: Option<&Wanted>,
    out: &mut Out,
) -> anyhow::Result<()> {
    let scope = &args.scope;
    let namespace = scope.namespace.as_deref().unwrap_or_default();
    let existing = existing(client, args.kind, namespace).await?;
    let flows = traffic::flows(&client.edges(namespace, scope.window).await?);
    let mut rows = traffic::group(&flows, |flow| subjects(args.kind, flow));
    for subject in existing {
        rows.entry(subject).or_default();
    }
    rows.retain(|(ns, ..), _| namespace.is_empty() || ns == namespace);
    if let Some(wanted) = wanted {
        let all: Vec<(String, String)> =
            rows.keys().map(|(ns, name, _)| (ns.clone(), name.clone())).collect();
        rows.retain(|(ns, name, _), _| wanted.is(ns, name));
        if rows.is_empty() {
            return Err(wanted.unknown(args.kind, &all));
        }
    }
    if !out.is_table() {
        let document = document(args, &rows);
        return if scope.watch { out.document_in_series(&document) } else { out.document(&document) };
    }
    let mut table = Table::new(&COLUMNS);
    rows.iter().for_each(|(subject, stats)| table.row(row(subject, stats, scope.namespace.as_deref())));
    let nothing = format!("There is no {} here.", args.kind.noun());
    match (scope.watch, table.is_empty()) {
        (true, empty) => out.screen(&if empty { nothing } else { out.render(&table) })?,
        (false, true) => out.remark(&nothing),
        (false, false) => {
            out.table(&table)?;
            if rows.values().all(Stats::is_idle) {
                out.remark(&format!("No calls {}.", window_words(scope.window)));
            }
            out.hint("meshctl edges  (who calls them?)");
        }
    }
    Ok(())
}

/// Everything of that kind that could be called, so that what has no traffic is shown as well.
async fn existing(client: &mut Client, kind: Kind, namespace: &str) -> anyhow::Result<Vec<Subject>> {
    if kind == Kind::Service {
        let services = client.services(namespace).await?;
        let subject = |port: &mesh_core::name::ServicePort| {
            (port.namespace.to_string(), port.name.to_string(), Some(port.port))
        };
        return Ok(services.iter().map(|service| subject(&service.routes.service)).collect());
    }
    let workloads = client.workloads(namespace).await?;
    let subject = |config: &mesh_core::config::WorkloadConfig| match kind {
        Kind::Workload => {
            Some((config.workload.namespace.to_string(), config.workload.name.to_string(), None))
        }
        _ => account(&config.identity),
    };
    Ok(workloads.iter().filter_map(|workload| subject(&workload.config)).collect())
}

/// What a flow counts for.
fn subjects(kind: Kind, flow: &Flow) -> Vec<Subject> {
    match kind {
        Kind::Service => {
            let called = flow.service.iter().chain(&flow.backend);
            called.map(|port| (port.namespace.to_string(), port.name.to_string(), Some(port.port))).collect()
        }
        Kind::Workload => {
            let served = flow.workload.iter();
            served.map(|workload| (workload.namespace.to_string(), workload.name.to_string(), None)).collect()
        }
        Kind::Serviceaccount => flow.destination.iter().filter_map(account).collect(),
    }
}

fn account(id: &SpiffeId) -> Option<Subject> {
    id.namespace_and_account().map(|(namespace, name)| (namespace.to_owned(), name.to_owned(), None))
}

fn row((namespace, name, port): &Subject, stats: &Stats, home: Option<&str>) -> [Cell; 11] {
    let prefix = if home == Some(namespace.as_str()) { String::new() } else { format!("{namespace}/") };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let latency = |q| Cell::from(stats.quantile(q).map(units::latency).unwrap_or_default());
    let active = |text: String| Cell::from(if stats.is_idle() { String::new() } else { text });
    let success = if stats.failures > 0 { Tone::Bad } else { Tone::Plain };
    let secured = if stats.secured < stats.requests { Tone::Warn } else { Tone::Plain };
    [
        format!("{prefix}{name}{port}").into(),
        active(stats.requests.to_string()),
        active(units::rate(stats.rate)),
        Cell::toned(units::share(stats.successes(), stats.requests), success),
        latency(0.5),
        latency(0.95),
        latency(0.99),
        Cell::toned(units::share(stats.secured, stats.requests), secured),
        active(units::bytes(stats.request_bytes)),
        active(units::bytes(stats.response_bytes)),
        active(stats.connections.to_string()),
    ]
}

fn document<'a>(args: &StatArgs, rows: &'a BTreeMap<Subject, Stats>) -> Document<'a> {
    let row = |((namespace, name, port), stats): (&'a Subject, &Stats)| RowDocument {
        namespace,
        name,
        port: *port,
        numbers: stats.numbers(),
    };
    Document {
        kind: args.kind.arg(),
        window_seconds: args.scope.window.as_secs_f64(),
        rows: rows.iter().map(row).collect(),
    }
}
