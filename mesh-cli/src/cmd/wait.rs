//! `meshctl wait --applied`: returns when all connected proxies have the controller's newest configuration.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::is_passing;
use crate::{
    Exit,
    cli::WaitArgs,
    ctx::Ctx,
    out::{Out, units},
    view::{Client, WorkloadView},
};

/// Time for all of it, where none is given.
const WITHIN: Duration = Duration::from_secs(30);
/// Time between two looks. Two in a row must be good: what was written a moment ago may not have reached the controller
/// at the first.
const PAUSE: Duration = Duration::from_millis(400);
/// Proxies that are named when they are late.
const NAMED: usize = 5;

/// How proxies stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Standing {
    applied: bool,
    /// Newest configuration.
    generation: u64,
    /// Connected proxies.
    proxies: usize,
    /// Those that have not applied it, and how they stand.
    behind: Vec<String>,
}

/// Waits.
///
/// # Errors
/// When the controller cannot be asked at all.
pub(crate) async fn run(ctx: &Ctx, _args: &WaitArgs, out: &Out) -> anyhow::Result<Exit> {
    let within = ctx.patience().unwrap_or(WITHIN);
    let started = Instant::now();
    let mut client = ctx.connect(out).await?;
    let mut earlier: Option<Standing> = None;
    loop {
        let seen = look(&mut client).await;
        let standing = match seen {
            Ok(standing) => standing,
            // The controller may be replaced while it is waited for.
            Err(error) if is_passing(&error) && started.elapsed() < within => {
                out.detail(&format!("{error:#}"));
                tokio::time::sleep(PAUSE).await;
                if let Ok(again) = ctx.connect(out).await {
                    client = again;
                }
                earlier = None;
                continue;
            }
            Err(error) => return Err(error),
        };
        let settled = standing.applied && earlier.as_ref() == Some(&standing);
        if settled || started.elapsed() >= within {
            super::warn(&mut client, out);
            return told(&standing, settled, (started.elapsed(), within), out);
        }
        if earlier.as_ref() != Some(&standing) {
            let has = standing.proxies - standing.behind.len();
            out.detail(&format!("generation {}: {has} of {}", standing.generation, standing.proxies));
        }
        earlier = Some(standing);
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(client: &mut Client) -> anyhow::Result<Standing> {
    let generation = client.status().await?.generation;
    Ok(standing(generation, &client.workloads("").await?))
}

/// Proxies that are not connected are not waited for: they get it when they come.
fn standing(generation: u64, workloads: &[WorkloadView]) -> Standing {
    let mut behind = Vec::new();
    let mut proxies = 0;
    for view in workloads {
        let Some(proxy) = view.proxy.as_ref().filter(|proxy| proxy.connected) else { continue };
        proxies += 1;
        let refused: Vec<String> =
            proxy.rejected.iter().map(|one| format!("{}: {}", one.name, one.error)).collect();
        let workload = &view.config.workload;
        if !refused.is_empty() {
            behind.push(format!("{workload} has refused {}", refused.join(", ")));
        } else if proxy.generation < generation {
            behind.push(format!("{workload} has generation {}", proxy.generation));
        }
    }
    Standing { applied: behind.is_empty(), generation, proxies, behind }
}

fn told(
    standing: &Standing,
    settled: bool,
    (taken, within): (Duration, Duration),
    out: &Out,
) -> anyhow::Result<Exit> {
    let exit = if settled { Exit::Ok } else { Exit::NotWell };
    if !out.is_table() {
        out.document(&Standing { applied: settled, ..standing.clone() })?;
        return Ok(exit);
    }
    let proxies = units::count(standing.proxies, "proxy", "proxies");
    if settled {
        let seconds = taken.as_secs_f64();
        let generation = standing.generation;
        let have = if standing.proxies == 1 { "has" } else { "have" };
        out.line(&format!("{proxies} {have} generation {generation}, after {seconds:.1} s"))?;
        return Ok(exit);
    }
    let mut text = match standing.behind.len() {
        0 => format!("the configuration did not stay the same within {within:?}"),
        late => format!(
            "{late} of {proxies} have not applied generation {} within {within:?}",
            standing.generation
        ),
    };
    for line in standing.behind.iter().take(NAMED) {
        text.push_str(&format!("\n  {line}"));
    }
    if standing.behind.len() > NAMED {
        text.push_str(&format!("\n  and {} more", standing.behind.len() - NAMED));
    }
    text.push_str("\nsee `meshctl check`, or wait longer with --timeout");
    out.failure(&text);
    Ok(exit)
}
