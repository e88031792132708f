//! Rules that keep the documents true: ports, reasons and links.

use std::path::{Component, Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

use super::Finding;
use super::source::{SourceFile, Tree};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const REASONS: &str = "docs/reasons.md";
const PORTS_SOURCE: &str = "mesh-core/src/ports.rs";
const REASONS_SOURCE: &str = "mesh-core/src/reason.rs";
/// Findings in all documents.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = check_ports(tree);
    findings.extend(check_reasons(tree));
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        findings.extend(check_links(file, &|path| tree.exists(path)));
    }
    findings
}

/// Every port of the code is named in the architecture.
fn check_ports(tree: &Tree) -> Vec<Finding> {
    let ports = tree.file(PORTS_SOURCE).map_or_else(Vec::new, |file| file.lines().collect());
    let mut findings = Vec::new();
    for (number, line) in ports {
        let Some((name, port)) = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(": u16 = "))
        else {
            continue;
        };
        let port = port.trim_end_matches(';');
        if !words(tree.text(ARCHITECTURE)).any(|word| word == port) {
            let problem = format!("port {port} ({name}) is not in {ARCHITECTURE}");
            findings.push(Finding::at(PORTS_SOURCE, number, problem, "add it to the table of ports"));
        }
    }
    findings
}

/// The reasons of the code and those of the page are the same, with their statuses and what to do.
fn check_reasons(tree: &Tree) -> Vec<Finding> {
    let source = tree.file(REASONS_SOURCE).map(SourceFile::text_before_tests).unwrap_or_default();
    let page = tree.text(REASONS);
    let is_code = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let in_page: Vec<(usize, &str)> =
        first_cells(page).into_iter().filter(|(_, text)| is_code(text)).collect();
    let mut findings = Vec::new();
    let literals = literals(&source);
    for (index, (line, code)) in literals.iter().enumerate().filter(|(_, (_, text))| is_code(text)) {
        let Some((row, _)) = in_page.iter().find(|(_, other)| other == code) else {
            let problem = format!("{code} has no row in {REASONS}");
            findings.push(Finding::at(
                REASONS_SOURCE,
                *line,
                problem,
                "add a row: what happened, what to do",
            ));
            continue;
        };
        let hint = literals.get(index + 1).map_or("", |(_, hint)| hint);
        let statuses = source.lines().nth(line - 1).and_then(|line| line.split_once(&format!("\"{code}\",")));
        let statuses = statuses.map_or("", |(_, rest)| rest).split(',').map(str::trim);
        let text = page.lines().nth(row - 1).unwrap_or_default();
        for expected in std::iter::once(hint).chain(statuses).filter(|expected| !says(text, expected)) {
            let problem = format!("the row of {code} does not say `{expected}`");
            findings.push(Finding::at(REASONS, *row, problem, "write what mesh-core/src/reason.rs says"));
        }
    }
    for (line, code) in in_page {
        if !literals.iter().any(|(_, other)| other == code) {
            findings.push(Finding::at(
                REASONS,
                line,
                format!("{code} is no reason of the code"),
                "cut the row",
            ));
        }
    }
    findings
}

/// True if a row says something, be it `Not Found` for `NOT_FOUND`.
fn says(row: &str, expected: &str) -> bool {
    let plain = |text: &str| text.to_uppercase().replace('_', " ");
    plain(row).contains(&plain(expected))
}

/// Every link to a file of the repository leads somewhere.
fn check_links(file: &SourceFile, exists: &dyn Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folder = Path::new(&file.path).parent().unwrap_or_else(|| Path::new(""));
    for (number, line) in file.lines() {
        for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split(['#', ' ']).next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:") || path.is_empty();
            if !elsewhere && !exists(&normal(&folder.join(path))) {
                let problem = format!("the link to {target} leads nowhere");
                findings.push(Finding::at(&file.path, number, problem, "correct it"));
            }
        }
    }
    findings
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut result = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                result.pop();
            }
            part => result.push(part),
        }
    }
    result
}

/// What stands between characters that no name has.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The first cell of each row of the tables of a page, bare of its quotes, with its line.
pub(super) fn first_cells(page: &str) -> Vec<(usize, &str)> {
    let rows =
        page.lines().enumerate().filter_map(|(index, line)| Some((index + 1, line.strip_prefix('|')?)));
    rows.filter_map(|(line, row)| Some((line, row.split('|').next()?.trim().trim_matches('`')))).collect()
}

/// The string literals of Rust code with their lines, those in macros too. Code that is no Rust has none.
fn literals(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    if let Ok(tokens) = code.parse::<TokenStream>() {
        collect(tokens, &mut found);
    }
    found
}

fn collect(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => collect(group.stream(), found),
            TokenTree::Literal(literal) => {
                let line = literal.span().start().line;
                if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                    found.push((line, text.value()));
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
