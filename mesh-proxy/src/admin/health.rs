//! Readiness: what is missing.

use super::State;
use crate::drain::Drain;

/// What keeps the proxy from being ready; empty when it is.
pub(crate) fn missing(state: &State) -> Vec<String> {
    let mut missing = Vec::new();
    if *state.drain.borrow() != Drain::Running {
        missing.push("draining".to_owned());
    }
    if state.control.tls().borrow().is_none() {
        missing.push(format!("no certificate yet from the controller at {}", state.config.controller));
    }
    if state.control.workload().borrow().is_none() {
        missing.push(format!("no configuration yet for workload {}", state.config.workload));
        return missing;
    }
    let progress = state.progress.borrow();
    missing.extend(progress.problems.iter().cloned());
    if !progress.started {
        missing.push("listeners do not stand yet".to_owned());
    }
    missing
}
