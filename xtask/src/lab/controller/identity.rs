//! Who gets a certificate, and who does not; and what replicas have in common.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::super::check::wait_for;
use super::super::image;
use super::super::place::Lab;
use super::proxy::{AUDIENCE, Proxy, token, trust_bundle};
use super::{Controller, NAMESPACE, apply_template, data, kubectl, secret};
use crate::workspace;

const TELLER: &str = "spiffe://cluster.local/ns/bank/sa/teller";

/// Proofs, Secrets, trust bundles and leaders.
pub(super) fn check(lab: &Lab) -> Result<()> {
    apply_template(
        lab,
        "identity.yaml",
        include_str!("../files/identity.yaml"),
        &[("image", image::BUSYBOX)],
    )?;
    let controller = Controller::start(lab, 0)?;
    let root = secret(lab, "mesh-ca", "root.pem")?;
    trust(lab, &root)?;
    proofs(&controller)?;
    waiting(&controller)?;
    no_keys(&data(lab, 0))?;
    replicas(lab, controller, &root)?;
    kubectl(lab, &["delete", "namespace", "bank", "--wait=false"])?;
    kubectl(lab, &["delete", "mutatingwebhookconfiguration", "mesh-injector"])
}

/// The root is where proxies and the API server look for it, whatever others do there.
fn trust(lab: &Lab, root: &str) -> Result<()> {
    for namespace in [NAMESPACE, "bank"] {
        wait_for("trust bundle", || Ok(trust_bundle(lab, namespace)? == root))?;
    }
    let begun = Instant::now();
    let changed = r#"{"data":{"trust-bundle.pem":"changed"},"metadata":{"labels":null}}"#;
    kubectl(lab, &["patch", "configmap", "-n", "bank", "mesh-trust-bundle", "-p", changed])?;
    wait_for("repair of what was changed", || Ok(trust_bundle(lab, "bank")? == root))?;
    kubectl(lab, &["delete", "configmap", "-n", "bank", "mesh-trust-bundle"])?;
    wait_for("repair of what was deleted", || Ok(trust_bundle(lab, "bank")? == root))?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(10), "trust bundles were put right after {took:?} only");

    let path = "-o=go-template={{(index .webhooks 0).clientConfig.caBundle | base64decode}}";
    let bundle = || {
        let args = ["get", "mutatingwebhookconfiguration", "mesh-injector", path];
        workspace::output(&mut lab.kubectl(args))
    };
    wait_for("root in the webhooks", || Ok(bundle()? == root))?;
    println!("trust bundles and webhooks have the root, and get it back within {:.1} s", took.as_secs_f64());
    Ok(())
}

/// Only a pod's own token, for the mesh, gets its certificate, and each one anew.
fn proofs(controller: &Controller<'_>) -> Result<()> {
    let lab = controller.lab;
    let own = token(lab, "bank", "teller", AUDIENCE, Some("teller"))?;
    let other_audience = token(lab, "bank", "teller", "https://kubernetes.default.svc", Some("teller"))?;
    let checks = [
        ("other audience", other_audience.clone(), "audience", "Unauthenticated"),
        (
            "other pod",
            token(lab, "bank", "teller", AUDIENCE, Some("waiting"))?,
            "pod bank/waiting",
            "PermissionDenied",
        ),
        (
            "other account",
            token(lab, "bank", "guard", AUDIENCE, Some("guard"))?,
            "pod bank/guard",
            "PermissionDenied",
        ),
        ("no pod", token(lab, "bank", "teller", AUDIENCE, None)?, "bound to no pod", "PermissionDenied"),
        (
            "the controller's",
            token(lab, NAMESPACE, "mesh-controller", AUDIENCE, None)?,
            "own ServiceAccount",
            "PermissionDenied",
        ),
        ("forged", forged(&own), "does not accept", "Unauthenticated"),
    ];
    for (what, token, why, code) in &checks {
        let proxy = Proxy::start(controller, "bank/teller", (2, token))?;
        proxy.refused(why, code)?;
        ensure!(proxy.certificate().is_err(), "{what}: a certificate all the same");
    }
    let proxy = Proxy::start(controller, "bank/teller", (1, &own))?;
    let first = proxy.certified(TELLER, "")?;
    let second = proxy.certified(TELLER, &first)?;
    // It holds a certificate, and its token is read again: what it has does not renew itself.
    proxy.take(&other_audience)?;
    proxy.refused("audience", "Unauthenticated")?;
    proxy.take(&own)?;
    proxy.certified(TELLER, &second)?;
    fs::remove_file(lab.folder().join("token-1"))?;
    proxy.refused("proves nothing about its successor", "Unauthenticated")?;
    println!(
        "a pod gets a certificate by its own token, {} others do not, nor does a certificate",
        checks.len()
    );
    Ok(())
}

/// The same token with another signature.
fn forged(token: &str) -> String {
    let (claims, signature) = token.rsplit_once('.').unwrap_or_default();
    let other: String = signature.chars().rev().collect();
    format!("{claims}.{other}")
}

/// A pod that has no address yet is told what it is.
fn waiting(controller: &Controller<'_>) -> Result<()> {
    let token = token(controller.lab, "bank", "teller", AUDIENCE, Some("waiting"))?;
    let proxy = Proxy::start(controller, "bank/waiting", (3, &token))?;
    proxy.certified(TELLER, "")?;
    wait_for("configuration", || {
        let workload = proxy.workload()?;
        Ok(workload["workload"] == "bank/waiting" && workload["address"].is_null())
    })?;
    println!("a pod without an address gets certificate and configuration");
    Ok(())
}

/// Replicas share the authority; one of them leads, and another one follows it at once.
fn replicas<'a>(lab: &'a Lab, first: Controller<'a>, root: &str) -> Result<()> {
    wait_for("leader", || first.is_leader())?;
    let second = Controller::start(lab, 1)?;
    // Longer than a Lease lasts that nobody renews.
    let until = Instant::now() + Duration::from_secs(17);
    while Instant::now() < until {
        ensure!(first.is_leader()? && !second.is_leader()?, "both lead, or the wrong one does");
        thread::sleep(Duration::from_millis(500));
    }
    let own = token(lab, "bank", "teller", AUDIENCE, Some("teller"))?;
    let proxy = Proxy::start(&second, "bank/teller", (4, &own))?;
    let serial = proxy.certified(TELLER, "")?;

    let begun = Instant::now();
    first.terminate()?;
    wait_for("hand-over", || second.is_leader())?;
    let took = begun.elapsed();
    // It serves on for a moment, for those who do not know yet.
    ensure!(first.metrics().is_ok(), "it has stopped at once");
    first.ended()?;
    ensure!(took < Duration::from_secs(8), "the lead was handed over after {took:?} only");
    kubectl(lab, &["delete", "configmap", "-n", "bank", "mesh-trust-bundle"])?;
    wait_for("repair by the new leader", || Ok(trust_bundle(lab, "bank")? == root))?;
    proxy.certified(TELLER, &serial)?;
    drop(proxy);
    // Killed, it hands nothing over.
    drop(second);
    let again = Controller::start(lab, 0)?;
    if again.is_leader()? {
        bail!("the Lease of a leader that was killed is taken at once");
    }
    let kept = secret(lab, "mesh-ca", "root.pem")?;
    ensure!(kept == root, "the root is another one after a restart");
    let proxy = Proxy::start(&again, "bank/teller", (5, &own))?;
    proxy.certified(TELLER, "")?;
    wait_for("leader after the one that was killed", || again.is_leader())?;
    println!("replicas share the root; the lead is handed over within {:.1} s", took.as_secs_f64());
    Ok(())
}

/// No file of the controller holds a key or token.
fn no_keys(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            bail!("{} is there: in a cluster the controller has no folders", path.display());
        }
        let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
        ensure!(!text.contains("PRIVATE KEY"), "{} holds a key", path.display());
    }
    Ok(())
}
