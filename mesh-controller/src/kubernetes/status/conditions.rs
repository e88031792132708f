//! Which conditions an object should have, and whether those that it has are worth a write. Pure.

use std::time::Duration;

use mesh_k8s::Problem;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{publish::Standing, source::Force};

/// Longest message, in characters.
const MAX_MESSAGE: usize = 1024;
/// How soon a count of proxies that has changed is worth a write.
const COUNTED: Duration = Duration::from_secs(30);

/// What the controller says of objects.
const ACCEPTED: &str = "Accepted";
const APPLIED: &str = "Applied";
/// Why not all proxies have an object.
const WAITING: &str = "Waiting";
const ALL_PROXIES: &str = "AllProxies";
const NO_PROXIES: &str = "NoProxies";

/// One condition, as `metav1.Condition`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    observed_generation: i64,
    last_transition_time: String,
}

impl Condition {
    fn new(kind: &str, (status, reason): (&str, &str), message: String, generation: i64) -> Self {
        Self {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: String::new(),
        }
    }

    /// True when both say the same, whatever they count.
    fn is_same(&self, other: &Self) -> bool {
        let plain = |c: &Self| (c.status.clone(), c.reason.clone(), c.observed_generation);
        plain(self) == plain(other) && (self.kind != ACCEPTED || self.message == other.message)
    }
}

/// What an object says of itself already, of what the controller says of objects.
pub(crate) fn noted(object: &Value) -> Vec<Condition> {
    let all = object.pointer("/status/conditions").and_then(Value::as_array);
    let all = all.into_iter().flatten().filter_map(|one| Condition::deserialize(one).ok());
    all.filter(|one| one.kind == ACCEPTED || one.kind == APPLIED).take(2).collect()
}

/// What is true of an object; `proxies` are the generations that proxies have, in order.
pub(super) fn wanted(standing: &Standing, problems: &[&Problem], proxies: &[u64]) -> [Condition; 2] {
    let generation = standing.state.observed.generation;
    let told = told(problems);
    let accepted = match standing.state.force {
        Force::Newest if told.is_empty() => (("True", "Accepted"), "it is in force".to_owned()),
        Force::Newest => (("True", "AcceptedInPart"), told),
        Force::Kept => (("False", "LastGoodKept"), bounded(&format!("its last good version stays; {told}"))),
        Force::Nothing if is_conflict(problems) => (("False", "Conflict"), told),
        Force::Nothing => (("False", "Invalid"), told),
    };
    let missing = proxies.partition_point(|have| *have < standing.since);
    let (have, all) = (proxies.len() - missing, proxies.len());
    let applied = match standing.state.force {
        Force::Nothing => (("False", "NotInForce"), "no version of it is in force".to_owned()),
        Force::Newest | Force::Kept if all == 0 => {
            (("Unknown", NO_PROXIES), "no proxy is connected to the leader".to_owned())
        }
        Force::Newest | Force::Kept => {
            // No count, or each pod that comes or goes would be a write to every object.
            if missing == 0 {
                (("True", ALL_PROXIES), "all proxies that are connected to the leader have it".to_owned())
            } else {
                (("False", WAITING), format!("{have} of {all} proxies have it"))
            }
        }
    };
    [(ACCEPTED, accepted), (APPLIED, applied)]
        .map(|(kind, (about, message))| Condition::new(kind, about, message, generation))
}

/// What to write in the place of `noted`, which was written so long ago; None: it is not worth it.
pub(super) fn next(
    noted: &[Condition],
    mut wanted: [Condition; 2],
    since: Duration,
    now: &str,
) -> Option<[Condition; 2]> {
    let mut is_worth_it = false;
    for condition in &mut wanted {
        let old = noted.iter().find(|old| old.kind == condition.kind);
        condition.last_transition_time = match old {
            Some(old) if old.status == condition.status => old.last_transition_time.clone(),
            _ => now.to_owned(),
        };
        match old {
            // Without proxies nothing new is known: after a start, none has come yet.
            Some(old) if condition.reason == NO_PROXIES && was_counted(old, condition) => {
                condition.clone_from(old);
            }
            Some(old) if condition.is_same(old) => {
                is_worth_it |= old.message != condition.message && since >= COUNTED;
            }
            _ => is_worth_it = true,
        }
    }
    is_worth_it.then_some(wanted)
}

fn was_counted(old: &Condition, new: &Condition) -> bool {
    matches!(&*old.reason, WAITING | ALL_PROXIES) && old.observed_generation == new.observed_generation
}

/// True when another object alone is what keeps it out of force.
fn is_conflict(problems: &[&Problem]) -> bool {
    let mut refusing = problems.iter().filter(|p| p.refused).peekable();
    refusing.peek().is_some() && refusing.all(|p| p.is_conflict)
}

/// All problems, in one line; those that refuse the object first.
fn told(problems: &[&Problem]) -> String {
    let (worse, others): (Vec<&Problem>, Vec<&Problem>) = problems.iter().partition(|p| p.refused);
    let one = |problem: &Problem| {
        // The condition stands at the object.
        let problem = Problem { object: None, ..problem.clone() };
        let text = problem.to_string();
        let place = format!("{}: ", problem.place);
        text.strip_prefix(&place).unwrap_or(&text).to_owned()
    };
    let all: Vec<String> = worse.into_iter().chain(others).map(one).collect();
    bounded(&all.join(" | "))
}

fn bounded(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let mut short: String = text.chars().map(printable).take(MAX_MESSAGE).collect();
    if text.chars().nth(MAX_MESSAGE).is_some() {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
