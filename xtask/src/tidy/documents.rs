//! Rules that keep the documents true: ports, metrics, reasons and links.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

use super::Finding;
use super::source::{SourceFile, Tree};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const METRICS: &str = "docs/metrics.md";
const REASONS: &str = "docs/reasons.md";
const PORTS_SOURCE: &str = "mesh-core/src/ports.rs";
const REASONS_SOURCE: &str = "mesh-core/src/reason.rs";
/// Folders whose string literals may be names of metrics.
const METRIC_SOURCES: [&str; 2] = ["mesh-proxy/src/", "mesh-controller/src/"];
/// Literals that look like a metric and are the name of a crate, as logs know it.
const CRATES: [&str; 7] =
    ["mesh_core", "mesh_proto", "mesh_k8s", "mesh_proxy", "mesh_controller", "mesh_cli", "mesh_testkit"];

/// Findings in all documents.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = check_ports(tree);
    findings.extend(check_metrics(tree));
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

/// The metrics of the code and those of the page are the same.
fn check_metrics(tree: &Tree) -> Vec<Finding> {
    let mut in_code: BTreeMap<String, String> = BTreeMap::new();
    for file in METRIC_SOURCES.iter().flat_map(|folder| tree.below(folder)) {
        if file.is_rust() && !file.is_test() {
            for (line, literal) in literals(&file.text_before_tests()) {
                if is_metric(&literal) {
                    in_code.entry(literal).or_insert_with(|| format!("{}:{line}", file.path));
                }
            }
        }
    }
    let page = tree.text(METRICS);
    let mut findings = Vec::new();
    for (name, place) in &in_code {
        if !words(page).any(|word| word == name) {
            findings.push(Finding::new(place, format!("{name} is not in {METRICS}"), "describe it there"));
        }
    }
    for (number, name) in first_cells(page) {
        if is_metric(name) && !in_code.contains_key(name) {
            let problem = format!("{name} is not in the code");
            findings.push(Finding::at(METRICS, number, problem, "cut it, or export it"));
        }
    }
    findings
}

/// The reasons of the code and those of the page are the same.
fn check_reasons(tree: &Tree) -> Vec<Finding> {
    let source = tree.file(REASONS_SOURCE).map(SourceFile::text_before_tests).unwrap_or_default();
    let is_code = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let in_code: Vec<(usize, String)> =
        literals(&source).into_iter().filter(|(_, text)| is_code(text)).collect();
    let in_page: Vec<(usize, &str)> =
        first_cells(tree.text(REASONS)).into_iter().filter(|(_, text)| is_code(text)).collect();
    let mut findings = Vec::new();
    for (line, code) in &in_code {
        if !in_page.iter().any(|(_, other)| other == code) {
            let problem = format!("{code} has no row in {REASONS}");
            findings.push(Finding::at(
                REASONS_SOURCE,
                *line,
                problem,
                "add a row: what happened, what to do",
            ));
        }
    }
    for (line, code) in in_page {
        if !in_code.iter().any(|(_, other)| other == code) {
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

fn is_metric(text: &str) -> bool {
    let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.len() > "mesh_".len()
        && text.starts_with("mesh_")
        && text.chars().all(name)
        && !CRATES.contains(&text)
}

/// What stands between characters that no name has.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The first cell of each row of the tables of a page, bare of its quotes, with its line.
fn first_cells(page: &str) -> Vec<(usize, &str)> {
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
