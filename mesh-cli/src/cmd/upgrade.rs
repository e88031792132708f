//! `meshctl upgrade`: another version, or other values, with a way back.

use std::time::Duration;

use super::{Skew, install, skew, uninstall::some, version::VERSION};
use crate::{
    Exit,
    cli::{UpgradeArgs, Where},
    cluster::{Cluster, preflight::Obstacle, wait::WaitError},
    install::{
        InstallError,
        release::Release,
        remove::{self, Injected},
        steps,
    },
    out::{Out, units},
};

/// How long the way back may take.
const BACK: Duration = Duration::from_secs(120);

/// Upgrades, and goes back when the new controller does not get healthy.
///
/// # Errors
/// When values cannot be used, or the cluster cannot be asked.
pub(crate) async fn run(
    place: &Where,
    timeout: Duration,
    args: &UpgradeArgs,
    out: &Out,
) -> anyhow::Result<Exit> {
    // Refused before anybody is asked.
    let objects = install::rendered(args.values.wanted().overlay(install::base())?)?;
    let cluster = install::connect(place, timeout, out).await?;
    let done = async {
        install::may(&cluster, &objects).await?;
        upgrade(&cluster, args, out).await
    };
    done.await.or_else(|error| crate::install::told(error, out))
}

async fn upgrade(cluster: &Cluster, args: &UpgradeArgs, out: &Out) -> anyhow::Result<Exit> {
    let Some(earlier) = Release::read(cluster).await? else {
        let what = "no installation by meshctl was completed in this cluster";
        return Err(InstallError::obstacle(what, "use `meshctl install`").into());
    };
    if let Err(error) = may_follow(&earlier.version, VERSION)
        && !args.force
    {
        return Err(error.into());
    }
    if earlier.version != VERSION && !args.force {
        let far = too_far(&remove::injected(cluster).await?, VERSION);
        if let Some(obstacle) = far {
            return Err(InstallError::Obstacles(vec![obstacle]).into());
        }
    }
    let kept = if args.reset_values { install::base() } else { earlier.overlay.clone() };
    let overlay = args.values.wanted().overlay(kept)?;
    let objects = install::rendered(overlay.clone())?;
    let plan = install::examined(cluster, &objects, Some(&earlier), true).await?;
    out.line(&format!("from {} to {VERSION}", earlier.version))?;
    if args.dry_run {
        install::show(&plan, out)?;
        return Ok(Exit::Ok);
    }
    let taken = steps::take(cluster, &objects, args.within, out).await;
    let left = match taken {
        Ok(left) => left,
        Err(error) => return Err(back(cluster, &earlier, error, out).await.into()),
    };
    Release::new(VERSION, overlay, &objects).write(cluster).await?;
    out.line(&format!("the mesh {VERSION} is ready"))?;
    out.hint("kubectl rollout restart deployment -n NAME; proxies of the earlier version go on until then");
    Ok(install::tidied(&left, out))
}

/// A proxy and its controller are at most one minor version apart, so that an upgrade takes one at a time.
fn may_follow(from: &str, to: &str) -> Result<(), InstallError> {
    let number =
        |version: &str| -> Vec<u64> { version.split('.').map_while(|part| part.parse().ok()).collect() };
    if number(to) < number(from) {
        let what = format!("{from} is installed, which is newer than this meshctl {to}");
        return Err(InstallError::obstacle(what, "use a meshctl of that version, or go back with --force"));
    }
    match skew(from, to) {
        Skew::None | Skew::Supported => Ok(()),
        Skew::Unsupported => {
            let what = format!(
                "from {from} to {to} is more than one minor version: proxies would lose their controller"
            );
            Err(InstallError::obstacle(what, "upgrade to each minor version in between, or add --force"))
        }
    }
}

/// Proxies that would be further away from the new controller than is supported; what was written by hand has no version.
fn too_far(injected: &[Injected], to: &str) -> Option<Obstacle> {
    let is_far = |of: &&Injected| !of.version.is_empty() && skew(&of.version, to) == Skew::Unsupported;
    let far = injected.iter().filter(is_far).map(|of| format!("{}: {}", of.pod, of.version));
    let far: Vec<String> = far.collect();
    (!far.is_empty()).then(|| Obstacle {
        what: format!(
            "{} more than one minor version away from {to} ({})",
            units::count(far.len(), "pod has a proxy", "pods have a proxy"),
            some(&far)
        ),
        remedy: "they would lose their controller: restart them first, so that they get a proxy of the version that is \
                 installed, or add --force"
            .to_owned(),
    })
}

/// Goes back to what was there.
async fn back(cluster: &Cluster, earlier: &Release, cause: WaitError, out: &Out) -> InstallError {
    out.remark(&format!("it does not get healthy: going back to {}", earlier.version));
    match steps::take(cluster, &earlier.objects, BACK, out).await {
        Ok(left) => {
            let mut rest =
                format!("the mesh {} is back, and ready; it never stopped serving", earlier.version);
            for text in left {
                rest.push('\n');
                rest.push_str(&text);
            }
            steps::unfinished(cause, &rest)
        }
        Err(error) => {
            let rest = format!(
                "and going back failed: {error}\nrun `meshctl upgrade` again, or `meshctl install` with the values that are wanted"
            );
            steps::unfinished(cause, &rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_at_a_time() {
        let check = |from: &str, to: &str, expected: Option<&str>| {
            let told = may_follow(from, to).err().map(|error| error.to_string());
            match expected {
                None => assert_eq!(told, None, "{from} {to}"),
                Some(part) => assert!(told.as_deref().is_some_and(|told| told.contains(part)), "{told:?}"),
            }
        };
        check("0.1.0", "0.1.0", None);
        check("0.1.9", "0.2.0", None);
        check("0.1.0", "0.3.0", Some("more than one minor version"));
        check("0.2.0", "0.1.0", Some("newer than this meshctl"));
        check("0.10.0", "0.9.0", Some("newer than this meshctl"));
        check("0.1.0", "1.0.0", Some("more than one minor version"));
    }
}
