//! `meshctl check`: is the mesh well, and what to do where it is not.
//!
//! Checks are data ([`model`]); [`control_plane`] and [`data_plane`] are pure functions from what the controller says to
//! checks; [`offline`] looks at the files of a directory ([`source`]) instead. In a cluster, [`cluster`] asks the API server
//! too, and [`proxies`] each proxy; [`pre`] is for a cluster that has no mesh yet.

mod cluster;
mod control_plane;
mod data_plane;
mod model;
mod offline;
mod pods;
mod pre;
mod proxies;
mod source;
mod surroundings;
mod system;
#[cfg(test)]
mod tests;

use std::time::Duration;

use mesh_proto::view::v1 as pb;

use self::model::{Check, Report};
use super::now_millis;
use crate::{
    Exit,
    cli::CheckArgs,
    cluster::{Cluster, ClusterError},
    ctx::{Ctx, CtxError},
    out::{Out, Tone, table},
    view::{Client, ViewError, WorkloadView},
};

/// How long a change may take to reach all proxies before it counts as not applied.
const SETTLE: Duration = Duration::from_millis(2500);

/// Runs all checks and prints them.
///
/// # Errors
/// When the directory of `--source` cannot be read, or stdout cannot be written. A controller that does not answer is
/// a failed check.
pub(crate) async fn run(ctx: &Ctx, args: &CheckArgs, out: &Out) -> anyhow::Result<Exit> {
    let report = match (&args.source, ctx.place()) {
        (Some(directory), _) => offline::check(directory, args)?,
        _ if args.pre => Report::new(before(ctx).await?),
        (None, Some(_)) => Report::new(in_cluster(ctx, args.proxy, out).await?),
        (None, None) if args.proxy => {
            anyhow::bail!("--proxy asks the proxies of a cluster; name it with --context or --kubeconfig")
        }
        (None, None) => Report::new(online(ctx, out).await?.0),
    };
    if !out.is_table() {
        out.document(&report)?;
        return Ok(report.exit());
    }
    print(&report, out)?;
    if report.failed == 0 && args.source.is_none() {
        out.hint(if args.pre { "meshctl install" } else { "meshctl edges" });
    }
    Ok(report.exit())
}

/// All checks of a mesh in a cluster, each proxy among them, as a document.
///
/// # Errors
/// When there is no usable kubeconfig.
pub(super) async fn report(ctx: &Ctx, out: &Out) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::to_value(Report::new(in_cluster(ctx, true, out).await?))?)
}

/// Whether a mesh can be installed in the cluster that is named, or the one of the current context.
async fn before(ctx: &Ctx) -> anyhow::Result<Vec<Check>> {
    match reached(Cluster::connect(&ctx.place_or_current(), ctx.timeout()).await)? {
        Ok(found) => pre::checks(&found).await,
        Err(check) => Ok(vec![check]),
    }
}

/// The mesh in a cluster: what the API server says, then what the controller says, then each proxy.
async fn in_cluster(ctx: &Ctx, proxies: bool, out: &Out) -> anyhow::Result<Vec<Check>> {
    let found = match reached(Cluster::connect(&ctx.place_or_current(), ctx.timeout()).await)? {
        Ok(found) => found,
        Err(check) => return Ok(vec![check]),
    };
    let (online, status) = online(ctx, out).await?;
    let mut checks = cluster::checks(&found, status.as_ref()).await;
    checks.extend(online);
    if proxies {
        match cluster::seen(&found).await {
            Ok((_, pods)) => {
                let pods = cluster::with_proxies(&pods);
                let wanted = proxies::Wanted {
                    trust_domain: status.as_ref().map(|status| status.trust_domain.as_str()),
                    version: status.as_ref().map(|status| status.version.as_str()),
                };
                checks.extend(proxies::checks(&found, &pods, wanted, ctx.timeout()).await);
            }
            Err(error) => checks.push(cluster::unreadable(&error)),
        }
    }
    Ok(by_category(checks))
}

/// Categories in the order in which they came up, each once.
fn by_category(mut checks: Vec<Check>) -> Vec<Check> {
    let mut order: Vec<&'static str> = Vec::new();
    for check in &checks {
        if !order.contains(&check.category) {
            order.push(check.category);
        }
    }
    checks.sort_by_key(|check| order.iter().position(|category| *category == check.category));
    checks
}

/// A cluster that does not answer is a failed check; without a usable kubeconfig nothing was checked.
fn reached(connected: Result<Cluster, ClusterError>) -> Result<Result<Cluster, Check>, ClusterError> {
    match connected {
        Ok(cluster) => Ok(Ok(cluster)),
        Err(error @ (ClusterError::Unreachable { .. } | ClusterError::Unauthorized { .. })) => {
            Ok(Err(cluster::unreachable(&error)))
        }
        Err(error) => Err(error),
    }
}

/// What the controller says; and its status, where it answers.
async fn online(ctx: &Ctx, out: &Out) -> anyhow::Result<(Vec<Check>, Option<pb::GetStatusResponse>)> {
    let mut checks = Vec::new();
    let mut client = match ctx.connect(out).await {
        Ok(client) => client,
        Err(error) if matches!(error.downcast_ref(), Some(CtxError::NoDirectory)) => return Err(error),
        Err(error) => return Ok((vec![control_plane::not_found(&error)], None)),
    };
    let asked = now_millis();
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => return Ok((control_plane::refused(client.address(), &error), None)),
    };
    checks.extend(control_plane::checks(&status, client.address(), asked, now_millis()));
    match rest(&mut client, status.clone()).await {
        Ok(more) => checks.extend(more),
        Err(error) => checks.push(control_plane::unreachable(&error)),
    }
    Ok((checks, Some(status)))
}

async fn rest(client: &mut Client, status: pb::GetStatusResponse) -> Result<Vec<Check>, ViewError> {
    let problems = client.problems().await?;
    let (status, workloads) = settled(client, status).await?;
    let left_out = client.left_out();
    let mut checks: Vec<Check> = left_out.iter().map(|text| control_plane::left_out(text)).collect();
    checks.extend(control_plane::problems(&problems, true));
    checks.extend(data_plane::checks(&status, &workloads));
    Ok(checks)
}

/// Waits a moment for proxies that are just applying a change.
async fn settled(
    client: &mut Client,
    mut status: pb::GetStatusResponse,
) -> Result<(pb::GetStatusResponse, Vec<WorkloadView>), ViewError> {
    let deadline = tokio::time::Instant::now() + SETTLE;
    loop {
        let workloads = client.workloads("").await?;
        if data_plane::is_settled(&status, &workloads) || tokio::time::Instant::now() >= deadline {
            return Ok((status, workloads));
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        status = client.status().await?;
    }
}

fn print(report: &Report, out: &Out) -> anyhow::Result<()> {
    let mut text = String::new();
    let mut category = "";
    // Many objects with one trouble are told once.
    let same = |a: &Check, b: &Check| {
        (a.check, a.result, &a.reason, &a.detail) == (b.check, b.result, &b.reason, &b.detail)
    };
    for group in report.checks.chunk_by(same) {
        let Some((check, others)) = group.split_first() else { continue };
        if check.category != category {
            let gap = if category.is_empty() { "" } else { "\n" };
            category = check.category;
            text.push_str(&format!("{gap}{}\n", out.paint(Tone::Bold, category)));
        }
        let (tone, sign) = check.result.sign();
        let sign = out.paint(tone, &format!("{sign:<4}"));
        text.push_str(&format!("  {sign}  {}\n", table::plain(&check.line())));
        let others: Vec<&str> = others.iter().filter_map(|check| check.subject.as_deref()).collect();
        let also = (!others.is_empty()).then(|| format!("also {}", others.join(", ")));
        for (more, tone) in [(&check.reason, Tone::Plain), (&also, Tone::Plain), (&check.remedy, Tone::Dim)] {
            if let Some(more) = more {
                text.push_str(&format!("        {}\n", out.paint(tone, &table::plain(more))));
            }
        }
    }
    let (tone, _) = report.worst().sign();
    text.push_str(&format!("\n{}", out.paint(tone, &report.summary())));
    Ok(out.line(&text)?)
}
