//! The outer network namespace of a transparent demo: meshctl starts itself again in one of its own, as root, or in a
//! user namespace in which it is root.

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use rustix::process::geteuid;

/// Says to the second meshctl where it is.
pub(crate) const INSIDE: &str = "--inside";
/// As root.
const AS_ROOT: [&str; 1] = ["--net"];
/// As anybody: the only user there is, is root.
const AS_ANYBODY: [&str; 3] = ["--user", "--map-root-user", "--net"];

/// Becomes the demo within a network namespace of its own; returns only when that is not possible.
///
/// # Errors
/// Says what is missing or not allowed, and what to do.
pub(crate) fn enter() -> anyhow::Result<std::convert::Infallible> {
    for (program, package) in [("unshare", "util-linux"), ("ip", "iproute2")] {
        if !on_path(program) {
            bail!("the demo's network namespaces need `{program}`: install the package {package}");
        }
    }
    let ways: &[&[&str]] = if geteuid().is_root() { &[&AS_ROOT, &AS_ANYBODY] } else { &[&AS_ANYBODY] };
    let Some(way) = ways.iter().find(|way| is_allowed(way)) else { bail!(refusal(geteuid().is_root())) };
    let own = env::current_exe().context("cannot tell where meshctl itself is")?;
    let error =
        Command::new("unshare").args(*way).arg("--").arg(own).args(env::args_os().skip(1)).arg(INSIDE).exec();
    Err(error).context("cannot start `unshare`")
}

fn refusal(root: bool) -> String {
    let limits = "user namespaces may be switched off: see /proc/sys/user/max_user_namespaces, \
                  kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns";
    if root {
        format!(
            "the demo's network namespaces are refused here, even to root: does this container lack the capability \
             SYS_ADMIN? Without --transparent the demo needs no privilege ({limits})"
        )
    } else {
        format!(
            "the demo's network namespaces need root, or user namespaces for everybody, which this machine refuses: \
             run it with sudo, or without --transparent ({limits})"
        )
    }
}

/// Tries whether namespaces can be made so.
fn is_allowed(way: &[&str]) -> bool {
    let mut probe = Command::new("unshare");
    probe.args(way).args(["--", "ip", "link", "set", "lo", "up"]);
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|place| place.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        assert!(refusal(false).contains("run it with sudo, or without --transparent"));
        assert!(refusal(true).contains("SYS_ADMIN"));
        assert!(on_path("sh") && !on_path("no-such-program"));
    }
}
