//! `meshctl version`: of meshctl itself and, if it answers, of the controller.

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

/// The answer. `controller` is null when it was not asked or did not answer; `error` then says why.
#[derive(Debug, Serialize)]
struct Versions {
    client: &'static str,
    controller: Option<String>,
    error: Option<String>,
}

/// Prints the versions. A controller that does not answer is no error: the client's version was told.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) async fn run(ctx: &Ctx, args: &VersionArgs, out: &Out) -> anyhow::Result<Exit> {
    let mut versions = Versions { client: VERSION, controller: None, error: None };
    if !args.client {
        match ask(ctx, out).await {
            Ok(version) => versions.controller = Some(version),
            Err(error) => versions.error = Some(error.to_string()),
        }
    }
    if !out.is_table() {
        out.document(&versions)?;
        return Ok(Exit::Ok);
    }
    let mut fields = vec![("meshctl", versions.client.to_owned())];
    fields.extend(versions.controller.clone().map(|version| ("controller", version)));
    out.line(&table::fields(0, &fields))?;
    if let Some(error) = &versions.error {
        out.remark(&format!("controller not asked: {error}"));
    }
    if versions.controller.is_some_and(|version| skew(VERSION, &version) == Skew::Unsupported) {
        out.remark("these versions are too far apart to work together: at most one minor version");
    }
    Ok(Exit::Ok)
}

async fn ask(ctx: &Ctx, out: &Out) -> anyhow::Result<String> {
    Ok(ctx.connect(out).await?.status().await?.version)
}
