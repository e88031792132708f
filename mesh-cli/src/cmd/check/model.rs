//! Checks as data.

use serde::Serialize;

use crate::{
    Exit,
    out::{Tone, units},
};

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// All is well.
    Ok,
    /// Worth a look.
    Warn,
    /// Not well.
    Fail,
}

impl Outcome {
    /// How it is shown.
    pub(super) fn sign(self) -> (Tone, &'static str) {
        match self {
            Self::Ok => (Tone::Good, "ok"),
            Self::Warn => (Tone::Warn, "warn"),
            Self::Fail => (Tone::Bad, "FAIL"),
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What part of the mesh it looks at.
    pub(super) category: &'static str,
    /// What must hold.
    pub(super) check: &'static str,
    /// Whether it does.
    pub(super) result: Outcome,
    /// What was looked at, when it is one of several: an object, a workload.
    pub(super) subject: Option<String>,
    /// What was found; when all is well, with numbers.
    pub(super) detail: Option<String>,
    /// Why it is not well.
    pub(super) reason: Option<String>,
    /// What to do.
    pub(super) remedy: Option<String>,
}

impl Check {
    /// A check that came out well.
    pub(super) fn ok(category: &'static str, check: &'static str, detail: impl Into<Option<String>>) -> Self {
        let detail = detail.into();
        Self { category, check, result: Outcome::Ok, subject: None, detail, reason: None, remedy: None }
    }

    /// A check that came out worse.
    pub(super) fn bad(
        category: &'static str,
        check: &'static str,
        result: Outcome,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (reason, remedy) = (Some(reason.into()), Some(remedy.into()).filter(|text| !text.is_empty()));
        Self { category, check, result, subject: None, detail: None, reason, remedy }
    }

    /// Says what was looked at.
    pub(super) fn of(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    /// Its line for people.
    pub(super) fn line(&self) -> String {
        let subject = self.subject.as_ref().map(|subject| format!("{subject}: ")).unwrap_or_default();
        let detail = self.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        format!("{subject}{}{detail}", self.check)
    }
}

/// All checks and how they came out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Number that came out well.
    pub(super) ok: usize,
    /// Number of warnings.
    pub(super) warnings: usize,
    /// Number that failed.
    pub(super) failed: usize,
    /// The checks.
    pub(super) checks: Vec<Check>,
}

impl Report {
    /// Counts.
    pub(super) fn new(checks: Vec<Check>) -> Self {
        let count = |result| checks.iter().filter(|check| check.result == result).count();
        let (ok, warnings, failed) = (count(Outcome::Ok), count(Outcome::Warn), count(Outcome::Fail));
        Self { ok, warnings, failed, checks }
    }

    /// 1 when a check failed; warnings are no failure.
    pub(super) fn exit(&self) -> Exit {
        if self.failed > 0 { Exit::NotWell } else { Exit::Ok }
    }

    /// The worst result.
    pub(super) fn worst(&self) -> Outcome {
        self.checks.iter().map(|check| check.result).max().unwrap_or(Outcome::Ok)
    }

    /// One line for people.
    pub(super) fn summary(&self) -> String {
        let all = units::count(self.checks.len(), "check", "checks");
        let warnings = units::count(self.warnings, "warning", "warnings");
        match (self.failed, self.warnings) {
            (0, 0) => format!("{all}, all well"),
            (0, _) => format!("{all}, {warnings}, none failed"),
            (failed, 0) => format!("{all}, {failed} failed"),
            (failed, _) => format!("{all}, {failed} failed, {warnings}"),
        }
    }
}
