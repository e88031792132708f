//! `cargo xtask tidy`: the rules of the house that a compiler does not check.

mod crates;
mod dependencies;
mod documents;
mod licences;
mod metrics;
mod sizes;
mod source;
mod text;

use std::fmt;

use anyhow::{Result, bail};

use self::source::Tree;
use crate::workspace;

/// One breach of a rule: where, what, and what to do about it.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    /// Path in the repository, with a line if one is to blame.
    place: String,
    problem: String,
    remedy: &'static str,
}

impl Finding {
    fn new(place: impl Into<String>, problem: impl Into<String>, remedy: &'static str) -> Self {
        Self { place: place.into(), problem: problem.into(), remedy }
    }

    /// A finding in line `line` (from 1) of `path`.
    fn at(path: &str, line: usize, problem: impl Into<String>, remedy: &'static str) -> Self {
        Self::new(format!("{path}:{line}"), problem, remedy)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.problem, self.remedy)
    }
}

/// Checks the tree and says what is wrong with it.
pub(crate) fn run() -> Result<()> {
    let findings = check()?;
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        number => bail!("tidy found {number} things to put right"),
    }
}

/// All findings in the workspace.
fn check() -> Result<Vec<Finding>> {
    let tree = Tree::read(&workspace::root())?;
    let mut findings = Vec::new();
    for file in &tree.files {
        findings.extend(text::check(file));
        if file.is_rust() {
            findings.extend(sizes::check(file));
        }
    }
    findings.extend(documents::check(&tree));
    findings.extend(metrics::check(&tree));
    findings.extend(crates::check(&tree, &workspace::metadata(["--no-deps"])?));
    findings.extend(dependencies::check()?);
    findings.extend(licences::check(&tree)?);
    Ok(findings)
}

#[cfg(test)]
mod tests {
    /// The rules hold for the tree that this test was built from.
    #[test]
    fn the_tree_is_tidy() {
        let findings = super::check().expect("the tree can be read");
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }
}
