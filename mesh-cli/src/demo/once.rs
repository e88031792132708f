//! `meshctl demo --once`: everything once, checked.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{
    checks::{self, Check, Evidence, Phase},
    counts::{Batch, Counts, Latency},
    stage::Stage,
};
use crate::{
    Exit,
    out::{
        Out, Tone,
        table::{Cell, Column, Table},
    },
};

/// Requests under each split.
const REQUESTS: u64 = 1_500;
/// Requests a second unless said otherwise.
pub(crate) const RATE: u32 = 400;

/// All that was seen, and how long things took.
#[derive(Debug)]
pub(crate) struct Run {
    /// What is checked.
    pub(crate) evidence: Evidence,
    ready: Duration,
    moved: Duration,
}

/// Plays the whole piece on a stage that was prepared.
///
/// # Errors
/// When something cannot even be tried.
pub(crate) async fn play(stage: &mut Stage, rate: u32, out: &Out) -> anyhow::Result<Run> {
    let begin = Instant::now();
    stage.start().await?;
    let ready = begin.elapsed();
    out.remark(&format!(
        "Controller, 7 sidecars and 5 services are ready after {:.1} s.",
        ready.as_secs_f64()
    ));
    let base = stage.counts().await?;
    if !checks::complete(&base) {
        anyhow::bail!("not every sidecar gives metrics");
    }
    out.remark(&format!("Sending {REQUESTS} requests, catalog split 90/10 ..."));
    let (first, after_first) = phase(stage, 90, rate, &base).await?;
    out.remark("Running the batch job, which may not read carts ...");
    let batch = stage.batch().await?;
    let after_batch = stage.counts().await?;
    out.remark("Editing split.yaml to 50/50 ...");
    let moved = stage.split(50, 50).await?;
    out.remark(&format!(
        "The sidecar took it after {} ms; sending {REQUESTS} requests ...",
        moved.as_millis()
    ));
    let (second, end) = phase(stage, 50, rate, &after_batch).await?;
    stage.all_run()?;
    let evidence = Evidence {
        phases: vec![first, second],
        whole: end.since(&base),
        batch,
        batch_counts: after_batch.since(&after_first),
        left: Vec::new(),
    };
    Ok(Run { evidence, ready, moved })
}

async fn phase(
    stage: &mut Stage,
    percent_v1: u32,
    rate: u32,
    before: &Counts,
) -> anyhow::Result<(Phase, Counts)> {
    let load = stage.load(REQUESTS, rate).await?;
    let after = stage.counts().await?;
    Ok((Phase { percent_v1, load, counts: after.since(before) }, after))
}

/// The summary, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    holds: bool,
    checks: &'a [Check],
    batch: &'a Batch,
    /// Of each phase, in microseconds.
    latency_micros: Vec<Latency>,
    /// Of each phase.
    requests_per_second: Vec<f64>,
    /// From the start of the controller until every sidecar was ready.
    ready_millis: u128,
    /// From the edit of the file until the sidecar went by it.
    split_applied_millis: u128,
    /// From the start to the end.
    seconds: f64,
}

/// Checks what was seen and prints it.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn report(run: &Run, took: Duration, out: &Out) -> anyhow::Result<Exit> {
    let checks = checks::all(&run.evidence);
    let failed = checks.iter().filter(|check| !check.holds).count();
    let exit = if failed == 0 { Exit::Ok } else { Exit::NotWell };
    if !out.is_table() {
        let phases = &run.evidence.phases;
        out.document(&Summary {
            holds: failed == 0,
            checks: &checks,
            batch: &run.evidence.batch,
            latency_micros: phases.iter().map(|phase| phase.load.latency_micros).collect(),
            requests_per_second: phases.iter().map(|phase| phase.load.rate.round()).collect(),
            ready_millis: run.ready.as_millis(),
            split_applied_millis: run.moved.as_millis(),
            seconds: took.as_secs_f64(),
        })?;
        return Ok(exit);
    }
    let mut table = Table::new(&[Column::text("CLAIM"), Column::text("HOLDS"), Column::text("SEEN")]);
    for check in &checks {
        let holds = if check.holds { Cell::toned("yes", Tone::Good) } else { Cell::toned("NO", Tone::Bad) };
        table.row([check.name.into(), holds, check.detail.clone().into()]);
    }
    out.table(&table)?;
    let seconds = took.as_secs_f64();
    match failed {
        0 => out.line(&format!("\nAll {} claims hold, after {seconds:.1} s.", checks.len()))?,
        _ => out.line(&format!(
            "\n{failed} of {} claims do NOT hold, after {seconds:.1} s. With --keep --dir DIR the logs stay.",
            checks.len()
        ))?,
    }
    Ok(exit)
}
