//! `meshctl support-bundle`: what helps to find out what is wrong in a cluster, in one file, without secrets.

mod archive;
mod collect;
mod redact;

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use self::{archive::Archive, collect::Collector, redact::Redactor};
use super::{check, now_millis, version::VERSION};
use crate::{
    Exit,
    cli::SupportBundleArgs,
    cluster::{Cluster, forward},
    ctx::Ctx,
    out::{Out, units},
};

const README: &str = "\
What `meshctl support-bundle` found. Left out: contents of Secrets, values of the applications'
environment, and whatever looks like a token, a password or a private key.

bundle.json   when, by which version, of which cluster
check.json    what `meshctl check --proxy` says
objects/      objects of the mesh's namespace, of its kinds, and of pods with a proxy
logs/         controllers, agents of the CNI plugin, sidecars
proxies/      what proxies say themselves
missing.txt   what could not be read, and why
";

/// Collects it.
///
/// # Errors
/// When the cluster does not answer, or the file cannot be written.
pub(crate) async fn run(ctx: &Ctx, args: &SupportBundleArgs, out: &Out) -> anyhow::Result<Exit> {
    let ctx = &ctx.of_cluster();
    let cluster = Cluster::connect(&ctx.place_or_current(), ctx.timeout()).await?;
    let seconds = now_millis() / 1000;
    let time = units::timestamp(seconds).unwrap_or_default();
    let path = args.file.clone().unwrap_or_else(|| {
        let digits: String = time.chars().filter(|c| c.is_ascii_digit()).collect();
        PathBuf::from(format!("mesh-support-{digits}.tar.gz"))
    });
    // What is known of secrets is taken out wherever it stands.
    let token = forward::token(&cluster).await;
    let redactor = Redactor::new(token.into_iter().collect())?;
    let archive = Archive::create(&path, u64::try_from(seconds).unwrap_or(0));
    let archive =
        archive.with_context(|| format!("cannot write {}; name another file with --file", path.display()))?;
    let mut collector =
        Collector { cluster: &cluster, redactor, archive, missing: Vec::new(), patience: ctx.timeout() };
    collector.text("README.txt", README)?;
    let (major, minor) = cluster.version;
    let about = json!({"time": time, "meshctl": VERSION, "cluster": cluster.url, "kubernetes": format!("{major}.{minor}")});
    collector.json("bundle.json", about)?;
    out.remark("checking");
    match check::report(ctx, out).await {
        Ok(report) => collector.json("check.json", report)?,
        Err(error) => collector.lacks("check.json", &format!("{error:#}")),
    }
    out.remark("reading objects");
    let pods = collector.objects().await?;
    out.remark("reading logs, and asking proxies");
    collector.logs(args.tail).await?;
    collector.proxies(&pods, args.proxies, args.tail).await?;
    let (files, missing) = collector.finish()?;
    if !out.is_table() {
        out.document(&json!({"file": path, "files": files, "missing": missing}))?;
        return Ok(Exit::Ok);
    }
    let files = units::count(files, "file", "files");
    out.line(&format!("{}: {files}; look into it before you give it away", path.display()))?;
    if !missing.is_empty() {
        let lacking = units::count(missing.len(), "thing", "things");
        out.remark(&format!("{lacking} could not be read; missing.txt in it says which"));
    }
    Ok(Exit::Ok)
}
