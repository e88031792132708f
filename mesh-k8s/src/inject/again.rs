//! A pod that has a proxy already. Another webhook, or a person, may have added containers and probes since.
//!
//! The mesh's own containers stay as they are, but for the probes that the proxy performs: others change those too, for a
//! registry of their own or for the limits of a namespace, and are not to be fought with.

use serde_json::Value;

use super::{
    Nonce, Outcome, Refusals, Skip, VERSION, checks,
    probes::{self, Sites},
    quiet,
    shape::Pod,
};
use crate::labels;

/// Looks at what was added, and leads its probes to the proxy.
pub(super) fn inject(pod: &Value, shape: &Pod<'_>, nonce: &Nonce, mut refusals: Refusals) -> Outcome {
    // Another version may have put it there in another way.
    if shape.annotation(labels::INJECTED) != Some(VERSION) {
        return Outcome::Skipped(Skip::AlreadyInjected);
    }
    if shape.spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        let message = "the rules of its proxy would lead all of the host's connections to it";
        refusals.add(
            "spec.hostNetwork",
            message,
            "take the pod off the host's network, or the proxy out of it",
        );
    }
    checks::run(shape, true, &mut refusals);
    let held = probes::held(shape);
    let mut new = pod.clone();
    probes::restore(&mut new, &held);
    let nonce = probes::nonce(&held).unwrap_or_else(|| nonce.clone());
    let sites = Sites { native: shape.is_native(), is_injected: true };
    let mut probes = probes::lead_to_proxy(&mut new, sites, &nonce, &mut refusals);
    let seconds = quiet::at_most(shape, shape.is_native(), &mut refusals);
    quiet::add(&mut new, seconds, &nonce, &mut probes);
    if !refusals.0.is_empty() {
        return Outcome::Refused(refusals.0);
    }
    if probes != held {
        probes::hold(&mut new, &probes);
    }
    if new == *pod { Outcome::Skipped(Skip::AlreadyInjected) } else { Outcome::Injected(new) }
}
