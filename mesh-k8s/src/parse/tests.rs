//! YAML in, objects and problems out.

mod cluster;
mod external;
mod filters;
mod gateway;
mod grpc;
mod hostile;
mod kinds;
mod kubernetes;
mod smi;
mod traffic;
mod workload;

use super::parse;
use crate::object::Standing;

/// Parses `text`; expects these objects, and these problems as `LINE FIELD: MESSAGE` (a `!` before it: refused; MESSAGE
/// is a part of message and remedy).
#[track_caller]
fn check(text: &str, objects: &[&str], problems: &[&str]) {
    let (found, wrong, recognised) = parse("mesh.yaml", text);
    let proper = found.iter().filter(|o| o.standing != Standing::StandIn);
    let names: Vec<String> = proper.map(|o| o.reference().to_string()).collect();
    let told: Vec<String> = wrong.iter().map(ToString::to_string).collect();
    assert_eq!(names, objects, "objects of {text}\n{told:#?}");
    assert_eq!(wrong.len(), problems.len(), "problems of {text}\n{told:#?}");
    for (problem, expected) in wrong.iter().zip(problems) {
        let (place, message) = expected.split_once(": ").unwrap();
        let refused = if problem.refused { "!" } else { "" };
        assert_eq!(format!("{refused}{} {}", problem.place.line, problem.field), place, "{problem}");
        let all = format!("{}; {}", problem.message, problem.remedy);
        assert!(all.contains(message), "{all:?} lacks {message:?}");
    }
    let nameless = wrong.iter().any(|p| p.refused && p.object.is_none());
    assert_eq!(recognised, !nameless, "what is refused must be named, or the file counts as not recognised");
}

/// Replaces one part of a good document, and expects one problem that refuses the object.
#[track_caller]
fn check_refused(good: &str, part: &str, replacement: &str, problem: &str) {
    assert_eq!(good.matches(part).count(), 1, "{part:?} must be there once");
    check(&good.replace(part, replacement), &[], &[problem]);
}
