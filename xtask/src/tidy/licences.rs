//! Rule for licences: everything that is built is under one of those that deny.toml allows.

use anyhow::{Result, bail};

use super::Finding;
use super::source::Tree;
use crate::workspace::{self, TARGET};

const LIST: &str = "deny.toml";

/// Findings in the licences of all packages that are built for Linux.
pub(crate) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let allowed = allowed(tree.text(LIST))?;
    let metadata = workspace::metadata(["--locked", "--filter-platform", TARGET])?;
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().map_or(&[][..], Vec::as_slice) {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence, &allowed) {
            let problem = format!("{name} is under `{licence}`, which is not allowed");
            findings.push(Finding::new(
                LIST,
                problem,
                "use another crate, or allow the licence after reading it",
            ));
        }
    }
    Ok(findings)
}

/// The quoted entries of `allow` in `[licenses]`.
fn allowed(deny: &str) -> Result<Vec<&str>> {
    let section = deny.split_once("[licenses]").map_or("", |(_, rest)| rest);
    let list =
        section.split_once("allow = [").and_then(|(_, rest)| rest.split_once(']')).map(|(list, _)| list);
    let entries: Vec<&str> = list.unwrap_or_default().split('"').skip(1).step_by(2).collect();
    if entries.is_empty() {
        bail!("{LIST} has no list `allow` in [licenses]");
    }
    Ok(entries)
}

/// True if an SPDX expression can be met with the allowed licences alone. `/`, as old crates write it, is OR.
fn is_allowed(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = Words { words: spaced.split_whitespace().peekable(), allowed };
    let met = words.any();
    // Something left over means that this was not understood.
    met == Some(true) && words.words.next().is_none()
}

/// Reads an expression; `None` means that it is not one.
struct Words<'a, I: Iterator<Item = &'a str>> {
    words: std::iter::Peekable<I>,
    allowed: &'a [&'a str],
}

impl<'a, I: Iterator<Item = &'a str>> Words<'a, I> {
    fn any(&mut self) -> Option<bool> {
        let mut met = self.all()?;
        while self.words.next_if_eq(&"OR").is_some() {
            met |= self.all()?;
        }
        Some(met)
    }

    fn all(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.words.next_if_eq(&"AND").is_some() {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        let word = self.words.next()?;
        if word == "(" {
            let met = self.any()?;
            return (self.words.next()? == ")").then_some(met);
        }
        let mut licence = word.to_owned();
        if self.words.next_if_eq(&"WITH").is_some() {
            licence = format!("{licence} WITH {}", self.words.next()?);
        }
        Some(self.allowed.contains(&licence.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_list() {
        let deny = "[graph]\nx = [\"no\"]\n[licenses]\nallow = [\n    \"MIT\",\n    \"ISC\",\n]\n[bans]\n";
        assert_eq!(allowed(deny).expect("a list"), ["MIT", "ISC"]);
        assert!(allowed("[licenses]\n").is_err());
    }

    #[test]
    fn judges_expressions() {
        let check = |expression, expected| {
            let list = ["MIT", "ISC", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"];
            assert_eq!(is_allowed(expression, &list), expected, "{expression}");
        };
        check("MIT", true);
        check("MIT/GPL-3.0", true);
        check("GPL-3.0-or-later", false);
        check("GPL-3.0 OR MIT", true);
        check("MIT AND OpenSSL", false);
        check("ISC AND (OpenSSL OR Apache-2.0)", true);
        check("GPL-2.0 OR MIT AND GPL-3.0", false);
        check("Apache-2.0 WITH LLVM-exception", true);
        check("Apache-2.0 WITH Other", false);
        check("", false);
        check("MIT ISC", false);
        check("(MIT", false);
    }
}
