//! `meshctl demo`: the mesh at work, until Ctrl-C.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    counts::Batch,
    stage::{NAMESPACE, Stage},
};
use crate::{
    Exit,
    out::{
        Out, Tone,
        table::{Cell, Column, Table},
        units,
    },
    traffic::{self, Flow, Numbers},
};

/// Requests a second unless said otherwise.
pub(crate) const RATE: u32 = 100;
/// Window of the table.
const WINDOW: Duration = Duration::from_secs(10);
/// How often the batch job runs: often enough to stay in the table.
const BATCH_EVERY: Duration = Duration::from_secs(5);
/// When the split is moved, after the start of the load.
const SPLIT_AT: Duration = Duration::from_secs(15);

/// Most lines of the story.
const MAX_STORY: usize = 8;

/// What has happened so far, one line each.
#[derive(Debug, Default)]
struct Story(Vec<String>);

impl Story {
    /// Adds a line, unless the last of its kind (they begin alike) said the same.
    fn add_change(&mut self, since: Instant, kind: &str, text: &str) {
        let last = self.0.iter().rev().find(|line| line.contains(kind));
        if last.is_none_or(|line| !line.ends_with(text)) {
            self.add(since, text);
        }
    }

    fn add(&mut self, since: Instant, text: &str) {
        if self.0.len() >= MAX_STORY {
            self.0.remove(0);
        }
        self.0.push(format!("{:>4}  {text}", units::span(since.elapsed().as_secs())));
    }
}

/// Shows the mesh at work until `duration` is over; None: until the caller drops it.
///
/// # Errors
/// When something does not start or does not go on.
pub(crate) async fn play(
    stage: &mut Stage,
    rate: u32,
    duration: Option<Duration>,
    out: &mut Out,
) -> anyhow::Result<Exit> {
    out.remark("Starting the controller, 7 sidecars and 5 services ...");
    let mut story = Story::default();
    let begin = Instant::now();
    stage.start().await?;
    stage.start_load(rate)?;
    story.add(
        begin,
        &format!("All is ready; {rate} requests a second go to storefront, catalog is split 90/10"),
    );
    let (start, mut batch_at, mut split_due) = (Instant::now(), BATCH_EVERY, true);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        stage.all_run()?;
        if start.elapsed() >= batch_at {
            batch_at = start.elapsed() + BATCH_EVERY;
            let told = stage.batch().await?;
            story.add_change(begin, BATCH_JOB, &batch_line(&told));
        }
        if split_due && start.elapsed() >= SPLIT_AT {
            split_due = false;
            let took = stage.split(50, 50).await?;
            let file = stage.dir.source().join("split.yaml");
            let line = format!("Wrote 50/50 into {}: applied after {} ms", file.display(), took.as_millis());
            story.add(begin, &line);
        }
        let reports = stage.view()?.edges(NAMESPACE, WINDOW).await?;
        show(stage, &traffic::flows(&reports), &story, out)?;
        if duration.is_some_and(|duration| start.elapsed() >= duration) {
            return Ok(Exit::Ok);
        }
    }
}

/// How lines about the batch job begin.
const BATCH_JOB: &str = "The batch job called cart";

fn batch_line(told: &Batch) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    let verdict = if told.mesh_reason.is_some() { "was refused" } else { "was let in" };
    format!(
        "{BATCH_JOB} and {verdict}: HTTP {}, grpc-status {}, mesh-reason {}",
        told.status,
        part(&told.grpc_status),
        part(&told.mesh_reason)
    )
}

/// One row, for programs.
#[derive(Debug, Serialize)]
struct Row<'a> {
    from: &'a str,
    to: &'a str,
    secured: &'static str,
    #[serde(flatten)]
    numbers: Numbers,
}

fn show(stage: &Stage, flows: &[Flow], story: &Story, out: &mut Out) -> anyhow::Result<()> {
    if !out.is_table() {
        let row = |flow| {
            let (from, to) = ends(flow);
            Row { from, to, secured: flow.secured.as_str(), numbers: flow.stats.numbers() }
        };
        return out.document_in_series(&flows.iter().map(row).collect::<Vec<_>>());
    }
    let table = out.render(&edges(flows));
    let text = match out.is_terminal() {
        true => format!("{}\n{table}\n{}\n\n{}", title(out), story.0.join("\n"), next(stage, out)),
        // Lines that follow each other: what has not changed is not said again.
        false => format!("{table}{}", story.0.last().map_or("", String::as_str)),
    };
    out.screen(&text)?;
    Ok(())
}

fn title(out: &Out) -> String {
    out.paint(
        Tone::Bold,
        "The shop in a mesh: every call below is encrypted and authenticated. Ctrl-C ends it.",
    )
}

/// Edges by caller and callee.
fn edges(flows: &[Flow]) -> Table {
    let mut table = Table::new(&[
        Column::text("FROM"),
        Column::text("TO"),
        Column::text("SECURED"),
        Column::number("RPS"),
        Column::number("SUCCESS"),
        Column::number("P50"),
        Column::number("P99"),
        Column::text("REASON").rank(1),
    ]);
    for flow in flows {
        let (from, to) = ends(flow);
        let stats = &flow.stats;
        let tone = if flow.secured.is_secured() { Tone::Good } else { Tone::Bad };
        let success = units::share(stats.successes(), stats.requests);
        let success_tone = if stats.failures == 0 { Tone::Plain } else { Tone::Warn };
        let latency = |quantile| stats.quantile(quantile).map(units::latency).unwrap_or_default();
        let reason =
            stats.top_reason().map(|(reason, n)| format!("{} x{n}", reason.code())).unwrap_or_default();
        table.row([
            from.into(),
            to.into(),
            Cell::toned(flow.secured.as_str(), tone),
            units::rate(stats.rate).into(),
            Cell::toned(success, success_tone),
            latency(0.5).into(),
            latency(0.99).into(),
            reason.into(),
        ]);
    }
    table
}

/// Caller and callee, as short as they are clear.
fn ends(flow: &Flow) -> (&str, &str) {
    let from =
        flow.source.as_ref().and_then(|id| id.namespace_and_account()).map_or("unknown", |(_, name)| name);
    let service = flow.service.as_ref().map_or("unknown", |service| &service.name);
    (from, flow.workload.as_ref().map_or(service, |workload| &workload.name))
}

/// What to try, in another terminal.
fn next(stage: &Stage, out: &Out) -> String {
    let state = stage.dir.state();
    let state = state.display();
    if let Some(load) = stage.namespace(super::layout::LOAD) {
        return next_in_namespaces(stage, out, &load);
    }
    let own = stage.net.at(super::layout::LOAD, mesh_core::ports::OUTBOUND);
    let batch = stage.net.at(super::layout::BATCH, mesh_core::ports::OUTBOUND);
    let lines = [
        format!("export MESH_DATA_DIR={state}"),
        "meshctl edges                        who calls whom".to_owned(),
        "meshctl inspect svc catalog          how the split is seen".to_owned(),
        "meshctl check                        is anything wrong?".to_owned(),
        format!(
            "$EDITOR {}    change the weights, and look",
            stage.dir.source().join("split.yaml").display()
        ),
        format!("curl -H 'Host: storefront' http://{own}/product/tea-1     as the load does"),
        format!("curl -iH 'Host: cart:7070' http://{batch}/                as batch, which may not"),
    ];
    let text: String = lines.iter().map(|line| format!("\n  {line}")).collect();
    format!("{}{text}", out.paint(Tone::Bold, "Try in another terminal:"))
}

/// What to try, in another terminal, in the namespaces of a transparent demo.
fn next_in_namespaces(stage: &Stage, out: &Out, load: &str) -> String {
    let user = if std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295")) {
        ""
    } else {
        "--user --preserve-credentials "
    };
    let (pid, state) = (std::process::id(), stage.dir.state());
    let lines = [
        format!("nsenter {user}--target {pid} --net          a shell where the controller is"),
        format!("  export MESH_DATA_DIR={}", state.display()),
        "  meshctl edges                        who calls whom".to_owned(),
        "  meshctl check                        is anything wrong?".to_owned(),
        format!("nsenter {user}--target {pid} --net={load}    a shell where the load is"),
        format!("  curl http://{}/product/tea-1     led through its sidecar", super::transparent::STOREFRONT),
        "  mesh-proxy init --proxy-mark 1 --print     rules as text".to_owned(),
    ];
    let text: String = lines.iter().map(|line| format!("\n  {line}")).collect();
    format!("{}{text}", out.paint(Tone::Bold, "Try in another terminal:"))
}

#[cfg(test)]
mod tests {
    use mesh_core::{protocol::Protocol, reason::Reason};

    use super::*;
    use crate::traffic::{Secured, Stats};

    fn flow(from: &str, workload: &str, requests: u64, denied: u64) -> Flow {
        let id =
            |account: &str| Some(format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap());
        let mut stats =
            Stats { requests, failures: denied, rate: requests as f64 / 10.0, ..Stats::default() };
        (0..requests).for_each(|_| stats.latency.record(1_000));
        if denied > 0 {
            stats.reasons.insert(Reason::AuthzDenied, denied);
        }
        Flow {
            source: id(from),
            destination: id("cart"),
            service: Some("shop/cart:7070".parse().unwrap()),
            backend: None,
            workload: Some(format!("shop/{workload}").parse().unwrap()),
            protocol: Protocol::Grpc,
            secured: Secured::Both,
            stats,
        }
    }

    #[test]
    fn the_table_shows_who_calls_whom_and_who_may_not() {
        let text =
            edges(&[flow("storefront", "cart", 500, 0), flow("batch", "cart", 2, 2)]).render(None, false);
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["storefront", "cart", "yes", "50.0", "100%", "1.0ms", "1.0ms", "-"]);
        assert_eq!(lines[2], ["batch", "cart", "yes", "0.2", "0.0%", "1.0ms", "1.0ms", "AUTHZ_DENIED", "x2"]);
    }

    #[test]
    fn the_story_tells_changes_only() {
        let (mut story, now) = (Story::default(), Instant::now());
        for said in ["was refused", "was refused", "was let in"] {
            story.add_change(now, BATCH_JOB, &format!("{BATCH_JOB} and {said}"));
        }
        story.add(now, "something else");
        story.add_change(now, BATCH_JOB, &format!("{BATCH_JOB} and was let in"));
        assert_eq!(story.0.len(), 3);
        (0..20).for_each(|_| story.add(now, "again"));
        assert_eq!(story.0.len(), MAX_STORY);
    }
}
