//! `meshctl version`: of meshctl itself and, if it answers, of the controller and of the proxies.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Skew, skew};
use crate::{
    Exit,
    cli::VersionArgs,
    ctx::Ctx,
    out::{Out, table},
};

/// Version of this binary.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The answer. `controller` is null when it was not asked or did not answer; `error` then says why. `proxies`: how many
/// connected ones have which version.
#[derive(Debug, Serialize)]
struct Versions {
    client: &'static str,
    controller: Option<String>,
    proxies: BTreeMap<String, usize>,
    error: Option<String>,
}

/// Prints the versions. A controller that does not answer is no error: the client's version was told.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) async fn run(ctx: &Ctx, args: &VersionArgs, out: &Out) -> anyhow::Result<Exit> {
    let mut versions = Versions { client: VERSION, controller: None, proxies: BTreeMap::new(), error: None };
    if !args.client
        && let Err(error) = ask(ctx, out, &mut versions).await
    {
        versions.error = Some(error.to_string());
    }
    if !out.is_table() {
        out.document(&versions)?;
        return Ok(Exit::Ok);
    }
    let mut fields = vec![("meshctl", versions.client.to_owned())];
    fields.extend(versions.controller.clone().map(|version| ("controller", version)));
    let proxies: Vec<String> =
        versions.proxies.iter().map(|(version, count)| format!("{version} ({count})")).collect();
    if !proxies.is_empty() {
        fields.push(("proxies", proxies.join(", ")));
    }
    out.line(&table::fields(0, &fields))?;
    if let Some(error) = &versions.error {
        out.remark(&format!("controller not asked: {error}"));
    }
    let Some(controller) = &versions.controller else { return Ok(Exit::Ok) };
    if skew(VERSION, controller) == Skew::Unsupported {
        out.remark("these versions are too far apart to work together: at most one minor version");
    } else if versions.proxies.keys().any(|version| skew(version, controller) == Skew::Unsupported) {
        out.remark(
            "some proxies are too far from the controller: at most one minor version; see `meshctl check`",
        );
    }
    Ok(Exit::Ok)
}

async fn ask(ctx: &Ctx, out: &Out, versions: &mut Versions) -> anyhow::Result<()> {
    let mut client = ctx.connect(out).await?;
    versions.controller = Some(client.status().await?.version);
    for view in client.workloads("").await? {
        if let Some(proxy) = view.proxy.filter(|proxy| proxy.connected) {
            *versions.proxies.entry(proxy.version).or_default() += 1;
        }
    }
    Ok(())
}
