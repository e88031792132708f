//! The commands, one file each, and what several of them need.

pub(crate) mod bundle;
pub(crate) mod check;
pub(crate) mod completion;
pub(crate) mod edges;
pub(crate) mod inject;
pub(crate) mod inspect;
pub(crate) mod install;
pub(crate) mod logs;
pub(crate) mod names;
pub(crate) mod proxy_config;
pub(crate) mod stat;
pub(crate) mod status;
pub(crate) mod uninstall;
pub(crate) mod upgrade;
pub(crate) mod version;
pub(crate) mod wait;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{
    Exit,
    cluster::ClusterError,
    ctx::{Ctx, CtxError},
    out::{Out, units},
    view::{Client, ViewError},
};

/// Time between two looks with `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Calls `show` once, or again and again until Ctrl-C. While watching, a controller that is away for a moment is waited
/// for.
async fn repeat(
    ctx: &Ctx,
    watch: bool,
    out: &mut Out,
    mut show: impl AsyncFnMut(&mut Client, &mut Out) -> anyhow::Result<()>,
) -> anyhow::Result<Exit> {
    let mut client = ctx.connect(out).await?;
    let shown = show(&mut client, out).await;
    warn(&mut client, out);
    shown?;
    if !watch {
        return Ok(Exit::Ok);
    }
    let mut lost = false;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        let shown = async {
            if lost {
                client = ctx.connect(out).await?;
            }
            show(&mut client, out).await
        };
        let result = shown.await;
        warn(&mut client, out);
        lost = result.as_ref().is_err_and(is_passing);
        match result {
            Err(error) if lost => out.error(&error),
            other => other?,
        }
    }
}

/// Says what was left out of the controller's answers.
fn warn(client: &mut Client, out: &Out) {
    for text in client.left_out() {
        out.warning(&format!("{text}; use a meshctl of the controller's version"));
    }
}

/// True when the controller may be back soon, perhaps at another address.
fn is_passing(error: &anyhow::Error) -> bool {
    let away = matches!(error.downcast_ref(), Some(CtxError::NoController(_)))
        || matches!(
            error.downcast_ref(),
            Some(ClusterError::Unreachable { .. } | ClusterError::Away { .. } | ClusterError::Odd { .. })
        );
    away || matches!(
        error.downcast_ref(),
        Some(ViewError::Unreachable { .. } | ViewError::Timeout { .. } | ViewError::NotAController { .. })
    )
}

/// "in the last 30s", or "since the proxies' start".
fn window_words(window: Duration) -> String {
    match window.as_secs() {
        0 if window.is_zero() => "since the proxies' start".into(),
        0 => format!("in the last {window:?}"),
        seconds => format!("in the last {}", units::span(seconds)),
    }
}

/// This machine's clock, in milliseconds since the Unix epoch.
fn now_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// "in 23h58m", "5m ago": a point in time (seconds since the Unix epoch) as seen from `now_millis`.
fn when(unix_seconds: i64, now_millis: i64) -> String {
    let left = unix_seconds.saturating_sub(now_millis / 1000);
    let span = units::span(left.unsigned_abs());
    if left >= 0 { format!("in {span}") } else { format!("{span} ago") }
}

/// "3s ago": a point in time that is past; clocks that differ a little do not make it future.
fn ago(unix_millis: i64, now_millis: i64) -> String {
    let past = now_millis.saturating_sub(unix_millis).max(0) / 1000;
    format!("{} ago", units::span(past.unsigned_abs()))
}

/// How two versions of the mesh get along: one minor version apart is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skew {
    /// The same version.
    None,
    /// At most one minor version apart.
    Supported,
    /// Further apart, or not to be read.
    Unsupported,
}

fn skew(a: &str, b: &str) -> Skew {
    if a == b {
        return Skew::None;
    }
    let parse = |version: &str| {
        let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
        Some((parts.next()??, parts.next()??))
    };
    match (parse(a), parse(b)) {
        (Some((major, minor)), Some((other, other_minor)))
            if major == other && minor.abs_diff(other_minor) <= 1 =>
        {
            Skew::Supported
        }
        _ => Skew::Unsupported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_one_minor_apart_get_along() {
        assert_eq!(skew("0.1.0", "0.1.0"), Skew::None);
        assert_eq!(skew("0.1.0", "0.2.7-rc.1"), Skew::Supported);
        assert_eq!(skew("0.1.0", "0.3.0"), Skew::Unsupported);
        assert_eq!(skew("1.0.0", "0.1.0"), Skew::Unsupported);
        assert_eq!(skew("0.1.0", ""), Skew::Unsupported);
    }

    #[test]
    fn points_in_time() {
        assert_eq!(when(160, 100_000), "in 1m");
        assert_eq!(when(40, 100_000), "1m ago");
        assert_eq!(ago(40_500, 100_000), "59s ago");
        assert_eq!(ago(100_300, 100_000), "0s ago");
        assert_eq!(when(i64::MAX, -1), "in 106751991167300d");
    }

    #[test]
    fn windows() {
        assert_eq!(window_words(Duration::ZERO), "since the proxies' start");
        assert_eq!(window_words(Duration::from_millis(300)), "in the last 300ms");
        assert_eq!(window_words(Duration::from_secs(90)), "in the last 1m30s");
    }
}
