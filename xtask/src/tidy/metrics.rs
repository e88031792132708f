//! Rule for metrics: those of the code and those of the page are the same.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::Finding;
use super::documents::{first_cells, words};
use super::source::Tree;

const PAGE: &str = "docs/metrics.md";
/// Folders whose code exports metrics.
const SOURCES: [&str; 2] = ["mesh-proxy/src/", "mesh-controller/src/"];
/// Literals that look like a metric and are the name of a crate, as logs know it.
const CRATES: [&str; 7] =
    ["mesh_core", "mesh_proto", "mesh_k8s", "mesh_proxy", "mesh_controller", "mesh_cli", "mesh_testkit"];

/// Findings in the page of metrics and in the code that exports them.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut in_code: BTreeMap<String, String> = BTreeMap::new();
    for file in SOURCES.iter().flat_map(|folder| tree.below(folder)) {
        if file.is_rust() && !file.is_test() {
            for (line, name) in exported(&file.text_before_tests()) {
                in_code.entry(stem(&name).to_owned()).or_insert_with(|| format!("{}:{line}", file.path));
            }
        }
    }
    let page = tree.text(PAGE);
    let mut findings = Vec::new();
    for (name, place) in &in_code {
        if !words(page).any(|word| stem(word) == name) {
            findings.push(Finding::new(place, format!("{name} is not in {PAGE}"), "describe it there"));
        }
    }
    for (number, name) in first_cells(page) {
        if is_metric(name) && !in_code.contains_key(stem(name)) {
            findings.push(Finding::at(
                PAGE,
                number,
                format!("{name} is not in the code"),
                "cut it, or export it",
            ));
        }
    }
    findings
}

/// The name without the ending that the encoder adds to counters.
fn stem(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or(name)
}

fn is_metric(text: &str) -> bool {
    let part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let long_enough = text.len() > "mesh_".len() && !text.ends_with('_');
    long_enough && text.starts_with("mesh_") && text.chars().all(part) && !CRATES.contains(&text)
}

/// Names of the metrics of a file with their lines: whole names as literals, and what is registered under a prefix.
fn exported(code: &str) -> Vec<(usize, String)> {
    let mut found = Literals::default();
    if let Ok(tokens) = code.parse::<TokenStream>() {
        found.walk(tokens);
    }
    let prefixed =
        found.registered.into_iter().map(|(line, name)| (line, format!("{}_{name}", found.prefix)));
    found.whole.into_iter().chain(prefixed).filter(|(_, name)| is_metric(name)).collect()
}

#[derive(Default)]
struct Literals {
    /// All string literals.
    whole: Vec<(usize, String)>,
    /// First arguments of `register("name", ..)`, and of `("name", help, unit)` with the unit at the end.
    registered: Vec<(usize, String)>,
    /// First argument of `Registry::with_prefix("prefix")`.
    prefix: String,
}

impl Literals {
    fn walk(&mut self, tokens: TokenStream) {
        let mut before = String::new();
        for token in tokens {
            match token {
                TokenTree::Group(group) => {
                    self.note_call(&before, &group);
                    self.walk(group.stream());
                    before.clear();
                }
                TokenTree::Ident(ident) => before = ident.to_string(),
                TokenTree::Punct(_) => before.clear(),
                TokenTree::Literal(_) => self.whole.extend(text_of(&token)),
            }
        }
    }

    /// Takes what is registered, if this is a call that does so.
    fn note_call(&mut self, function: &str, arguments: &Group) {
        if arguments.delimiter() != Delimiter::Parenthesis {
            return;
        }
        let tokens: Vec<TokenTree> = arguments.stream().into_iter().collect();
        let Some((line, text)) = tokens.first().and_then(text_of) else { return };
        match (function, unit(&tokens)) {
            ("register", _) => self.registered.push((line, text)),
            ("with_prefix", _) => self.prefix = text,
            (_, Some(unit)) => self.registered.push((line, format!("{text}{unit}"))),
            _ => {}
        }
    }
}

/// The ending that the third of `("name", help, unit)` gives: `None` none, `Some(Unit::Bytes)` `_bytes`.
fn unit(arguments: &[TokenTree]) -> Option<String> {
    let [_, TokenTree::Punct(_), _, TokenTree::Punct(_), TokenTree::Ident(option), rest @ ..] = arguments
    else {
        return None;
    };
    match (option.to_string().as_str(), rest.first()) {
        ("None", _) => Some(String::new()),
        ("Some", Some(TokenTree::Group(unit))) => {
            let name = unit.stream().into_iter().last()?.to_string().to_lowercase();
            Some(format!("_{name}"))
        }
        _ => None,
    }
}

/// Line and text of a string literal.
fn text_of(token: &TokenTree) -> Option<(usize, String)> {
    let TokenTree::Literal(literal) = token else { return None };
    let text = syn::parse_str::<syn::LitStr>(&literal.to_string()).ok()?;
    Some((literal.span().start().line, text.value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_page(code: &str, page: &str, expected: &[&str]) {
        let found = check(&Tree::sample([("mesh-proxy/src/m.rs", code), (PAGE, page)]));
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        let same = found.iter().zip(expected).all(|(found, expected)| found.starts_with(expected));
        assert!(found.len() == expected.len() && same, "{found:?}");
    }

    #[test]
    fn whole_names_are_described() {
        let code = "//! X.\nfn f() { encode!(\"mesh_a_total\", \"mesh_proxy\"); }\n\
                    #[cfg(test)]\nmod tests {\n\"mesh_b\"\n}\n";
        check_page(code, "| `mesh_a_total` | all of them |\n", &[]);
        let expected =
            ["mesh-proxy/src/m.rs:2: mesh_a is not in docs", "docs/metrics.md:1: mesh_c is not in the code"];
        check_page(code, "| `mesh_c` | all of them |\n", &expected);
    }

    #[test]
    fn registered_names_are_described() {
        let code = "//! X.\nfn f() {\nlet mut r = Registry::with_prefix(\"mesh_controller\");\n\
                    r.register(\"objects\", \"Objects\", x);\n}\n";
        check_page(code, "| `mesh_controller_objects` | all of them |\n", &[]);
        check_page(code, "", &["mesh-proxy/src/m.rs:4: mesh_controller_objects is not in docs"]);
        let code = "//! X.\nfn f() {\nlet mut r = Registry::with_prefix(\"mesh\");\n\
                    e.encode(\"age\", \"Age\", Some(&Unit::Seconds), kind);\n\
                    gauge(e, (\"up\", help, None), 1);\nother(\"x\", help);\n}\n";
        check_page(code, "| `mesh_age_seconds` | x |\n| `mesh_up` | x |\n", &[]);
        check_page(
            code,
            "| `mesh_age` |",
            &["mesh-proxy/src/m.rs:4", "mesh-proxy/src/m.rs:5", "docs/metrics.md:1"],
        );
    }
}
