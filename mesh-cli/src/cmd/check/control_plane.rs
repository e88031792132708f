//! Checks of the controller: reachable, its clock and version, its certificates, its configuration.

use mesh_proto::view::v1 as pb;

use super::model::{Check, Outcome};
use crate::{
    cmd::{Skew, skew, version::VERSION, when},
    view::ViewError,
};

const CONTROLLER: &str = "Controller";
const TRUST: &str = "Certificates";
const CONFIGURATION: &str = "Configuration";

const ANSWERS: &str = "the view API answers";
const APPLIES: &str = "applies as it is written";
const TOKEN: &str = "the view token is accepted";

/// Largest difference of clocks, in milliseconds: certificates are valid from a moment before they were issued.
const MAX_CLOCK_SKEW: i64 = 5000;
/// Certificates of the CA that expire within this time are warned of, in seconds: 30 days.
const EXPIRES_SOON: i64 = 30 * 86_400;

/// The address or the token could not be read, or nothing answers.
pub(super) fn not_found(error: &anyhow::Error) -> Check {
    split(ANSWERS, &error.to_string())
}

/// Nothing answers.
pub(super) fn unreachable(error: &ViewError) -> Check {
    split(ANSWERS, &error.to_string())
}

/// Something answers, but not as it should.
pub(super) fn refused(address: &str, error: &ViewError) -> Vec<Check> {
    let text = error.to_string();
    match error {
        ViewError::WrongToken { .. } => {
            vec![Check::ok(CONTROLLER, ANSWERS, address.to_owned()), split(TOKEN, &text)]
        }
        _ => vec![split(ANSWERS, &text)],
    }
}

/// Our error texts are of the form "what is wrong; what to do".
fn split(check: &'static str, text: &str) -> Check {
    let (reason, remedy) = text.split_once("; ").unwrap_or((text, ""));
    Check::bad(CONTROLLER, check, Outcome::Fail, reason, remedy)
}

/// Checks of the controller's status. `asked` and `answered` are this machine's clock around the call, in milliseconds.
pub(super) fn checks(status: &pb::GetStatusResponse, address: &str, asked: i64, answered: i64) -> Vec<Check> {
    let mut checks = vec![
        Check::ok(CONTROLLER, ANSWERS, address.to_owned()),
        Check::ok(CONTROLLER, TOKEN, None),
        version(&status.version),
        clock(status.now_millis, asked, answered),
    ];
    for anchor in &status.anchors {
        let short = anchor.sha256.get(..16).unwrap_or(&anchor.sha256);
        let remedy = "the root must be replaced: move the ca directory of the controller's data directory away (in a cluster: delete \
                      the Secret mesh-ca and the ConfigMap mesh-trust-bundle of mesh-system), restart the controller, and then \
                      its proxies, with the new trust-bundle.pem";
        checks.push(
            validity("the trust anchor is valid", anchor.not_after, status.now_millis, remedy)
                .of(format!("root {short}")),
        );
    }
    if status.anchors.is_empty() {
        let reason = "the controller has no trust anchor";
        checks.push(Check::bad(
            TRUST,
            "the trust anchor is valid",
            Outcome::Fail,
            reason,
            "restart the controller",
        ));
    }
    let remedy = "restart the controller: it issues a new issuer from the root";
    checks.push(validity("the issuer is valid", status.issuer_not_after, status.now_millis, remedy));
    checks
}

fn version(controller: &str) -> Check {
    let check = "the controller's version fits meshctl's";
    let reason = || format!("the controller is {controller}, meshctl is {VERSION}");
    match skew(controller, VERSION) {
        Skew::None => Check::ok(CONTROLLER, check, controller.to_owned()),
        Skew::Supported => Check::bad(
            CONTROLLER,
            check,
            Outcome::Warn,
            reason(),
            "they work together; use the same version in the end",
        ),
        Skew::Unsupported => Check::bad(
            CONTROLLER,
            check,
            Outcome::Fail,
            reason(),
            "use a meshctl of the controller's version",
        ),
    }
}

fn clock(theirs: i64, asked: i64, answered: i64) -> Check {
    let check = "its clock agrees with this machine's";
    // It read its clock at some moment between our two readings.
    let off = if theirs < asked { asked - theirs } else { theirs.saturating_sub(answered).max(0) };
    match off {
        0..MAX_CLOCK_SKEW => Check::ok(CONTROLLER, check, None),
        _ => {
            let direction = if theirs < asked { "behind" } else { "ahead" };
            let reason = format!("the controller's clock is {:.1} s {direction}", off as f64 / 1000.0);
            Check::bad(
                CONTROLLER,
                check,
                Outcome::Fail,
                reason,
                "synchronise both clocks (NTP): certificates depend on them",
            )
        }
    }
}

fn validity(check: &'static str, not_after: i64, now_millis: i64, remedy: &str) -> Check {
    let left = not_after.saturating_sub(now_millis / 1000);
    let moment = when(not_after, now_millis);
    match left {
        ..=0 => Check::bad(TRUST, check, Outcome::Fail, format!("it expired {moment}"), remedy),
        1..EXPIRES_SOON => Check::bad(TRUST, check, Outcome::Warn, format!("it expires {moment}"), remedy),
        _ => Check::ok(TRUST, check, format!("expires {moment}")),
    }
}

/// Something in the controller's answers could not be read, so that nothing can be said about it.
pub(super) fn left_out(what: &str) -> Check {
    let remedy = "use a meshctl of the controller's version";
    Check::bad(CONFIGURATION, "the controller's answers are understood", Outcome::Fail, what, remedy)
}

/// One check for each problem of the configuration, or one that all is well. `running`: as a controller reports it.
pub(super) fn problems(problems: &[pb::Problem], running: bool) -> Vec<Check> {
    if problems.is_empty() {
        return vec![Check::ok(CONFIGURATION, APPLIES, None).of("every object")];
    }
    problems.iter().map(|one| problem(one, running)).collect()
}

fn problem(problem: &pb::Problem, running: bool) -> Check {
    let kind = problem.object.as_ref().map(|object| object.kind.as_str());
    let (found, result) = match (problem.refused, running, kind) {
        // What it was to restrict must not become open by an error in it.
        (true, true, Some("TrafficTarget")) => (
            "not applied; if it was good before, that version stays, else its destination is closed",
            Outcome::Fail,
        ),
        (true, true, _) => {
            ("not applied; if it was good before, that version stays, else it has no effect", Outcome::Fail)
        }
        (true, false, _) => ("not applied", Outcome::Fail),
        (false, ..) => ("applied in part", Outcome::Warn),
    };
    let field = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
    let place = match (problem.file.as_str(), problem.line) {
        ("", _) => String::new(),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}: "),
    };
    let reason = format!("{found}: {place}{field}{}", problem.message);
    let subject = match &problem.object {
        Some(object) if object.namespace.is_empty() => format!("{} {}", object.kind, object.name),
        Some(object) => format!("{} {}/{}", object.kind, object.namespace, object.name),
        None => problem.file.clone(),
    };
    Check::bad(CONFIGURATION, APPLIES, result, reason, problem.remedy.as_str()).of(subject)
}
